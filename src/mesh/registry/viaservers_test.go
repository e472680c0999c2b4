package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/consul-mesh/mesh-buildpack/src/credentials"
	"github.com/consul-mesh/mesh-buildpack/src/droplet"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/consul"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/envoy"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/instance"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/meshtest"
)

func viaScripted(t *testing.T, says meshtest.Transport, services ...string) *viaServers {
	t.Helper()
	n := &Node{
		Inst: instance.Instance{App: "app", GUID: "guid"}, Log: t.Logf, Access: &consul.Access{},
		Config: droplet.Config{Servers: &droplet.Servers{}}, Consul: &consul.Client{Base: "http://servers"},
	}
	n.Consul.HTTP.Transport, n.Consul.Access = says, n.Access
	n.XDS = &envoy.XDS{Access: n.Access, First: envoy.NewFirstStreams(meshtest.Transport(func(string) (int, string) { return http.StatusOK, "" }))}
	for _, id := range services {
		n.Services = append(n.Services, &Registration{
			Service: droplet.Service{ID: id}, Name: id,
			definition: droplet.Definition{Endpoint: droplet.Endpoint{ID: id, Name: id}},
		})
	}
	return &viaServers{Node: n, servers: &consul.Servers{}, states: map[string]checkState{}}
}

// running is an instance that has been registered, and is in rotation.
func running(t *testing.T, servers meshtest.Transport, services ...string) *viaServers {
	t.Helper()
	v := viaScripted(t, servers, services...)
	v.Inst.Address = netip.MustParseAddr("10.1.2.3")
	v.session, v.entered, v.known, v.shown, v.hasKey = "old", true, true, true, true
	for _, r := range v.Services {
		r.Registered.Store(true)
		v.set(droplet.ReadyCheckID(r.ID), consul.Passing, "")
	}
	return v
}

// TestNodeIsRemovedWithoutSession: where the tokens make a node and no session,
// no service is listed, and the node does not stay in the catalog until another
// instance finds it.
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
	if err := v.Register(t.Context(), v.Services[0]); err == nil {
		t.Fatal("registered without a session")
	}
	v.Leave(t.Context())
	// The first two are the node and the sidecar.
	want := []string{"/v1/catalog/register", "/v1/catalog/register", "/v1/session/create", "/v1/catalog/deregister"}
	if diff := cmp.Diff(want, asked); diff != "" {
		t.Errorf("the servers were asked for (-want +got):\n%s", diff)
	}
}

// TestOneSession: where the answer of the servers is lost, the key may be held by
// the session that has been made; another could not hold it.
func TestOneSession(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		status int // of the first attempt to hold the key; 0: no answer
		want   int // sessions
	}{
		"no answer":           {0, 1},
		"the session is over": {http.StatusInternalServerError, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sessions, attempts := 0, 0
			v := viaScripted(t, func(path string) (int, string) {
				switch {
				case path == "/v1/session/create":
					sessions++
					return http.StatusOK, `{"ID":"new"}`
				case strings.HasPrefix(path, "/v1/kv/"):
					if attempts++; attempts == 1 {
						return test.status, "invalid session"
					}
				}
				return http.StatusOK, "true"
			}, "one")
			if err := v.Register(t.Context(), v.Services[0]); err == nil {
				t.Error("registered without its key")
			}
			if err := v.Register(t.Context(), v.Services[0]); err != nil || attempts != 2 {
				t.Errorf("%v after %d attempts", err, attempts)
			}
			if sessions != test.want {
				t.Errorf("%d sessions were made, want %d", sessions, test.want)
			}
		})
	}
}

// TestChangesAreWrittenTwice: servers that follow hear at once of an entry that
// another comes after.
func TestChangesAreWrittenTwice(t *testing.T) {
	t.Parallel()
	written := 0
	v := viaScripted(t, func(path string) (int, string) {
		if path == "/v1/catalog/register" {
			written++
		}
		return http.StatusOK, "true"
	}, "one")
	for _, step := range []struct {
		status string
		want   int
	}{
		{consul.Passing, 3}, // with the address of the node
		{consul.Passing, 0},
		{consul.Critical, 2},
		{consul.Passing, 2},
	} {
		written = 0
		if err := v.Say(t.Context(), v.Services[0], step.status, ""); err != nil {
			t.Fatal(err)
		}
		if written != step.want {
			t.Errorf("%s: %d entries were written, want %d", step.status, written, step.want)
		}
	}
}

