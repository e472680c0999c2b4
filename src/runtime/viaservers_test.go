package runtime

import (
	"context"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"github.com/consul-mesh/mesh-buildpack/src/droplet"
)

// scripted are servers that answer as a function says: a status, and a body.
type scripted func(path string) (status int, body string)

func (s scripted) RoundTrip(r *http.Request) (*http.Response, error) {
	status, body := s(r.URL.Path)
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body))}, nil
}

func viaScripted(t *testing.T, servers scripted, services ...string) *viaServers {
	t.Helper()
	p := &proxy{
		inst: Instance{App: "app", GUID: "guid"}, log: t.Logf, access: &access{},
		config: droplet.Config{Servers: &droplet.Servers{}}, consul: &consul{base: "http://servers"},
	}
	p.consul.http.Transport = servers
	for _, id := range services {
		p.services = append(p.services, &registration{
			Service: droplet.Service{ID: id}, name: id,
			definition: map[string]any{"id": id, "name": id, "connect": map[string]any{"sidecarservice": map[string]any{}}},
		})
	}
	return &viaServers{proxy: p, states: map[string]string{}}
}

// TestNodeIsRemovedWithoutSession: where the tokens make a node and no session,
// the node does not stay in the catalog. Nobody else would look for it, as it
// has no service.
func TestNodeIsRemovedWithoutSession(t *testing.T) {
	t.Parallel()
	var asked []string
	v := viaScripted(t, func(path string) (int, string) {
		asked = append(asked, path)
		if path == "/v1/session/create" {
			return http.StatusForbidden, "Permission denied"
		}
		return http.StatusOK, "true"
	}, "one")
	if err := v.register(t.Context(), v.services[0]); err == nil {
		t.Fatal("registered without a session")
	}
	v.leave(t.Context(), true)
	if !slices.Contains(asked, "/v1/catalog/deregister") {
		t.Errorf("the node stays, the servers were asked for %v", asked)
	}
}

// TestRegistersAgainUntilAllIsThere: servers that fail between two services do
// not leave the second one out for good.
func TestRegistersAgainUntilAllIsThere(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ended, registered := true, 0
		v := viaScripted(t, func(path string) (int, string) {
			switch {
			case path == "/v1/session/create":
				ended = false
				return http.StatusOK, `{"ID":"new"}`
			case strings.HasPrefix(path, "/v1/session/renew/") && ended:
				return http.StatusNotFound, "no such session"
			case path == "/v1/catalog/register":
				// The node, the first service and its sidecar, and then trouble once.
				if registered++; registered == 4 {
					return http.StatusInternalServerError, "No cluster leader"
				}
			}
			return http.StatusOK, "true"
		}, "one", "two")
		v.session = "old"
		ctx, cancel := context.WithTimeout(t.Context(), 4*renewEvery)
		defer cancel()
		v.renew(ctx)
		// The node and half of the rest, one refused; then both services and sidecars.
		if registered != 4+4 {
			t.Errorf("%d entries were written to the catalog, want 8", registered)
		}
	})
}

// TestChecksAreThoseOfTheCatalog: callers go by what the catalog has, whatever
// the instance thinks that it has written.
func TestChecksAreThoseOfTheCatalog(t *testing.T) {
	t.Parallel()
	v := viaScripted(t, func(path string) (int, string) {
		if path != "/v1/health/node/app-guid" {
			t.Errorf("asked for %s", path)
		}
		return http.StatusOK, `[{"CheckID":"one:a","Status":"critical","Output":"refused"},{"CheckID":"other","Status":"passing"}]`
	}, "one")
	r := v.services[0]
	r.checks = []map[string]any{{"ID": "one:a", "name": "a"}, {"ID": "one:b", "name": "b"}}
	v.set("one:a", passing)
	got, err := v.checks(t.Context(), r)
	want := []CheckStatus{{ID: "one:a", Name: "a", Status: critical, Output: "refused"}, {ID: "one:b", Name: "b", Status: missing}}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v, checks (-want +got):\n%s", err, diff)
	}
}
