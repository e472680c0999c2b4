package proxy

import (
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
