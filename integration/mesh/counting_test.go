package mesh

import (
	"encoding/json"
	"errors"
	"fmt"
	"syscall"
	"testing"

	"github.com/consul-mesh/mesh-buildpack/integration/cell"
)

// TestCounting is S8: a dashboard finds three counters on loopback by nothing
// but the address in its environment.
func TestCounting(t *testing.T) { inBothModes(t, counting) }

func counting(t *testing.T, m mode) {
	app := m.fixture(t, "counting/counter", own("counter"))
	app.Instances, app.Routes, app.HealthCheck = 3, []string{}, cell.HealthProcess
	counters := m.start(t, app)
	dashboard := m.start(t, m.fixture(t, "counting/dashboard", own("dashboard")), "counter")

	eventually(t, "the dashboard has heard of all three counters", func(ctx ctx) error {
		answer, err := shared.Route(ctx, "dashboard", "/")
		if err != nil {
			return err
		}
		var counts map[string]int
		if err := json.Unmarshal([]byte(answer), &counts); err != nil {
			return fmt.Errorf("%w: %s", err, answer)
		}
		for _, index := range []string{"0", "1", "2"} {
			if counts[index] == 0 {
				return fmt.Errorf("counter %s has not answered: %s", index, answer)
			}
		}
		return nil
	})

	if _, err := shared.Route(t.Context(), "counter", "/"); err == nil {
		t.Error("the counter answers the router, without a route")
	}
	policy := cell.Policy{Source: "dashboard", Destination: "counter", Protocol: "tcp", Start: 8080}
	if err := shared.Allow(policy); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = shared.Disallow(policy) })
	for i := range app.Instances {
		address := counters.Instance(i).Address() + ":8080"
		conn, err := dashboard.Instance(0).Dial(deadline(t), "tcp", address)
		if err == nil {
			conn.Close()
		}
		if !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("connecting to %s past the mesh gives %v", address, err)
		}
	}
}
