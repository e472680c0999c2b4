// Package proxy is `mesh proxy`, which goes through the start, keeps the instance in
// rotation while it works, and takes it down again; and `mesh status`, which asks it.
package proxy

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/consul-mesh/mesh-buildpack/src/credentials"
	"github.com/consul-mesh/mesh-buildpack/src/droplet"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/envoy"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/gate"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/instance"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/registry"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/wait"
)

// proxy is `mesh proxy`: all sidecars of one instance.
type proxy struct {
	*registry.Node
	registry   registry.Registry
	seen       *credentials.Credentials // the binding at the last look; of watchCredentials alone
	unmoved    bool                     // the services may have an old token; of watchCredentials alone
	tokens     tokens                   // of watchCredentials alone
	gate       *gate.Gate
	startEnvoy StartEnvoy
	envoys     []*served
	started    sync.Map // the Envoys by their services' ids, for who asks how they are
	timeline   *wait.Timeline
	passed     atomic.Int32 // services that have passed once
}

// served is a service and its Envoy.
type served struct {
	*envoy.Envoy
	service    *registry.Registration
	inRotation *wait.StepStatus // done when callers send it requests
	toldAt     time.Time        // how it is, last
	flaps      registry.Flaps
	deaf       int // looks in a row at which the app did not listen
}

// ended says that its Envoy has, and whether memory was short.
func (e *served) ended() error {
	err := fmt.Errorf("the Envoy of %s ended: %w", e.service.ID, e.Reason)
	for _, problem := range instance.MemoryProblems() {
		err = fmt.Errorf("%w\nhint: %s", err, problem)
	}
	return err
}

// Run runs the sidecar proxies of the instance until ctx ends, which is the
// platform's SIGTERM, or until something ends that it cannot go on without.
func Run(ctx context.Context, inst instance.Instance, log wait.Log) error {
	// Envoy is told to die with the thread that started it.
	runtime.LockOSThread()
	if err := inst.RequirePlatform(); err != nil {
		return err
	}
	if mine, err := inst.TakePart(ctx, instance.ProxyPart, log); !mine {
		return err
	}
	config, err := inst.Config()
	if err != nil {
		return err
	}
	n, err := registry.NewNode(inst, config, log)
	if err != nil {
		return err
	}
	for _, r := range n.Services {
		for what, port := range map[string]int{"admin": r.AdminPort, "public": r.SidecarPort} {
			if err := instance.CheckPort(ctx, "", port); err != nil {
				return fmt.Errorf("the %s port %d of Envoy cannot be used: %w", what, port, err)
			}
		}
	}
	go giveBack(ctx)
	return RunNode(ctx, n, envoy.Start)
}

// StartEnvoy starts an Envoy with a bootstrap configuration, as envoy.Start does.
type StartEnvoy func(instance.Instance, droplet.Envoy, envoy.Sidecar, []byte) (*envoy.Envoy, error)

// RunNode is Run without what concerns the whole process, so that one may run several
// nodes.
func RunNode(ctx context.Context, n *registry.Node, start StartEnvoy) error {
	begun := time.Now()
	door, err := gate.New(ctx, n.Inst.Gate())
	if err != nil {
		return err
	}
	asked, err := registry.New(ctx, n)
	if err != nil {
		return err
	}
	p := &proxy{Node: n, registry: asked, gate: door, startEnvoy: start, timeline: &wait.Timeline{Log: n.Log}}
	door.AnswerStatus(func(ctx context.Context) any { return p.status(ctx) })
	p.NotePromotion()
	if err := p.start(ctx); err != nil {
		if ctx.Err() == nil {
			err = p.explain(err)
		}
		p.giveUp(ctx)
		if ctx.Err() != nil {
			return nil // the platform has changed its mind
		}
		return err
	}
	n.Log("ready after %.3f s, the app may start", time.Since(begun).Seconds())
	p.gate.Open()
	if n.Config.Task != nil {
		return p.serveTask(ctx)
	}
	return p.serve(ctx)
}

// serve keeps the instance in rotation while it works, and takes it out when
// the platform says stop or a part of it ends.
func (p *proxy) serve(ctx context.Context) error {
	health, cancel := context.WithCancel(ctx)
	defer cancel()
	failed := make(chan error, len(p.envoys))
	for _, e := range p.envoys {
		go p.attend(health, e)
		go func() {
			<-e.Exited
			failed <- e.ended()
		}()
	}
	go p.noteUnheld(health)
	go p.registry.Keep(health)
	go p.watchCredentials(health)
	select {
	case <-ctx.Done():
		cancel()
		p.stop(ctx)
		return nil
	case err := <-failed:
		cancel()
		p.giveUp(ctx)
		return err
	case <-p.gate.Ended:
		cancel()
		p.Log("the app has ended")
		for _, problem := range instance.MemoryProblems() {
			p.Log("hint: %s", problem)
		}
		goodbye := p.TakeOut(p.registry)
		// The platform ends the other processes of an instance when one has
		// ended; until then callers are still being told.
		select {
		case <-ctx.Done():
		case <-time.After(p.within(instance.StopBudget)):
		}
		if goodbye.IsOut() {
			p.registry.Logout()
		}
		p.await(context.Background(), p.within(instance.FlushBudget), (*envoy.Envoy).Flushed, "ending Envoy")
		p.end(ctx, goodbye)
		return nil
	}
}

// giveBack returns to the container what the start, and then each minute, has
// left of free memory: Go keeps most of it for what comes next.
func giveBack(ctx context.Context) {
	for next := 10 * time.Second; wait.Pause(ctx, next) == nil; next = time.Minute {
		debug.FreeOSMemory()
	}
}

// giveUp takes back what was done, where this process ends before the platform
// says so.
func (p *proxy) giveUp(ctx context.Context) {
	told := p.countCallers()
	goodbye := p.TakeOut(p.registry)
	serves := func(e *served) bool { return e.Runs() == nil && e.service.AppWorks() }
	if slices.ContainsFunc(p.envoys, serves) {
		p.drain(context.Background(), goodbye, told, "ending Envoy")
	}
	p.gate.Stop()
	p.abandon()
	goodbye.End()
	p.registry.Leave(ctx)
	p.registry.Logout()
}

// noteUnheld says once that an app runs without `mesh app`, so that it was not
// held and will not be told when to stop.
func (p *proxy) noteUnheld(ctx context.Context) {
	// It may still be busy with its profile scripts.
	grace := instance.WrapperGrace
	if !slices.ContainsFunc(p.Services, (*registry.Registration).Tells) {
		grace = instance.WaitingNote
	}
	if wait.Pause(ctx, grace) != nil {
		return
	}
	for !slices.ContainsFunc(p.Services, (*registry.Registration).AppWorks) {
		if wait.Pause(ctx, instance.Beat) != nil {
			return
		}
	}
	if p.Config.Lifecycle.HoldApp && !p.gate.Occupied() {
		p.Log("the app did not wait for its mesh: its start command was not wrapped " +
			"(an entrypoint prefix, or a profile script that does not run, see docs/architecture.md)")
	}
}
