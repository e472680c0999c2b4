package mesh

import (
	"errors"
	"fmt"
	"testing"

	"github.com/consul-mesh/mesh-buildpack/integration/cell"
	"github.com/consul-mesh/mesh-buildpack/integration/load"
)

// TestModeChange: a rolling deployment takes an app from agents to none, and back, while
// callers of both kinds send it requests, and none is lost.
func TestModeChange(t *testing.T) {
	const name = "changes"
	protocol := `protocol = "http"`
	before, after := withAgent.echo(t, name, protocol), agentless.echo(t, name, protocol)
	before.Instances = 3
	with, without := stage(t, before), stage(t, after)
	service := running(t, withAgent.launchDroplet(t, before, with))
	callers := map[string]*cell.RunningApp{}
	for _, m := range []mode{withAgent, agentless} {
		caller := m.start(t, m.echo(t, "caller-"+m.name, fmt.Sprintf("upstream %q { port = 9001 }", name)), name)
		callers[m.name] = caller
		served(t, caller, service)
	}
	policies := agentless.policies(map[string][]string{name: nil})
	if err := shared.Allow(policies...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = shared.Disallow(policies...) })
	for _, to := range []struct {
		mode    string
		droplet *cell.Droplet
	}{{"agentless", without}, {"agent", with}} {
		loads := map[string]*load.Load{}
		for mode, caller := range callers {
			loads[mode] = load.Start(load.Plan{Kind: load.HTTP, Target: backURL + "slow?ms=10", Rate: 100, Timeout: answered, Dial: caller.Instance(0).Dial})
		}
		err := service.Deploy(deadline(t), to.droplet)
		for _, caller := range callers {
			if err == nil {
				served(t, caller, service)
			}
		}
		for mode, l := range loads {
			result := l.Stop()
			t.Logf("to %s, the caller with %s: %v", to.mode, mode, result)
			if result.Lost > 0 {
				err = errors.Join(err, fmt.Errorf("to %s, the caller with %s: %d requests are lost", to.mode, mode, result.Lost))
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
