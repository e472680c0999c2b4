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
	// deregisterBudget is for telling the agent; it answers in milliseconds.
	deregisterBudget = 300 * time.Millisecond
	// stopBudget is when the app must have ended, counted from SIGTERM; later
	// ones are left to the platform.
	stopBudget = 8 * time.Second
	// envoyBudget is for Envoy's own end.
	envoyBudget = time.Second

	// firstSync is how long after its first server an agent may still
	// synchronise its node for the first times: each of the servers that it
	// meets makes it do so after a random part of 3 s, two of them in a row
	// (Consul 1.22, agent/ae, in a cluster of up to 128 nodes).
	firstSync = 6200 * time.Millisecond
)

// stop takes the instance out of rotation, then lets the app end, then Envoy.
func (p *proxy) stop() {
	begun := time.Now()
	budget, cancel := context.WithTimeout(context.Background(), stopBudget)
	defer cancel()

	p.deregister()
	p.log("out of rotation (%.3f s)", time.Since(begun).Seconds())
	<-time.After(time.Until(begun.Add(p.config.Lifecycle.DrainDelay)))

	idle, cancelIdle := context.WithTimeout(budget, p.config.Lifecycle.DrainTimeout)
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

// sweepNode keeps the node out of the catalog where the instance stops right
// after its start: an agent that is leaving still does its first
// synchronisations, and puts the bare node back for up to a minute. It goes on
// for as long as the agent answers.
func (p *proxy) sweepNode() {
	if time.Since(p.joined) > firstSync {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), stopBudget/2)
	defer cancel()
	for p.consul.sweepNode(ctx, p.inst.NodeName()) == nil {
		<-time.After(sweepPause)
	}
}

// sweepPause is short, because what comes after the last sweep stays.
const sweepPause = 25 * time.Millisecond

// awaitFirstSync waits until the agent has done its first synchronisations,
// unless ctx ends. A process that ends by itself before that would leave what
// sweepNode is for.
func (p *proxy) awaitFirstSync(ctx context.Context) {
	select {
	case <-time.After(time.Until(p.joined.Add(firstSync))):
	case <-ctx.Done():
		p.sweepNode()
	}
}

// deregister takes every service that was registered out of the catalog.
func (p *proxy) deregister() {
	ctx, cancel := context.WithTimeout(context.Background(), deregisterBudget)
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
