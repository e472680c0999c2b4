package proxy

import (
	"context"
	"fmt"
	"time"

	"github.com/consul-mesh/mesh-buildpack/src/mesh/consul"
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
	e.inRotation = p.timeline.Begin(ctx, e.service.ID+": passing, in rotation")
	ticker := time.NewTicker(instance.Beat)
	defer ticker.Stop()
	for ctx.Err() == nil {
		p.tell(ctx, e)
		select {
		case <-ctx.Done():
		case <-ticker.C:
		}
	}
}

// tell looks at an Envoy, and tells how it is where that is news, or due.
func (p *proxy) tell(ctx context.Context, e *served) {
	r := e.service
	status, output := p.judge(ctx, e)
	changed := status != r.State()
	if ctx.Err() != nil || !changed && time.Since(e.toldAt) < instance.Refresh {
		return
	}
	if err := p.registry.Say(ctx, r, status, output); err != nil {
		if !e.inRotation.Done {
			p.timeline.Saw(e.inRotation, err)
		}
		return // the next look tells it
	}
	switch {
	case !e.inRotation.Done && status == consul.Passing:
		p.timeline.Done(e.inRotation)
		if int(p.passed.Add(1)) == len(p.envoys) && p.Config.Lifecycle.PortCheck {
			go p.answerPortCheck(ctx)
		}
	case changed:
		p.Log("%s: %s", r.ID, output)
	}
	if status == consul.Passing && r.State() == consul.Critical {
		e.flaps.Passes()
	}
	r.Said.Store(&status)
	e.toldAt = time.Now()
}

// judge says how the sidecar's ready check is, critical for a while longer where it
// fails and passes in turn.
func (p *proxy) judge(ctx context.Context, e *served) (status, output string) {
	status, output = e.look(ctx)
	if status == consul.Critical {
		e.flaps.Fails()
	}
	if status == consul.Critical || e.service.State() != consul.Critical {
		return status, output
	}
	may, news := e.flaps.MayPass()
	if may {
		return status, output
	}
	output = fmt.Sprintf("out of rotation until app and Envoy work for %.0f s: they failed and worked in turn, %d times in a minute",
		instance.FlapPause.Seconds(), instance.FlapsAtOnce)
	if news {
		p.Log("%s: %s", e.service.ID, output)
	}
	return consul.Critical, output
}

// look says how app and Envoy are. An app that opens its port again at the next look,
// as after a reload, has never closed it.
func (e *served) look(ctx context.Context) (status, output string) {
	if err := wait.Look(ctx, instance.LookTimeout, e.Ready); err != nil {
		return consul.Critical, fmt.Sprintf("out of rotation, Envoy is not ready: %v", err)
	}
	err := e.service.Listening()
	if err == nil {
		e.deaf = 0
	} else if e.deaf++; e.deaf >= instance.DeafLooks {
		return consul.Critical, fmt.Sprintf("out of rotation: %v", err)
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
	ctx, cancel := context.WithTimeout(ctx, instance.HoldTime)
	defer cancel()
	if err := p.registry.HandOver(ctx, r); err != nil {
		return fmt.Errorf("failed to register the app's checks: %w", err)
	}
	return nil
}
