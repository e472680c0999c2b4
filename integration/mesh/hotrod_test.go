package mesh

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"testing"

	"github.com/consul-mesh/mesh-buildpack/integration/cell"
	"github.com/consul-mesh/mesh-buildpack/integration/foundation"
)

// TestHotROD is S1 and S4 of the systems that the project must run: four
// services as four apps, that know nothing of each other but loopback ports.
func TestHotROD(t *testing.T) { inBothModes(t, hotROD) }

func hotROD(t *testing.T, m mode) {
	apps := map[string]*cell.RunningApp{}
	for name, upstreams := range foundation.HotRODUpstreams {
		apps[name] = m.launch(t, m.fixture(t, "hotrod/"+name, shared.Binaries.HotROD()), upstreams...)
	}
	for _, app := range apps {
		running(t, app)
	}
	eventually(t, "a dispatch has data from all three services", func(ctx context.Context) error {
		_, _, err := shared.Dispatch(ctx)
		return err
	})
	frontend, customer := apps["frontend"].Instance(0), apps["customer"].Instance(0)
	const path = "/customer?customer=123"
	throughMesh := func(ctx context.Context) error {
		_, err := foundation.From(ctx, frontend, "http://127.0.0.1:8081"+path)
		return err
	}

	t.Run("a direct connection is refused", func(t *testing.T) {
		_, err := foundation.From(t.Context(), frontend, "http://"+customer.Address()+":8080"+path)
		if !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("without a policy: %v", err)
		}
		// The policy alone is missing: with one, HotROD, which binds every
		// address, answers.
		direct := cell.Policy{Source: "frontend", Destination: "customer", Protocol: "tcp", Start: 8080}
		if err := shared.Allow(direct); err != nil {
			t.Fatal(err)
		}
		if _, err := foundation.From(t.Context(), frontend, "http://"+customer.Address()+":8080"+path); err != nil {
			t.Errorf("with a policy: %v", err)
		}
		if err := shared.Disallow(direct); err != nil {
			t.Fatal(err)
		}
	})

	t.Run("an intention is applied and lifted without a restart", func(t *testing.T) {
		if err := shared.Intention(t.Context(), "frontend", "customer", "deny"); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the call is denied", func(ctx context.Context) error {
			var status *foundation.StatusError
			if err := throughMesh(ctx); !errors.As(err, &status) || status.Status != 403 {
				return fmt.Errorf("the call gives %v", err)
			}
			return nil
		})
		if err := shared.RemoveIntentions(t.Context(), "customer"); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the call is allowed", throughMesh)
	})

	t.Run("Envoy's bootstrap is valid", func(t *testing.T) {
		output, status, err := frontend.SSH(deadline(t),
			"deps/0/bin/envoy --mode validate --config-path tmp/mesh/bootstrap-frontend.json")
		if err != nil || status.Code != 0 {
			t.Errorf("%v %v: %s", status, err, output)
		}
	})

	t.Run("a clean stop empties the catalog", func(t *testing.T) {
		for name, app := range apps {
			if err := app.Stop(deadline(t)); err != nil {
				t.Fatal(err)
			}
			for _, instance := range app.Instances() {
				if killed := instance.Killed(); len(killed) > 0 {
					t.Errorf("%s had to be killed: %v", name, killed)
				}
			}
		}
		eventually(t, "the catalog is empty", shared.CatalogEmpty)
	})
}
