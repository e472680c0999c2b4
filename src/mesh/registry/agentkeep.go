package registry

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/consul-mesh/mesh-buildpack/src/droplet"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/agent"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/consul"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/instance"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/wait"
)

// Keep keeps the instance in rotation when its agent ends: `mesh agent`
// starts it again, and here its services are registered anew. Callers keep
// sending requests meanwhile, because the catalog does not hear of it before
// the agent's peers give it up, after more than five seconds.
func (v ViaAgent) Keep(ctx context.Context) {
	var group sync.WaitGroup
	for _, r := range v.Services {
		group.Go(func() { v.keepRegistered(ctx, r) })
	}
	group.Go(func() { v.watchAgent(ctx) })
	group.Go(func() { v.watchCatalog(ctx) })
	group.Go(func() { v.watchServers(ctx) })
	if v.Inst.Index == "0" {
		group.Go(func() { v.keepEntries(ctx) })
	}
	group.Wait()
}

// keepRegistered tells an agent again that has lost a service, from when it was
// told first.
func (v ViaAgent) keepRegistered(ctx context.Context, r *Registration) {
	for !r.Registered.Load() && wait.Pause(ctx, instance.Beat) == nil {
	}
	defer r.away.Store(false) // who goes on after ctx looks for itself
	for ctx.Err() == nil {
		err := v.Consul.AwaitGone(ctx, droplet.SidecarID(r.ID))
		if ctx.Err() != nil {
			return
		}
		begun := time.Now()
		v.Log("%s: the agent no longer has it, it is told again as soon as it is there: %v", r.ID, err)
		r.away.Store(true)
		if err := v.registerAgain(ctx, r); err != nil {
			if ctx.Err() == nil {
				v.Log("%s: failed to register again: %v", r.ID, err)
			}
			_ = wait.Pause(ctx, instance.WatchInterval)
			continue
		}
		r.away.Store(false)
		v.NoteJoined()
		v.Log("%s: registered again (%.3f s)", r.ID, time.Since(begun).Seconds())
	}
}

// registerAgain tells an agent what it knew of a service, and how its checks are
// now.
func (v ViaAgent) registerAgain(ctx context.Context, r *Registration) error {
	return wait.PollUnbounded(ctx, func(ctx context.Context) error {
		asking, cancel := context.WithTimeout(ctx, wait.AttemptTimeout)
		defer cancel()
		if err := v.stays(asking); err != nil {
			return err
		}
		states := r.states(ctx)
		return r.writing.do(ctx, func() error { return v.tell(ctx, r, r.bodyAgain(states)) })
	})
}

// stays returns nil where the agent has joined, and is not on its way out.
func (v ViaAgent) stays(ctx context.Context) error {
	leaving, err := v.Consul.Leaving(ctx, v.Inst.NodeName())
	if err == nil && leaving {
		err = errors.New("the agent is leaving the mesh")
	}
	if err != nil {
		return err
	}
	return v.Consul.Joined(ctx)
}

// watchAgent ends an agent that no longer answers, and takes the services out of the
// catalog when the agent leaves the mesh by itself. The servers drop its node at once,
// but as long as it runs it may put that back, with the services that it has.
func (v ViaAgent) watchAgent(ctx context.Context) {
	left := false
	for wait.Pause(ctx, instance.Beat) == nil {
		leaving, err := v.leaves(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, wait.ErrLate):
			v.Log("the Consul agent has not answered for %.1f s, asked twice, and is ended", instance.HungAfter.Seconds())
			if err := agent.Kill(v.Inst); err != nil {
				v.Log("failed to end the Consul agent: %v", err)
			}
		case err != nil: // an agent that refuses the connection has ended already
		case leaving && !left:
			left = true
			v.Log("the Consul agent is leaving the mesh, and so is this instance")
			v.TakeOut(v).End() // another agent may be told of it again
			v.sweepNode()
		default:
			left = leaving
		}
	}
}

