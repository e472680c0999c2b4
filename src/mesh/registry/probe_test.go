package registry

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/consul-mesh/mesh-buildpack/src/droplet"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/consul"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/wait"
)

// TestProbeHTTP: a check is run as the agent will run it.
func TestProbeHTTP(t *testing.T) {
	t.Parallel()
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		switch {
		case r.URL.Path == "/moved":
			http.Redirect(w, r, "/", http.StatusFound)
		case r.URL.Path == "/post" && (r.Method != http.MethodPost || string(body) != "ping" || r.Header.Get("X-Probe") != "mesh"):
			w.WriteHeader(http.StatusBadRequest)
		case r.URL.Path == "/host" && r.Host != "shop.example.com":
			w.WriteHeader(http.StatusNotFound)
		case r.URL.Path == "/busy":
			w.WriteHeader(http.StatusTooManyRequests)
		}
	})
	plain, secure := httptest.NewServer(handler), httptest.NewTLSServer(handler)
	t.Cleanup(plain.Close)
	t.Cleanup(secure.Close)
	for name, test := range map[string]struct {
		check map[string]any
		says  string
	}{
		"a path":                        {map[string]any{"http": plain.URL + "/"}, ""},
		"method, body, header":          {map[string]any{"http": plain.URL + "/post", "method": "POST", "body": "ping", "header": map[string]any{"X-Probe": []any{"mesh"}}}, ""},
		"without them":                  {map[string]any{"http": plain.URL + "/post"}, "answers 400"},
		"a name":                        {map[string]any{"http": plain.URL + "/host", "header": map[string]any{"Host": []any{"shop.example.com"}}}, ""},
		"another name":                  {map[string]any{"http": plain.URL + "/host"}, "answers 404"},
		"too many requests":             {map[string]any{"http": plain.URL + "/busy"}, ""},
		"a redirect":                    {map[string]any{"http": plain.URL + "/moved"}, ""},
		"a redirect that is the answer": {map[string]any{"http": plain.URL + "/moved", "disableredirects": true}, "answers 302"},
		"an unknown certificate":        {map[string]any{"http": secure.URL}, "certificate"},
		"any certificate":               {map[string]any{"http": secure.URL, "tlsskipverify": true}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := probe(t.Context(), test.check)
			if test.says == "" && err != nil || test.says != "" && (err == nil || !strings.Contains(err.Error(), test.says)) {
				t.Errorf("probe gives %v, want %q", err, test.says)
			}
		})
	}
}

// TestChecksHaveTheirOwnTimes: checks run side by side, each for as long as its
// timeout says.
func TestChecksHaveTheirOwnTimes(t *testing.T) {
	t.Parallel()
	slow := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
		case <-time.After(300 * time.Millisecond):
		}
	}))
	t.Cleanup(slow.Close)
	patient := map[string]any{"name": "patient", "http": slow.URL, "timeout": "10s"}
	hasty := map[string]any{"name": "hasty", "http": slow.URL, "timeout": "100ms"}
	r := &Registration{checks: []map[string]any{patient, patient}}
	if err := r.AppReady(t.Context()); err != nil {
		t.Error(err)
	}
	r.checks = append(r.checks, hasty)
	if err := r.AppReady(t.Context()); err == nil || !strings.Contains(err.Error(), `check "hasty"`) || strings.Contains(err.Error(), "patient") {
		t.Errorf("the app is ready: %v", err)
	}
}

// TestStates: an agent that is told again hears how the checks are, of those that
// it alone runs how they were, and not to deregister the service before long.
func TestStates(t *testing.T) {
	t.Parallel()
	broken := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(broken.Close)
	good := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(good.Close)
	ready, alias := droplet.ReadyCheckID("shop"), droplet.AliasCheckID("shop")
	r := &Registration{
		Service: droplet.Service{ID: "shop"},
		checks: []map[string]any{
			{"ID": "fails", "http": broken.URL, "Status": consul.Passing, "deregistercriticalserviceafter": "1m"},
			{"ID": "reported", "ttl": "10m"}, {"ID": "never reported", "ttl": "10m"},
		},
		definition: map[string]any{"connect": map[string]any{"sidecarservice": map[string]any{"checks": []any{
			map[string]any{"CheckID": ready, "ttl": "10s"},
			map[string]any{"CheckID": alias, "aliasservice": "shop", "status": consul.Passing},
			map[string]any{"CheckID": "works", "http": good.URL, "status": consul.Critical},
		}}}},
	}
	r.Works.Store(true)
	r.remembered.Store(&map[string]string{"reported": consul.Passing})
	got := map[any]string{}
	body := r.bodyAgain(r.states(t.Context()))
	sidecar := wait.Object(wait.Object(body["connect"])["sidecarservice"])
	for _, check := range append(wait.Objects(body["checks"]), wait.Objects(sidecar["checks"])...) {
		got[check["CheckID"]] = fmt.Sprintf("%v %v %v", check["Status"], check["status"], check["deregistercriticalserviceafter"])
	}
	want := map[any]string{
		"fails": "critical <nil> <nil>", "reported": "passing <nil> <nil>", "never reported": "critical <nil> <nil>",
		ready: "<nil> <nil> <nil>", alias: "critical <nil> <nil>", "works": "passing <nil> <nil>",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Status, status and deregistering (-want +got):\n%s", diff)
	}
}
