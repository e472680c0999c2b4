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
	// serversBudget is for telling the servers, of which one may be silent.
	serversBudget = 900 * time.Millisecond
	// stopBudget is when the app must have ended, counted from SIGTERM: then
	// `mesh app` kills it.
	stopBudget = 8 * time.Second
	// killedBudget is for the end of a killed app to be seen.
	killedBudget = 200 * time.Millisecond
	// flushBudget is for what the app said last to reach its callers, within the
	// above.
	flushBudget = 3 * time.Second
	// envoyBudget is for Envoy's own end.
	envoyBudget = 800 * time.Millisecond
)

// goodbyeBudget is for deregistering.
func goodbyeBudget(config droplet.Config) time.Duration {
	if config.Servers != nil {
		return serversBudget
	}
	return deregisterBudget
}

// stop takes the instance out of rotation, then lets the app end, then Envoy.
func (p *proxy) stop() {
	begun := time.Now()
	budget, cancel := context.WithTimeout(context.Background(), stopBudget+killedBudget)
	defer cancel()

	p.deregister()
	p.tellOrphan()
	p.log("out of rotation (%.3f s)", time.Since(begun).Seconds())
	<-time.After(time.Until(begun.Add(p.config.Lifecycle.DrainDelay)))
	p.logout()

	p.await(budget, p.config.Lifecycle.DrainTimeout, (*envoy).idle, "stopping")

	p.gate.stop()
	if p.gate.occupied() {
		select {
		case <-p.gate.ended:
			p.log("app ended (%.3f s)", time.Since(begun).Seconds())
		case <-budget.Done():
			p.log("the app has not ended, leaving it to the platform")
		}
	}
	p.await(budget, flushBudget, (*envoy).flushed, "ending Envoy")
	p.end(context.Background())
	p.log("stopped (%.3f s)", time.Since(begun).Seconds())
}

// tellOrphan has an orphaned agent leave, once: the second time it would not wait
// for its leave. It returns false where there is none.
func (p *proxy) tellOrphan() bool {
	p.orphanOnce.Do(func() { p.orphan = p.inst.tellOrphanedAgent() })
	return p.orphan
}

// deregister takes every service that was registered out of the catalog.
func (p *proxy) deregister() {
	ctx, cancel := context.WithTimeout(context.Background(), goodbyeBudget(p.config))
	defer cancel()
	var group sync.WaitGroup
	for _, r := range p.services {
		if !r.registered.Load() {
			continue
		}
		group.Go(func() {
			err := poll(ctx, func(ctx context.Context) error { return p.registry.deregister(ctx, r) })
			if err != nil {
				p.log("%s: failed to deregister, Consul takes it out when the instance has left: %v", r.ID, err)
			}
		})
	}
	group.Wait()
}

// await waits until something is true of every Envoy, and says what is done all
// the same where it is not in time.
func (p *proxy) await(ctx context.Context, long time.Duration, condition func(*envoy, context.Context) error, doing string) {
	ctx, cancel := context.WithTimeout(ctx, long)
	defer cancel()
	p.eachEnvoy(func(e *envoy) {
		if e.alive() != nil {
			return // which has been said
		}
		if err := poll(ctx, func(ctx context.Context) error { return condition(e, ctx) }); err != nil {
			p.log("%s: %s with %v", e.service.ID, doing, err)
		}
	})
}

func (p *proxy) eachEnvoy(work func(*envoy)) {
	var group sync.WaitGroup
	for _, e := range p.envoys {
		group.Go(func() { work(e) })
	}
	group.Wait()
}

// end ends the Envoys and what is left of the instance in the catalog.
func (p *proxy) end(ctx context.Context) {
	var group sync.WaitGroup
	group.Go(p.abandon)
	group.Go(func() { p.registry.leave(ctx, false) })
	group.Wait()
}

// abandon ends what this process has started.
func (p *proxy) abandon() {
	ctx, cancel := context.WithTimeout(context.Background(), envoyBudget)
	defer cancel()
	p.eachEnvoy(func(e *envoy) { e.end(ctx) })
}
