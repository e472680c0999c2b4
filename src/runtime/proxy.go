package runtime

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	goruntime "runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/consul-mesh/mesh-buildpack/src/credentials"
	"github.com/consul-mesh/mesh-buildpack/src/droplet"
)

const (
	// beat is how often a running Envoy is looked at, lookTimeout how long it
	// may take to answer: together the time until a hung one is out of
	// rotation.
	beat        = 500 * time.Millisecond
	lookTimeout = time.Second
	// refresh is how often an unchanged state is repeated to the agent; the TTL
	// in service.json is several times as long.
	refresh = 3 * time.Second
	// waitingNote is how often the log says what an app is still waited for.
	waitingNote = 10 * time.Second
	// wrapperGrace is how long after the mesh is ready an app may show up
	// before the log says that it was not held.
	wrapperGrace = 2 * time.Second
)

// proxy is `mesh proxy`: all sidecars of one instance.
type proxy struct {
	inst     Instance
	log      Log
	config   droplet.Config
	ports    agentPorts
	consul   *consul
	registry registry
	access   *access
	seen     *credentials.Credentials // the binding at the last look; of watchCredentials alone
	unmoved  bool                     // the services may have an old token; of watchCredentials alone
	xds      *xds                     // nil: Envoy asks the agent itself
	gate     *gate
	services []*registration
	envoys   []*envoy
	timeline *timeline
	joined   atomic.Pointer[time.Time] // when the agent of now knew a leader
	passed   atomic.Int32              // services that have passed once

	orphanOnce sync.Once
	orphan     bool // the agent was one, and was told to leave
}

// Proxy runs the sidecar proxies of the instance until ctx ends, which is the
// platform's SIGTERM, or until something ends that it cannot go on without.
func Proxy(ctx context.Context, inst Instance, log Log) error {
	// Envoy is told to die with the thread that started it.
	goruntime.LockOSThread()
	begun := time.Now()
	if err := inst.requirePlatform(); err != nil {
		return err
	}
	if err := inst.makeRunDir(); err != nil {
		return err
	}
	config, err := inst.config()
	if err != nil {
		return err
	}
	programs := []string{"envoy"}
	var ports agentPorts
	if config.Servers == nil {
		programs = append(programs, "consul")
		if ports, err = inst.agentPorts(); err != nil {
			return err
		}
	}
	if err := checkPrograms(inst, programs...); err != nil {
		return err
	}
	services, err := inst.registrations(config)
	if err != nil {
		return err
	}
	for _, r := range services {
		for what, port := range map[string]int{"admin": r.AdminPort, "public": r.sidecar} {
			if err := checkPort(ctx, "", port); err != nil {
				return fmt.Errorf("the %s port %d of Envoy cannot be used: %w", what, port, err)
			}
		}
	}
	gate, err := newGate(ctx, inst.gate())
	if err != nil {
		return err
	}
	p := &proxy{
		inst: inst, log: log, config: config, ports: ports, gate: gate, services: services,
		consul: &consul{base: "http://" + address(ports.HTTP)}, timeline: &timeline{log: log},
	}
	if err := p.secure(ctx); err != nil {
		return err
	}
	gate.answerStatus(p.status)
	p.notePromotion()
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
	log("ready after %.3f s, the app may start", time.Since(begun).Seconds())
	p.gate.open()
	return p.serve(ctx)
}

// start goes through the stages up to a ready Envoy for every service.
func (p *proxy) start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, p.config.Lifecycle.StartTimeout)
	defer cancel()
	stages, err := p.registry.stages(ctx)
	if err != nil {
		return err
	}
	if err := p.timeline.awaitAll(ctx, stages); err != nil {
		return err
	}
	p.noteJoined()
	if err := p.timeline.awaitAll(ctx, p.access.stages()); err != nil {
		return err
	}
	swept := make(chan struct{})
	go func() {
		defer close(swept)
		p.sweepAddress(ctx)
	}()
	for _, r := range p.services {
		if err := p.startService(ctx, r); err != nil {
			return fmt.Errorf("service %s: %w", r.ID, err)
		}
	}
	group, together := errgroup.WithContext(ctx)
	for _, e := range p.envoys {
		group.Go(func() error {
			err := p.timeline.await(together, stage{
				name:      e.service.ID + ": xDS, Envoy knows what to do",
				hint:      "the lines of Envoy above say why; its admin API is " + e.admin,
				condition: p.configured(e),
			})
			if err != nil {
				return err
			}
			return p.timeline.await(together, stage{
				name:      e.service.ID + ": Envoy ready",
				hint:      "the lines of Envoy above say why; its admin API is " + e.admin,
				condition: e.ready,
			})
		})
	}
	err = group.Wait()
	<-swept
	return err
}

func (p *proxy) noteJoined() {
	now := time.Now()
	p.joined.Store(&now)
}

