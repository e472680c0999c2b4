package proxy

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/consul-mesh/mesh-buildpack/src/droplet"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/consul"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/envoy"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/instance"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/registry"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/wait"
)

// TestListenCheck: an app without a check that closes its port gets no traffic, once it
// has been seen to listen, and not for one look without it; p is passing, c critical.
func TestListenCheck(t *testing.T) {
	t.Parallel()
	admin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "LIVE") }))
	t.Cleanup(admin.Close)
	for name, test := range map[string]struct {
		network     string
		off         bool
		looks, want string // + while it listens, - while it does not
	}{
		"a port":                  {"tcp", false, "+--+-+---+", "ppcppppccp"},
		"a Unix socket":           {"unix", false, "+--+", "ppcp"},
		"it is seen to listen":    {"tcp", false, "---+--", "pppppc"},
		"mesh.hcl leaves it out":  {"tcp", true, "+---", "pppp"},
		"a socket, and left out ": {"unix", true, "+---", "pppp"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			service := droplet.Endpoint{ID: "shop"}
			address := filepath.Join(t.TempDir(), "app.sock")
			if test.network == "unix" {
				service.SocketPath = address
			} else {
				listener, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				address, service.Port = listener.Addr().String(), listener.Addr().(*net.TCPAddr).Port
				listener.Close()
			}
			shop := registry.NewRegistration(instance.Instance{}, droplet.Service{ID: "shop", ListenCheck: !test.off}, droplet.Definition{Endpoint: service})
			e := &served{Envoy: &envoy.Envoy{Admin: admin.URL, Exited: make(chan struct{})}, service: shop}
			got := ""
			var app net.Listener
			for _, listens := range test.looks {
				if app != nil {
					app.Close()
				}
				if app = nil; listens == '+' {
					var err error
					if app, err = net.Listen(test.network, address); err != nil {
						t.Fatal(err)
					}
				}
				status, output := e.look(t.Context())
				got += map[string]string{consul.Passing: "p", consul.Critical: "c"}[status]
				if status == consul.Critical && !strings.Contains(output, address) {
					t.Errorf("it says %q", output)
				}
			}
			if app != nil {
				app.Close()
			}
			if got != test.want {
				t.Errorf("%s gives %s, want %s", test.looks, got, test.want)
			}
		})
	}
}

// TestAFlappingEnvoy: one that is ready at every second look does not come back each
// time, and is told to fail at once each time that it has.
func TestAFlappingEnvoy(t *testing.T) {
	t.Parallel()
	looks := 0
	admin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if looks++; looks%2 == 0 {
			fmt.Fprintln(w, "DRAINING")
			return
		}
		fmt.Fprintln(w, "LIVE")
	}))
	t.Cleanup(admin.Close)
	told := ""
	agent := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/v1/agent/check/update/") {
			var update struct{ Status string }
			_ = json.NewDecoder(r.Body).Decode(&update)
			told += update.Status[:1]
		}
	}))
	t.Cleanup(agent.Close)
	said := &logged{}
	n := &registry.Node{Log: said.log, Consul: &consul.Client{Base: agent.URL}}
	p := &proxy{Node: n, registry: registry.ViaAgent{Node: n}, timeline: &wait.Timeline{Log: said.log}}
	shop := registry.NewRegistration(instance.Instance{}, droplet.Service{ID: "shop"}, droplet.Definition{Endpoint: droplet.Endpoint{ID: "shop"}})
	e := &served{Envoy: &envoy.Envoy{Admin: admin.URL, Exited: make(chan struct{})}, service: shop}
	e.inRotation = p.timeline.Begin(t.Context(), "passing")
	for range 4 * instance.FlapsAtOnce {
		p.tell(t.Context(), e)
	}
	if want := "p" + strings.Repeat("cp", instance.FlapsAtOnce) + "c"; told != want {
		t.Errorf("the agent was told %s, want %s", told, want)
	}
	if n := strings.Count(said.String(), "failed and worked in turn"); n != 1 {
		t.Errorf("it is said %d times:\n%s", n, said)
	}
}
