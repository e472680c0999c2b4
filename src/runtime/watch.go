package runtime

import (
	"context"
	"errors"
	"time"

	"github.com/consul-mesh/mesh-buildpack/src/droplet"
)

// hungAfter is how long the agent may take to answer. With the beat it makes
// the time until a hung one is ended.
const hungAfter = 1500 * time.Millisecond

// watchAgent keeps the instance in rotation when its agent ends: `mesh agent`
// starts it again, and here its services are registered anew. Callers keep
// sending requests meanwhile, because the catalog does not hear of it before
// the agent's peers give it up, after more than five seconds.
func (p *proxy) watchAgent(ctx context.Context) {
	if len(p.services) == 0 {
		return
	}
	go p.endHungAgent(ctx)
	for ctx.Err() == nil {
		id := droplet.SidecarID(p.services[0].ID)
		err := p.consul.awaitGone(ctx, id)
		if ctx.Err() != nil {
			return
		}
		begun := time.Now()
		p.log("the agent no longer has this instance, which is registered again when it is back: %v", err)
		if err := p.registerAgain(ctx); err != nil {
			if ctx.Err() == nil {
				p.log("failed to register again: %v", err)
			}
			continue
		}
		p.log("registered again (%.3f s)", time.Since(begun).Seconds())
	}
}

// registerAgain tells an agent that has been started again what it knew: the
// services, and that the checks which passed last do so still.
func (p *proxy) registerAgain(ctx context.Context) error {
	if err := poll(ctx, p.consul.joined); err != nil {
		return err
	}
	for _, r := range p.services {
		if err := poll(ctx, func(ctx context.Context) error { return p.consul.register(ctx, r.again()) }); err != nil {
			return err
		}
		if !r.works.Load() {
			continue // its first checks are still being waited for
		}
		if err := p.handOver(ctx, r); err != nil {
			return err
		}
	}
	return nil
}

// endHungAgent ends an agent that no longer answers.
func (p *proxy) endHungAgent(ctx context.Context) {
	ticker := time.NewTicker(beat)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		look, cancel := context.WithTimeout(ctx, hungAfter)
		err := p.consul.alive(look)
		cancel()
		if ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
			continue // an agent that refuses the connection has ended already
		}
		p.log("the Consul agent has not answered for %.1f s and is ended", hungAfter.Seconds())
		if err := p.inst.killAgent(); err != nil {
			p.log("failed to end the Consul agent: %v", err)
		}
	}
}