// configured returns a condition: Envoy has taken what Consul tells it. Where
// that goes through the relay, Envoy is not asked before it has been told.
func (p *proxy) configured(e *envoy) func(context.Context) error {
	condition := e.configured()
	if p.xds == nil {
		return condition
	}
	told := p.xds.early.answered(droplet.SidecarID(e.service.ID))
	return func(ctx context.Context) error {
		select {
		case <-told:
		case <-e.exited:
		case <-ctx.Done():
		case <-time.After(countersAfter): // they may say why not
		}
		return condition(ctx)
	}
}

// explainBudget bounds the search for the cause of a failed start.
const explainBudget = statusBudget

// explain gives a stage that did not come true its likely causes as hints.
func (p *proxy) explain(err error) error {
	var failed *stageError
	if !errors.As(err, &failed) {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), explainBudget)
	defer cancel()
	hints := p.startCauses(ctx, p.survey(ctx))
	if len(hints) == 1 && strings.Contains(hints[0], failed.seen.Error()) {
		return err
	}
	if len(hints) == 0 {
		hints = []string{failed.stage.hint}
		if lines := p.journals(); len(lines) > 0 {
			hints = append(hints, "the last warning was: "+strings.TrimSpace(lines[len(lines)-1]))
		}
	}
	return fmt.Errorf("%w\nhint: %s", err, strings.Join(hints, "\nhint: "))
}

// startService registers one service and starts its Envoy.
func (p *proxy) startService(ctx context.Context, r *registration) error {
	err := p.timeline.await(ctx, stage{
		name: r.ID + ": registered",
		hint: "Consul refuses the registration; with ACLs on, the service needs a token with service:write",
		condition: patient(func(ctx context.Context) error {
			return p.registry.register(ctx, r)
		}),
		bounded: true,
	})
	if err != nil {
		return err
	}
	r.registered.Store(true)
	p.declareDefaults(ctx, r)
	var bootstrap []byte
	err = p.timeline.await(ctx, stage{
		name: r.ID + ": bootstrapped",
		hint: "Consul does not tell what Envoy needs to start",
		condition: func(ctx context.Context) (err error) {
			bootstrap, err = p.registry.bootstrap(ctx, r)
			return err
		},
	})
	if err != nil {
		return err
	}
	e, err := p.inst.startEnvoy(p.config.Envoy, r, bootstrap)
	if err != nil {
		return err
	}
	p.envoys = append(p.envoys, e)
	r.envoy.Store(e)
	return nil
}

// declareDefaults lets callers know the protocol, and Consul the extensions of
// Envoy. Calls work without, as plain TCP, so a failure is said and not fatal.
func (p *proxy) declareDefaults(ctx context.Context, r *registration) {
	ctx, cancel := context.WithTimeout(ctx, asideBudget)
	defer cancel()
	mine := serviceDefaults{Kind: "service-defaults", Name: r.name, Protocol: r.protocol, EnvoyExtensions: r.EnvoyExtensions}
	if mine.Protocol == "" && mine.EnvoyExtensions == nil {
		return
	}
	var there serviceDefaults
	err := whilePasses(ctx, func(ctx context.Context) (err error) {
		there, err = p.consul.ensureDefaults(ctx, mine)
		return err
	})
	if err != nil {
		p.log("%s: failed to declare its protocol and Envoy extensions, callers may treat it as tcp: %v", r.ID, err)
		return
	}
	if mine.Protocol != "" && mine.Protocol != there.Protocol {
		p.log("%s: mesh.hcl says protocol %s, but the service-defaults entry in Consul says %q and is left alone", r.ID, mine.Protocol, there.Protocol)
	}
	for _, e := range mine.EnvoyExtensions {
		same := func(other droplet.EnvoyExtension) bool { return reflect.DeepEqual(e, other) }
		if !slices.ContainsFunc(there.EnvoyExtensions, same) {
			p.log("%s: the Envoy extension %s of mesh.hcl is not in the service-defaults entry in Consul, which is left alone: write it there, or delete the entry and restart",
				r.ID, e.Name)
		}
	}
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
			<-e.exited
			failed <- fmt.Errorf("the Envoy of %s ended: %w", e.service.ID, e.reason)
		}()
	}
	go p.noteUnheld(health)
	go p.registry.keep(health)
	go p.watchCredentials(health)
	go giveBack(health)
	select {
	case <-ctx.Done():
		cancel()
		p.stop()
		return nil
	case err := <-failed:
		cancel()
		for _, problem := range memoryProblems() {
			err = fmt.Errorf("%w\nhint: %s", err, problem)
		}
		p.giveUp(ctx)
		return err
	case <-p.gate.ended:
		cancel()
		p.log("the app has ended")
		for _, problem := range memoryProblems() {
			p.log("hint: %s", problem)
		}
		p.deregister()
		// The platform ends the other processes of an instance when one has
		// ended; until then callers are still being told.
		select {
		case <-ctx.Done():
		case <-time.After(stopBudget):
		}
		p.logout()
		p.await(context.Background(), flushBudget, (*envoy).flushed, "ending Envoy")
		p.end(ctx)
		return nil
	}
}

// giveBack returns to the container what the start, and then each minute, has
// left of free memory: Go keeps most of it for what comes next.
func giveBack(ctx context.Context) {
	for wait := 10 * time.Second; pause(ctx, wait) == nil; wait = time.Minute {
		debug.FreeOSMemory()
	}
}

