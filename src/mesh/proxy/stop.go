package proxy

import (
	"context"
	"sync"
	"time"

	"github.com/consul-mesh/mesh-buildpack/src/mesh/envoy"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/instance"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/wait"
)

// stop takes the instance out of rotation, then lets the app end, then Envoy.
func (p *proxy) stop(ctx context.Context) {
	begun := time.Now()
	budget, cancel := context.WithTimeout(context.Background(), instance.StopBudget+instance.KilledBudget)
	defer cancel()

	p.TakeOut(p.registry)
	p.TellOrphan()
	p.Log("out of rotation (%.3f s)", time.Since(begun).Seconds())
	p.awaitCallers(budget, begun.Add(p.Config.Lifecycle.DrainDelay))
	p.registry.Logout()

	p.await(budget, p.Config.Lifecycle.DrainTimeout, (*envoy.Envoy).Idle, "stopping")

	p.gate.Stop()
	if p.gate.Occupied() {
		select {
		case <-p.gate.Ended:
			p.Log("app ended (%.3f s)", time.Since(begun).Seconds())
		case <-budget.Done():
			p.Log("the app has not ended, leaving it to the platform")
		}
	}
	p.await(budget, instance.FlushBudget, (*envoy.Envoy).Flushed, "ending Envoy")
	p.end(ctx)
	p.Log("stopped (%.3f s)", time.Since(begun).Seconds())
}

// awaitCallers waits until a time, and notes meanwhile when callers sent their last
// requests.
func (p *proxy) awaitCallers(ctx context.Context, until time.Time) {
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	p.eachEnvoy(func(e *served) {
		for wait.Pause(ctx, instance.DrainLook) == nil {
			_ = e.Idle(ctx) // who has to be idle is asked afterwards
		}
	})
	<-ctx.Done()
}

// await waits until something is true of every Envoy, and says what is done all
// the same where it is not in time.
func (p *proxy) await(ctx context.Context, long time.Duration, condition func(*envoy.Envoy, context.Context) error, doing string) {
	ctx, cancel := context.WithTimeout(ctx, long)
	defer cancel()
	p.eachEnvoy(func(e *served) {
		if e.Runs() != nil {
			return // which has been said
		}
		if err := wait.Poll(ctx, func(ctx context.Context) error { return condition(e.Envoy, ctx) }); err != nil {
			p.Log("%s: %s with %v", e.service.ID, doing, err)
		}
	})
}

func (p *proxy) eachEnvoy(work func(*served)) {
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
	group.Go(func() { p.registry.Leave(ctx) })
	group.Wait()
}

// abandon ends what this process has started.
func (p *proxy) abandon() {
	ctx, cancel := context.WithTimeout(context.Background(), instance.EnvoyBudget)
	defer cancel()
	p.eachEnvoy(func(e *served) { e.End(ctx) })
}