// leaves says whether the agent leaves the mesh, or that it hangs.
func (v ViaAgent) leaves(ctx context.Context) (bool, error) {
	var leaving atomic.Bool
	err := wait.Look(ctx, instance.HungAfter, func(ctx context.Context) error {
		leaves, err := v.Consul.Leaving(ctx, v.Inst.NodeName())
		leaving.Store(leaves)
		return err
	})
	return leaving.Load(), err
}

// watchCatalog registers again what the servers have dropped: they reap a node
// that could not be heard for ten seconds, and its agent, which believes that
// all is in order, would notice a minute after it is heard again. What the agent
// itself has otherwise than it was told, it is told again.
func (v ViaAgent) watchCatalog(ctx context.Context) {
	said := false
	for wait.Pause(ctx, instance.CatalogLook) == nil {
		for _, r := range v.Services {
			if r.doubt.isDue() && !r.away.Load() {
				_ = v.settle(ctx, r) // the next look tries again
			}
		}
		v.remember(ctx)
		missing, err := v.missing(ctx)
		if len(missing) > 0 && wait.Pause(ctx, time.Second) == nil {
			missing, err = v.missing(ctx) // what was just registered may still be on its way
		}
		if errors.Is(err, consul.ErrHidden) && !said {
			v.Log("whether the servers still have this instance cannot be seen, its token needs node:read for it: %v", err)
			said = true
		}
		if err != nil || v.stays(ctx) != nil {
			continue
		}
		for _, r := range missing {
			v.Log("%s: the servers no longer have it, it is registered again", r.ID)
			// The agent tells them only of what is new to itself.
			if err := v.deregister(ctx, r); err != nil {
				v.Log("%s: %v", r.ID, err)
			}
		}
	}
}

// missing are the services that the agent has, and the servers have not, or have
// where callers do not find them any more.
func (v ViaAgent) missing(ctx context.Context) (all []*Registration, err error) {
	ctx, cancel := context.WithTimeout(ctx, instance.CallTimeout)
	defer cancel()
	byID := map[string]*Registration{}
	for _, r := range v.Services {
		if !r.away.Load() {
			byID[droplet.SidecarID(r.ID)] = r
		}
	}
	has := func(id string, port int) bool { return !byID[id].shown.Load() || port != notYet }
	ids, err := v.Consul.Unknown(ctx, v.Access.ServiceToken(), v.Inst.NodeName(), slices.Sorted(maps.Keys(byID)), has)
	for _, id := range ids {
		all = append(all, byID[id])
	}
	return all, err
}

// remember keeps the states of checks that the agent alone runs, for when it has
// forgotten them.
func (v ViaAgent) remember(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, instance.CallTimeout)
	defer cancel()
	for _, r := range v.Services {
		if r.away.Load() || !slices.ContainsFunc(r.ownChecks(), isAgents) {
			continue
		}
		checks, err := v.Consul.AgentChecks(ctx, r.ID)
		if err != nil {
			continue
		}
		states := map[string]string{}
		for _, check := range checks {
			states[check.ID] = check.Status
		}
		r.remembered.Store(&states)
	}
}

// sweepNode keeps the node out of the catalog where the instance stops right
// after its start: an agent that is leaving still does its first
// synchronisations, and puts the bare node back for up to a minute. It goes on
// for as long as the agent answers.
func (v ViaAgent) sweepNode() {
	if v.Syncing() == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), instance.Within(v.Config.Lifecycle, instance.StopBudget)/2)
	defer cancel()
	for v.Consul.SweepNode(ctx, v.Inst.NodeName()) == nil {
		<-time.After(instance.SweepPause)
	}
}

// awaitFirstSync waits until the agent has done its first synchronisations,
// unless ctx ends. A process that ends by itself before that would leave what
// sweepNode is for.
func (v ViaAgent) awaitFirstSync(ctx context.Context) {
	select {
	case <-time.After(v.Syncing()):
	case <-ctx.Done():
		v.sweepNode()
	}
}