// giveUp takes back what was done, where this process ends before the platform
// says so.
func (p *proxy) giveUp(ctx context.Context) {
	p.deregister()
	serves := func(e *envoy) bool { return e.alive() == nil && e.service.appWorks() }
	if slices.ContainsFunc(p.envoys, serves) {
		_ = pause(context.Background(), p.config.Lifecycle.DrainDelay) // callers are being told
		p.await(ctx, p.config.Lifecycle.DrainTimeout, (*envoy).idle, "ending Envoy")
	}
	p.gate.stop()
	p.abandon()
	p.registry.leave(ctx, true)
	p.logout()
}

// attend passes the sidecar's check when the app works, and from then on says
// how its Envoy is.
func (p *proxy) attend(ctx context.Context, e *envoy) {
	if err := p.awaitApp(ctx, e.service); err != nil {
		return
	}
	a := attendance{proxy: p, envoy: e, first: p.timeline.begin(ctx, e.service.ID+": passing, in rotation")}
	ticker := time.NewTicker(beat)
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
	envoy  *envoy
	first  *StageStatus // is done when the instance is in rotation
	saidAt time.Time
}

// cycle looks at the Envoy, and says how it is where that is news, or due.
func (a *attendance) cycle(ctx context.Context) {
	r := a.envoy.service
	status, output := a.look(ctx, a.envoy)
	changed := status != r.state()
	if ctx.Err() != nil || !changed && time.Since(a.saidAt) < refresh {
		return
	}
	if err := a.registry.say(ctx, r, status, output); err != nil {
		if !a.first.Done {
			a.timeline.saw(a.first, err)
		}
		return // the next cycle tries again
	}
	switch {
	case !a.first.Done && status == passing:
		a.timeline.done(a.first)
		if int(a.passed.Add(1)) == len(a.envoys) && a.config.Lifecycle.PortCheck {
			go a.answerPortCheck(ctx)
		}
	case changed:
		a.log("%s: %s", r.ID, output)
	}
	r.said.Store(&status)
	a.saidAt = time.Now()
}

func (p *proxy) look(ctx context.Context, e *envoy) (status, output string) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	if err := e.ready(ctx); err != nil {
		return critical, fmt.Sprintf("out of rotation, Envoy is not ready: %v", err)
	}
	return passing, "in rotation, app and Envoy are ready"
}

// awaitApp waits until the app passes its checks, for as long as the platform
// lets it, and then hands the checks to the agent.
func (p *proxy) awaitApp(ctx context.Context, r *registration) error {
	waiting := p.timeline.begin(ctx, r.ID+": app ready")
	noted := waiting.begun
	err := pollUnbounded(ctx, func(ctx context.Context) error {
		err := r.appReady(ctx)
		if err == nil {
			r.works.Store(true)
			err = p.handOver(ctx, r)
		}
		if err == nil || ctx.Err() != nil {
			return err
		}
		p.timeline.saw(waiting, err)
		if time.Since(noted) >= waitingNote {
			noted = time.Now()
			p.log("%s: the app is not ready after %.0f s, last seen: %v", r.ID, noted.Sub(waiting.begun).Seconds(), err)
		}
		return err
	})
	switch {
	case err == nil:
		p.timeline.done(waiting)
	case ctx.Err() == nil:
		p.log("%s: the app gets no traffic: %v", r.ID, err)
	}
	return err
}

func (p *proxy) handOver(ctx context.Context, r *registration) error {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	if err := p.registry.handOver(ctx, r); err != nil {
		return fmt.Errorf("failed to register the app's checks: %w", err)
	}
	return nil
}

// notePromotion says once that the droplet was staged for another place, and
// mesh.hcl looks at that.
func (p *proxy) notePromotion() {
	here := droplet.Place{App: p.inst.App, Space: p.inst.Space, Organization: p.inst.Organization, Route: p.inst.Route}
	if staged := p.config.Staged; staged != nil && *staged != here {
		p.log("the droplet was staged for %s in %s/%s with the route %q and runs as %s in %s/%s with %q: what mesh.hcl took from app.* is that of the first, restage to change it",
			staged.App, staged.Organization, staged.Space, staged.Route, here.App, here.Organization, here.Space, here.Route)
	}
}

// noteUnheld says once that an app runs without `mesh app`, so that it was not
// held and will not be told when to stop.
func (p *proxy) noteUnheld(ctx context.Context) {
	// It may still be busy with its profile scripts.
	grace := wrapperGrace
	if !slices.ContainsFunc(p.services, (*registration).tells) {
		grace = waitingNote
	}
	if pause(ctx, grace) != nil {
		return
	}
	for !slices.ContainsFunc(p.services, (*registration).appWorks) {
		if pause(ctx, beat) != nil {
			return
		}
	}
	if p.config.Lifecycle.HoldApp && !p.gate.occupied() {
		p.log("the app did not wait for its mesh: its start command was not wrapped " +
			"(an entrypoint prefix, or a profile script that does not run, see docs/architecture.md)")
	}
}