// TestShownWithItsChecks: callers see where a sidecar is in the same entry as that
// it passes, also where the tokens of nodes and services are two.
func TestShownWithItsChecks(t *testing.T) {
	t.Parallel()
	for name, agentToken := range map[string]credentials.Secret{"one token": "s", "two tokens": "a"} {
		var entries []catalogEntry
		v := viaScripted(t, nil, "one")
		v.Inst.Address = netip.MustParseAddr("10.1.2.3")
		v.Access.UseTokens("s", agentToken)
		v.Consul.HTTP.Transport = meshtest.RoundTripper(func(r *http.Request) (*http.Response, error) {
			var entry catalogEntry
			if r.URL.Path == "/v1/catalog/register" && json.NewDecoder(r.Body).Decode(&entry) == nil {
				entries = append(entries, entry)
			}
			return meshtest.Transport(func(string) (int, string) { return http.StatusOK, `{"ID":"new"}` }).RoundTrip(r)
		})
		const real = "10.1.2.3:21000"
		r := v.Services[0]
		r.sidecar().Port = 21000
		r.sidecar().Checks = []droplet.Check{{CheckID: droplet.ReadyCheckID(r.ID), Name: "ready"}}
		v.session, v.hasKey = "held", true
		// where says where callers find the sidecar after an entry, once there is one.
		node, port := "", 0
		where := func(e catalogEntry) string {
			if e.Address != "" {
				node = e.Address
			}
			if e.Service["ID"] == droplet.SidecarID(r.ID) {
				port = int(e.Service["Port"].(float64))
			}
			return fmt.Sprintf("%s:%d", node, port)
		}
		passes := func(e catalogEntry) bool {
			return slices.ContainsFunc(e.Checks, func(c consul.Check) bool {
				return c.CheckID == droplet.ReadyCheckID(r.ID) && c.Status == consul.Passing
			})
		}
		if err := v.Register(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if got := where(e); got == real || passes(e) {
				t.Errorf("%s: before it works callers find it at %s: %v", name, got, e)
			}
		}
		entries = nil
		for range 2 {
			if err := v.Say(t.Context(), r, consul.Passing, ""); err != nil {
				t.Fatal(err)
			}
		}
		for i, e := range entries {
			if got := where(e); got != real || !passes(e) {
				t.Errorf("%s: entry %d has it at %s: %v", name, i, got, e)
			}
		}
		if len(entries) != 3 {
			t.Errorf("%s: there are %d entries", name, len(entries))
		}
	}
}

// TestRegistersAgainUntilAllIsThere: servers that fail between two services do
// not leave the second one out for good.
func TestRegistersAgainUntilAllIsThere(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ended, registered := true, 0
		v := running(t, func(path string) (int, string) {
			switch {
			case path == "/v1/session/create":
				ended = false
				return http.StatusOK, `{"ID":"new"}`
			case strings.HasPrefix(path, "/v1/session/renew/") && ended:
				return http.StatusNotFound, "no such session"
			case path == "/v1/catalog/register":
				// The node, the first sidecar and its service, and then trouble once.
				if registered++; registered == 4 {
					return http.StatusInternalServerError, "No cluster leader"
				}
			}
			return http.StatusOK, "true"
		}, "one", "two")
		ctx, cancel := context.WithTimeout(t.Context(), 4*instance.RenewEvery)
		defer cancel()
		v.stayAlive(ctx)
		// The node and half of the rest, one refused; then all of it, because the node
		// may be what is missing.
		if registered != 4+5 {
			t.Errorf("%d entries were written to the catalog, want 9", registered)
		}
	})
}

// TestLateWrite: servers without a leader may carry out a write after a newer one,
// whose answer has come long before. The instance sees it and says it again.
func TestLateWrite(t *testing.T) {
	t.Parallel()
	const there = `{"Node":{"Address":"10.1.2.3"},"Services":{"one":{},"one-sidecar-proxy":{}}}`
	for name, test := range map[string]struct {
		node, check string
		want        int // entries: node, sidecar, service
	}{
		"all as it should be": {there, consul.Passing, 0},
		"the node is nowhere": {`{"Node":{"Address":"192.0.2.1"},"Services":{"one":{},"one-sidecar-proxy":{}}}`, consul.Passing, 3},
		"there is no node":    {`null`, consul.Passing, 3},
		"there is no sidecar": {`{"Node":{"Address":"10.1.2.3"},"Services":{"one":{}}}`, consul.Passing, 3},
		"a check is older":    {there, consul.Critical, 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				registered := 0
				node, check := test.node, test.check
				v := running(t, func(path string) (int, string) {
					switch path {
					case "/v1/catalog/register":
						registered++
						node, check = there, consul.Passing
					case "/v1/catalog/node/app-guid":
						return http.StatusOK, node
					case "/v1/health/node/app-guid":
						return http.StatusOK, fmt.Sprintf(`[{"CheckID":%q,"Status":%q}]`, droplet.ReadyCheckID("one"), check)
					}
					return http.StatusOK, "true"
				}, "one")
				v.Services[0].sidecar().Checks = []droplet.Check{{CheckID: droplet.ReadyCheckID("one"), Name: "ready"}}
				ctx, cancel := context.WithTimeout(t.Context(), 2*instance.CompareEvery)
				defer cancel()
				v.stayAlive(ctx)
				if registered != test.want {
					t.Errorf("%d entries were written, want %d", registered, test.want)
				}
			})
		})
	}
}

