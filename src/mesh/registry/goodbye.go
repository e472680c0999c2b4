package registry

import (
	"context"
	"sync"
	"time"

	"github.com/consul-mesh/mesh-buildpack/src/mesh/instance"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/wait"
)

// Goodbye is the deregistering of an instance, which goes on beside the rest of its
// stop where it is not done at once.
type Goodbye struct {
	// Out is closed when the catalog has none of the services any more.
	Out    chan struct{}
	ended  chan struct{}
	cancel context.CancelFunc
}

// TakeOut takes every service that was registered out of the catalog. It waits for
// that as long as it takes as a rule; the rest goes on until End.
func (n *Node) TakeOut(r Registry) *Goodbye {
	ctx, cancel := context.WithCancel(context.Background())
	g := &Goodbye{Out: make(chan struct{}), ended: make(chan struct{}), cancel: cancel}
	go func() {
		defer close(g.ended)
		if n.deregisterAll(ctx, r) {
			close(g.Out)
		}
	}()
	select {
	case <-g.Out:
	case <-time.After(GoodbyeBudget(n.Config)):
	}
	return g
}

// IsOut says that the catalog has none of the services any more.
func (g *Goodbye) IsOut() bool {
	select {
	case <-g.Out:
		return true
	default:
		return false
	}
}

// End gives up what is not done.
func (g *Goodbye) End() {
	g.cancel()
	<-g.ended
}

// deregisterAll returns whether all services are out of the catalog when ctx ends, or
// before.
func (n *Node) deregisterAll(ctx context.Context, r Registry) (done bool) {
	begun := time.Now()
	there := 0
	failed := make([]error, len(n.Services))
	var group sync.WaitGroup
	for i, service := range n.Services {
		if !service.Registered.Load() {
			continue
		}
		there++
		group.Go(func() { failed[i] = n.deregister(ctx, r, service) })
	}
	group.Wait()
	done = true
	for i, err := range failed {
		if err != nil {
			done = false
			n.Log("%s: failed to deregister, Consul takes it out when the instance has left: %v", n.Services[i].ID, err)
		}
	}
	if done && there > 0 {
		n.Log("out of rotation (%.3f s)", time.Since(begun).Seconds())
	}
	return done
}

// deregister tries until ctx ends, each time for longer: servers may be slow, and then
// no other is faster.
func (n *Node) deregister(ctx context.Context, r Registry, service *Registration) error {
	begun, usual := time.Now(), GoodbyeBudget(n.Config)
	long, said := usual, false
	if !HasAgent(n.Config) {
		long /= 2 // then another server is asked
	}
	return wait.PollUnbounded(ctx, func(ctx context.Context) error {
		trying, cancel := context.WithTimeout(ctx, long)
		defer cancel()
		err := r.deregister(trying, service)
		if err != nil && ctx.Err() == nil && !said && time.Since(begun) >= usual {
			said = true
			n.Log("%s: callers still find it after %.3f s, deregistering is tried on: %v", service.ID, time.Since(begun).Seconds(), err)
		}
		long = min(2*long, instance.HoldTime)
		return err
	})
}
