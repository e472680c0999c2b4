package consul

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
)

// TestDestinations: an upstream leads to where its discovery chain does.
func TestDestinations(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v1/discovery-chain/shop" {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		fmt.Fprint(w, `{"Chain": {"Datacenter": "cf", "Targets": {
			"v1.web": {"Service": "web", "ServiceSubset": "v1", "Datacenter": "cf", "MeshGateway": {}},
			"v2.web": {"Service": "web", "ServiceSubset": "v2", "Datacenter": "cf", "MeshGateway": {}},
			"far":    {"Service": "web", "Datacenter": "far", "MeshGateway": {"Mode": "local"}}}}}`)
	}))
	t.Cleanup(server.Close)
	c := &Client{Base: server.URL}
	got, err := c.Destinations(t.Context(), Upstream{Name: "shop"})
	want := map[destination]bool{{"web", "cf", "", true, true}: true, {"web", "far", "", false, false}: true}
	if err != nil || len(got) != len(want) || !want[got[0]] || !want[got[1]] {
		t.Errorf("it leads to %v, %v", got, err)
	}
	if _, err := c.Destinations(t.Context(), Upstream{Name: "gone"}); err == nil {
		t.Error("what the servers do not know is known")
	}
}