// TestNodeIsMadeAgain: the token of services alone may not make a node that has been
// taken away; it is made with that of nodes, and no token is said to be wrong.
func TestNodeIsMadeAgain(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		there   string // where the catalog has the node
		tokens  []string
		refused bool
	}{
		"the node is gone":   {"", []string{"s", "a", "s"}, false},
		"the token is wrong": {"10.1.2.3", []string{"s"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var tokens []string
			there := test.there
			v := running(t, nil, "one")
			v.Access.UseTokens("s", "a")
			v.Consul.HTTP.Transport = meshtest.RoundTripper(func(r *http.Request) (*http.Response, error) {
				return meshtest.Transport(func(path string) (int, string) {
					switch {
					case path != "/v1/catalog/register":
						return http.StatusOK, fmt.Sprintf(`{"Node":{"Address":%q}}`, there)
					case r.Header.Get(consul.TokenHeader) == "a":
						there = "10.1.2.3"
					case test.refused || there == "":
						tokens = append(tokens, "s")
						return http.StatusForbidden, "Permission denied"
					}
					tokens = append(tokens, r.Header.Get(consul.TokenHeader))
					return http.StatusOK, "true"
				}).RoundTrip(r)
			})
			err := v.writeChecks(t.Context(), v.Services[0])
			if (err != nil) != test.refused {
				t.Error(err)
			}
			if diff := cmp.Diff(test.tokens, tokens); diff != "" {
				t.Errorf("the tokens of the entries (-want +got):\n%s", diff)
			}
		})
	}
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
	r := v.Services[0]
	r.definition.Checks = []droplet.Check{{CheckID: "one:a", Name: "a"}, {CheckID: "one:b", Name: "b"}}
	v.set("one:a", consul.Passing, "")
	got, err := v.CheckStatuses(t.Context(), r)
	want := []consul.CheckStatus{{ID: "one:a", Name: "a", Status: consul.Critical, Output: "refused"}, {ID: "one:b", Name: "b", Status: consul.Missing}}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v, checks (-want +got):\n%s", err, diff)
	}
}

// TestChecksSayWhy: whoever looks at the catalog sees why a check is critical.
func TestChecksSayWhy(t *testing.T) {
	t.Parallel()
	v := viaScripted(t, nil, "one")
	r := v.Services[0]
	r.definition.Checks = []droplet.Check{{CheckID: "one:a", Name: "a", Notes: "ask the team"}, {CheckID: "one:b", Name: "b"}}
	v.set("one:a", consul.Critical, "connection refused")
	v.set("one:b", consul.Passing, "")
	want := []consul.Check{
		{Node: "app-guid", CheckID: "one:a", Name: "a", Notes: "ask the team", Status: consul.Critical, Output: "connection refused", ServiceID: "one"},
		{Node: "app-guid", CheckID: "one:b", Name: "b", Status: consul.Passing, ServiceID: "one"},
	}
	if diff := cmp.Diff(want, v.catalogChecks(r)); diff != "" {
		t.Errorf("checks (-want +got):\n%s", diff)
	}
}

// TestDoubtThatNobodyCanSettle: where ACLs hide how the catalog has an instance, it
// looks as often as after any write that was lost, and no more.
func TestDoubtThatNobodyCanSettle(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		looks := 0
		v := running(t, nil, "one")
		v.Consul.HTTP.Transport = meshtest.RoundTripper(func(r *http.Request) (*http.Response, error) {
			answer, err := meshtest.Transport(func(path string) (int, string) { return http.StatusOK, "null" }).RoundTrip(r)
			if r.URL.Path == "/v1/catalog/node/app-guid" {
				looks++
				answer.Header.Set("X-Consul-Results-Filtered-By-ACLs", "true")
			}
			return answer, err
		})
		v.doubt.note(context.DeadlineExceeded)
		ctx, cancel := context.WithTimeout(t.Context(), 12*time.Second) // before it looks anyway
		defer cancel()
		v.stayAlive(ctx)
		// At once, and eight seconds after.
		if looks != 2 {
			t.Errorf("it looked %d times", looks)
		}
	})
}
