package proxy

import (
	"context"
	"fmt"
	"time"

	"github.com/consul-mesh/mesh-buildpack/src/mesh/consul"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/envoy"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/instance"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/registry"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/wait"
)

// attend passes the sidecar's check when the app works, and from then on says
// how its Envoy is.
func (p *proxy) attend(ctx context.Context, e *served) {
	if err := p.awaitApp(ctx, e.service); err != nil {
		return
	}
	a := attendance{proxy: p, envoy: e, first: p.timeline.Begin(ctx, e.service.ID+": passing, in rotation")}
	ticker := time.NewTicker(instance.Beat)
	defer ticker.Stop()
	for ctx.Err() == nil {
		a.cycle(ctx)
		select {
		case <-ctx.Done():
		case <-ticker.C:
		}
	}
}

// attendance is what is remembered from one look at an Envoy to the next.
type attendance struct {
	*proxy
	envoy  *served
	first  *wait.StepStatus // is done when the instance is in rotation
	saidAt time.Time
}

// cycle looks at the Envoy, and says how it is where that is news, or due.
func (a *attendance) cycle(ctx context.Context) {
	r := a.envoy.service
	status, output := a.look(ctx, a.envoy.Envoy)
	changed := status != r.State()
	if ctx.Err() != nil || !changed && time.Since(a.saidAt) < instance.Refresh {
		return
	}
	if err := a.registry.Say(ctx, r, status, output); err != nil {
		if !a.first.Done {
			a.timeline.Saw(a.first, err)
		}
		return // the next cycle tries again
	}
	switch {
	case !a.first.Done && status == consul.Passing:
		a.timeline.Done(a.first)
		if int(a.passed.Add(1)) == len(a.envoys) && a.Config.Lifecycle.PortCheck {
			go a.answerPortCheck(ctx)
		}
	case changed:
		a.Log("%s: %s", r.ID, output)
	}
	r.Said.Store(&status)
	a.saidAt = time.Now()
}

func (p *proxy) look(ctx context.Context, e *envoy.Envoy) (status, output string) {
	ctx, cancel := context.WithTimeout(ctx, instance.LookTimeout)
	defer cancel()
	if err := e.Ready(ctx); err != nil {
		return consul.Critical, fmt.Sprintf("out of rotation, Envoy is not ready: %v", err)
	}
	return consul.Passing, "in rotation, app and Envoy are ready"
}

// awaitApp waits until the app passes its checks, for as long as the platform
// lets it, and then hands the checks to the agent.
func (p *proxy) awaitApp(ctx context.Context, r *registry.Registration) error {
	waiting := p.timeline.Begin(ctx, r.ID+": app ready")
	noted := waiting.Begun
	err := wait.PollUnbounded(ctx, func(ctx context.Context) error {
		err := r.AppReady(ctx)
		if err == nil {
			r.Works.Store(true)
			err = p.handOver(ctx, r)
		}
		if err == nil || ctx.Err() != nil {
			return err
		}
		p.timeline.Saw(waiting, err)
		if time.Since(noted) >= instance.WaitingNote {
			noted = time.Now()
			p.Log("%s: the app is not ready after %.0f s, last seen: %v", r.ID, noted.Sub(waiting.Begun).Seconds(), err)
		}
		return err
	})
	switch {
	case err == nil:
		p.timeline.Done(waiting)
	case ctx.Err() == nil:
		p.Log("%s: the app gets no traffic: %v", r.ID, err)
	}
	return err
}

func (p *proxy) handOver(ctx context.Context, r *registry.Registration) error {
	ctx, cancel := context.WithTimeout(ctx, wait.AttemptTimeout)
	defer cancel()
	if err := p.registry.HandOver(ctx, r); err != nil {
		return fmt.Errorf("failed to register the app's checks: %w", err)
	}
	return nil
}
