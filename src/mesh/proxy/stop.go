package proxy

import (
	"context"
	"sync"
	"time"

	"github.com/consul-mesh/mesh-buildpack/src/mesh/envoy"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/instance"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/registry"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/wait"
)

// stop takes the instance out of rotation, then lets the app end, then Envoy.
func (p *proxy) stop(ctx context.Context) {
	begun := time.Now()
	budget, cancel := context.WithTimeout(context.Background(), p.within(instance.StopBudget+instance.KilledBudget))
	defer cancel()

	told := p.countCallers()
	goodbye := p.TakeOut(p.registry)
	p.TellOrphan()
	p.drain(budget, goodbye, told, "stopping")

	p.gate.Stop()
	if p.gate.Occupied() {
		select {
		case <-p.gate.Ended:
			p.Log("app ended (%.3f s)", time.Since(begun).Seconds())
		case <-budget.Done():
			p.Log("the app has not ended, leaving it to the platform")
		}
	}
	p.await(budget, p.within(instance.FlushBudget), (*envoy.Envoy).Flushed, "ending Envoy")
	p.end(ctx, goodbye)
	p.Log("stopped (%.3f s)", time.Since(begun).Seconds())
}

// within is a budget of a stop in the grace that the platform gives.
func (p *proxy) within(budget time.Duration) time.Duration {
	return instance.Within(p.Config.Lifecycle, budget)
}

// audience is who has to hear of the end of an instance, and from how many servers.
type audience struct{ callers, servers int }

// countCallers begins to find out who has to hear of the end. How many servers there
// are is asked where it matters, and taken for one where nobody says it in time.
func (p *proxy) countCallers() <-chan audience {
	var ports []int
	for _, e := range p.envoys {
		ports = append(ports, e.Port)
	}
	callers, counted := len(instance.Callers(ports...)), make(chan audience, 1)
	if delay, _ := instance.Drain(p.Config.Lifecycle, callers, 1); delay == p.Config.Lifecycle.DrainDelay {
		counted <- audience{callers, 1}
		return counted
	}
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), instance.HearBudget)
		defer cancel()
		counted <- audience{callers, p.ServerCount(ctx)}
	}()
	return counted
}

// drain waits until callers have heard that the instance is out of rotation, and for
// their requests in flight. Where it is not out, it waits for that as long as for both.
// told is what countCallers gives.
func (p *proxy) drain(ctx context.Context, goodbye *registry.Goodbye, told <-chan audience, doing string) {
	heard := <-told
	delay, timeout := instance.Drain(p.Config.Lifecycle, heard.callers, heard.servers)
	if delay > p.Config.Lifecycle.DrainDelay {
		p.Log("%d callers hear of it from %d servers: they get %.3f s for that, and their requests in flight %.3f s",
			heard.callers, heard.servers, delay.Seconds(), timeout.Seconds())
	}
	until := time.Now().Add(delay + timeout)
	hearing, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	p.awaitCallers(hearing, goodbye, delay)
	if goodbye.IsOut() {
		p.registry.Logout()
	}
	p.await(ctx, max(time.Until(until), min(timeout, instance.QuietFor)), (*envoy.Envoy).Idle, doing)
}

// awaitCallers gives callers some time from when the instance is out of rotation, and
// notes meanwhile when they sent their last requests.
func (p *proxy) awaitCallers(ctx context.Context, goodbye *registry.Goodbye, delay time.Duration) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-goodbye.Out:
			_ = wait.Pause(ctx, delay)
		case <-ctx.Done():
		}
		cancel()
	}()
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
func (p *proxy) end(ctx context.Context, goodbye *registry.Goodbye) {
	var group sync.WaitGroup
	group.Go(p.abandon)
	group.Go(func() {
		goodbye.End()
		p.registry.Logout()
		p.registry.Leave(ctx)
	})
	group.Wait()
}

// abandon ends what this process has started.
func (p *proxy) abandon() {
	ctx, cancel := context.WithTimeout(context.Background(), p.within(instance.EnvoyBudget))
	defer cancel()
	p.eachEnvoy(func(e *served) { e.End(ctx) })
}
