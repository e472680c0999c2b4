package registry

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/consul-mesh/mesh-buildpack/src/mesh/agent"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/consul"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/instance"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/wait"
)

// An agent looks up the names of its servers until it has joined one, and never again:
// from then on it knows the servers by their gossip. Where all of them have got other
// addresses while it heard none, it would ask the old ones for ever.

// watchServers starts the agent anew, on its data, where its servers have moved. Where
// that does not help it waits twice as long before it does so again.
func (v ViaAgent) watchServers(ctx context.Context) {
	since := time.Now() // when there was a leader last, or the agent was started anew
	patience := instance.AgentLeaderless
	for wait.Pause(ctx, instance.CatalogLook) == nil {
		if v.Consul.Joined(ctx) == nil {
			since, patience = time.Now(), instance.AgentLeaderless
			continue
		}
		if time.Since(since) < patience {
			continue
		}
		moved := v.movedServers(ctx)
		if moved == "" {
			continue
		}
		v.Log("%s: it is started anew on its data", moved)
		if err := agent.Kill(v.Inst); err != nil {
			v.Log("failed to end the Consul agent: %v", err)
		}
		since, patience = time.Now(), min(2*patience, instance.AgentLeaderlessMost)
	}
}

// movedServers says that the servers answer at their names, and are others than all
// that the agent knows, of which it sees none alive; empty where that is not so, or
// nobody can tell. Behind a load balancer names and members never have an address in
// common: there servers without a leader are still alive to the agent.
func (v ViaAgent) movedServers(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, instance.AsideBudget)
	defer cancel()
	join, err := v.retryJoin()
	if err != nil {
		return ""
	}
	known, alive, err := v.Consul.KnownServers(ctx)
	if err != nil || alive || len(known) == 0 {
		return ""
	}
	hosts, err := consul.Resolve(ctx, join)
	if err != nil || slices.ContainsFunc(hosts, func(host string) bool { return slices.Contains(known, host) }) {
		return ""
	}
	if wait.DialAny(ctx, hosts, serverRPC) != nil {
		return ""
	}
	return fmt.Sprintf("the servers have all moved to %s, and the agent knows those at %s", strings.Join(hosts, ", "), strings.Join(known, ", "))
}
