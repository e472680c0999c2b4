package consul

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/consul-mesh/mesh-buildpack/src/mesh/meshtest"
)

// TestKeepEntry: an entry is made where there is none, and brought up to date where it
// is the app's own; somebody else's is left alone, and so is one that has just changed.
func TestKeepEntry(t *testing.T) {
	t.Parallel()
	entry := Entry{Kind: "service-resolver", Name: "shop", Fields: map[string]any{"RequestTimeout": "24h0m0s"}}
	for name, test := range map[string]struct {
		there   string // empty: nothing
		changed bool   // by somebody meanwhile
		cas     string // of the write; empty: none
		notOwn  bool
	}{
		"none":             {there: "", cas: "0"},
		"as it is meant":   {there: `{"RequestTimeout": "24h0m0s", "Meta": {"consul-mesh-buildpack": "guid"}, "ModifyIndex": 7}`},
		"otherwise":        {there: `{"RequestTimeout": "15s", "Meta": {"consul-mesh-buildpack": "guid"}, "ModifyIndex": 7}`, cas: "7"},
		"just changed":     {there: `{"Meta": {"consul-mesh-buildpack": "guid"}, "ModifyIndex": 7}`, cas: "7", changed: true},
		"an operator's":    {there: `{"RequestTimeout": "40s", "ModifyIndex": 7}`, notOwn: true},
		"of another app":   {there: `{"RequestTimeout": "40s", "Meta": {"consul-mesh-buildpack": "other"}, "ModifyIndex": 7}`, notOwn: true},
		"with other marks": {there: `{"Meta": {"owner": "guid"}, "ModifyIndex": 7}`, notOwn: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cas, body := "", map[string]any{}
			c := &Client{Base: "http://servers", Access: &Access{}}
			c.HTTP.Transport = meshtest.RoundTripper(func(r *http.Request) (*http.Response, error) {
				status, answer := http.StatusOK, test.there
				if r.Method == http.MethodPut {
					cas, answer = r.URL.Query().Get("cas"), "true"
					if test.changed {
						answer = "false"
					}
					if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
						t.Error(err)
					}
				} else if answer == "" {
					status = http.StatusNotFound
				}
				return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(answer))}, nil
			})
			err := c.KeepEntry(t.Context(), "guid", entry)
			var notOwn *NotOwnError
			if (err != nil) != (test.notOwn || test.changed) || errors.As(err, &notOwn) != test.notOwn || cas != test.cas {
				t.Errorf("%v, written with cas %q", err, cas)
			}
			if meta, _ := body["Meta"].(map[string]any); cas != "" && (meta["consul-mesh-buildpack"] != "guid" || body["RequestTimeout"] != "24h0m0s") {
				t.Errorf("written: %v", body)
			}
		})
	}
}
