package mesh

import (
	"context"
	"fmt"
	"net/http"
	"testing"
)

const luaExtension = `protocol = "http"
sidecar {
  envoy_extension "builtin/lua" {
    arguments = {
      ProxyType = "connect-proxy"
      Listener  = "inbound"
      Script    = "function envoy_on_response(r) r:headers():add('x-extended', 'yes') end"
    }
  }
}`

// TestEnvoyExtensions: an extension of mesh.hcl changes what callers get, and
// an entry that somebody else has made is left alone, with a line that says so.
func TestEnvoyExtensions(t *testing.T) { inBothModes(t, envoyExtensions) }

func envoyExtensions(t *testing.T, m mode) {
	const entries = "/v1/config/service-defaults/"
	t.Cleanup(func() {
		for _, name := range []string{"extended", "claimed"} {
			if err := shared.Consul(context.Background(), http.MethodDelete, entries+name, nil, nil); err != nil {
				t.Error(err)
			}
		}
	})
	claim := map[string]any{"Kind": "service-defaults", "Name": "claimed", "Protocol": "http"}
	if err := shared.Consul(t.Context(), http.MethodPut, "/v1/config", claim, nil); err != nil {
		t.Fatal(err)
	}
	m.start(t, m.echo(t, "extended", luaExtension))
	claimed := m.start(t, m.echo(t, "claimed", luaExtension))
	caller := m.start(t, m.echo(t, "extender", `upstream "extended" { port = 9001 }`), "extended")
	client := caller.Instance(0).HTTPClient()
	eventually(t, "the extension answers too", func(ctx ctx) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1:9001/", nil)
		if err != nil {
			return err
		}
		response, err := client.Do(request)
		if err != nil {
			return err
		}
		response.Body.Close()
		if got := response.Header.Get("X-Extended"); got != "yes" {
			return fmt.Errorf("status %s, header %q", response.Status, got)
		}
		return nil
	})
	waitLog(t, claimed, "the Envoy extension builtin/lua of mesh.hcl is not in the service-defaults entry in Consul")
}
