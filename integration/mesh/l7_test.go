package mesh

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/consul-mesh/mesh-buildpack/integration/cell"
)

// TestCanary: two apps are one service, and requests with a header go to the
// one that says in its metadata that it is the new version.
func TestCanary(t *testing.T) { inBothModes(t, canary) }

func canary(t *testing.T, m mode) {
	_, caller := m.pair(t, 1)
	app := m.echo(t, m.back, `protocol = "http"`, `meta = { version = "v2" }`)
	app.Name = "canary"
	m.start(t, app)
	policy := cell.Policy{Source: m.front, Destination: app.Name, Protocol: "tcp", Start: 21000}
	if err := shared.Allow(policy); err != nil {
		t.Fatal(err)
	}
	entries := []map[string]any{
		{"Kind": "service-resolver", "Name": m.back, "DefaultSubset": "v1", "Subsets": map[string]any{
			"v1": map[string]any{"Filter": "Service.Meta.version == v1"},
			"v2": map[string]any{"Filter": "Service.Meta.version == v2"},
		}},
		{"Kind": "service-router", "Name": m.back, "Routes": []any{map[string]any{
			"Match":       map[string]any{"HTTP": map[string]any{"Header": []any{map[string]any{"Name": "x-canary", "Exact": "yes"}}}},
			"Destination": map[string]any{"ServiceSubset": "v2"},
		}}},
	}
	t.Cleanup(func() {
		for _, kind := range []string{"service-router", "service-resolver"} {
			if err := shared.Consul(context.Background(), http.MethodDelete, "/v1/config/"+kind+"/"+m.back, nil, nil); err != nil {
				t.Error(err)
			}
		}
		if err := shared.Disallow(policy); err != nil {
			t.Error(err)
		}
	})
	for _, entry := range entries {
		if err := shared.Consul(t.Context(), http.MethodPut, "/v1/config", entry, nil); err != nil {
			t.Fatal(err)
		}
	}
	answers := func(header, want string) func(context.Context) error {
		return func(ctx context.Context) error {
			request, err := http.NewRequestWithContext(ctx, http.MethodGet, backURL, nil)
			if err != nil {
				return err
			}
			request.Header.Set("X-Canary", header)
			response, err := caller.Instance(0).HTTPClient().Do(request)
			if err != nil {
				return err
			}
			defer response.Body.Close()
			text, err := io.ReadAll(response.Body)
			if err == nil && !strings.Contains(string(text), fmt.Sprintf(`"app":%q`, want)) {
				err = fmt.Errorf("%s: %s", response.Status, text)
			}
			return err
		}
	}
	// Before the caller's Envoy has heard of the entries, both answer by turns.
	eventually(t, "each is asked for its own", func(ctx context.Context) error {
		for range 20 {
			for header, want := range map[string]string{"yes": "canary", "no": m.back} {
				if err := answers(header, want)(ctx); err != nil {
					return fmt.Errorf("with x-canary: %s: %w", header, err)
				}
			}
		}
		return nil
	})
}
