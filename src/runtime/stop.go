package runtime

import (
	"context"
	"sync"
	"time"

	"github.com/consul-mesh/mesh-buildpack/src/droplet"
)

// The platform sends SIGTERM to all processes of an instance at once and kills
// them after 10 s. Out of that, in order (docs/architecture.md, "Stop"):
const (
	// settle is from deregistering until every caller's Envoy has surely heard
	// of it: they hear after 200 to 215 ms.
	settle = 300 * time.Millisecond
	// idleBudget is for the requests that are in flight then.
	idleBudget = 3 * time.Second
	// stopBudget is when the app must have ended, counted from SIGTERM; later
	// ones are left to the platform.
	stopBudget = 8 * time.Second
	// envoyBudget is for Envoy's own end.
	envoyBudget = time.Second

	// firstSync is how long after its first server an agent of a cluster of up
	// to 128 nodes may take for its first full synchronisation: a random part
	// of 3 s (Consul 1.22, agent/ae). An agent that is leaving still does it.
	firstSync = 3100 * time.Millisecond
)

// stop takes the instance out of rotation, then lets the app end, then Envoy.
func (p *proxy) stop() {
	begun := time.Now()
	budget, cancel := context.WithTimeout(context.Background(), stopBudget)
	defer cancel()

	p.deregister()
	p.log("out of rotation (%.3f s)", time.Since(begun).Seconds())
	<-time.After(time.Until(begun.Add(settle)))

	idle, cancelIdle := context.WithTimeout(budget, idleBudget)
	defer cancelIdle()
	for _, e := range p.envoys {
		if err := poll(idle, e.idle); err != nil {
			p.log("%s: stopping with %v", e.service.ID, err)
		}
	}

	p.gate.stop()
	if p.gate.occupied() {
		select {
		case <-p.gate.ended:
			p.log("app ended (%.3f s)", time.Since(begun).Seconds())
		case <-budget.Done():
			p.log("the app has not ended %.0f s after SIGTERM, leaving it to the platform", stopBudget.Seconds())
		}
	}
	p.abandon()
	p.sweepNode()
	p.log("stopped (%.3f s)", time.Since(begun).Seconds())
}

// sweepNode takes the node out of the catalog once more where the instance
// stops right after its start: the agent's first synchronisation then comes
// after its leave and puts the bare node back, for up to a minute.
func (p *proxy) sweepNode() {
	if !p.awaitFirstSync(context.Background()) {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), envoyBudget)
	defer cancel()
	if err := p.consul.deregisterNode(ctx, p.inst.NodeName()); err != nil {
		p.log("failed to sweep the node, Consul does so within a minute: %v", err)
	}
}

// awaitFirstSync waits for the agent's first synchronisation, unless ctx ends,
// and says whether there was anything to wait for. Before it, the end of this
// process, and with it the agent's, would leave what sweepNode is for.
func (p *proxy) awaitFirstSync(ctx context.Context) bool {
	wait := time.Until(p.joined.Add(firstSync))
	if wait < 0 {
		return false
	}
	select {
	case <-time.After(wait):
	case <-ctx.Done():
	}
	return true
}

// deregister takes every service that was registered out of the catalog.
func (p *proxy) deregister() {
	ctx, cancel := context.WithTimeout(context.Background(), settle)
	defer cancel()
	var group sync.WaitGroup
	for _, r := range p.services {
		if !r.registered {
			continue
		}
		group.Go(func() {
			// The sidecar first: it is what callers use, and without its
			// service the agent would complain about it.
			for _, id := range []string{droplet.SidecarID(r.ID), r.ID} {
				err := poll(ctx, func(ctx context.Context) error { return p.consul.deregister(ctx, id) })
				if err != nil {
					p.log("%s: failed to deregister, Consul takes it out when the agent has left: %v", id, err)
				}
			}
		})
	}
	group.Wait()
}

// abandon ends what this process has started.
func (p *proxy) abandon() {
	ctx, cancel := context.WithTimeout(context.Background(), envoyBudget)
	defer cancel()
	var group sync.WaitGroup
	for _, e := range p.envoys {
		group.Go(func() { e.end(ctx) })
	}
	group.Wait()
}
