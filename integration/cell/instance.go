package cell

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/google/uuid"

	"github.com/consul-mesh/mesh-buildpack/integration/container"
)

// State of an instance.
type State string

// The states in their order.
const (
	Starting State = "starting" // created, health check not yet passed
	Running  State = "running"  // health check passed
	Stopping State = "stopping" // asked to stop or crashed, on its way down
	Stopped  State = "stopped"  // gone because it was asked to stop
	Crashed  State = "crashed"  // gone by itself
)

// Instance is one container of an app, from its creation to its end. After a
// crash the app has a new Instance with the same index.
type Instance struct {
	*Guest
	run         *RunningApp
	processType string
	index       int
	guid        string
	startedAt   time.Time
	env         map[string]string // of the process, not of its sidecars
	procs       []*watched
	exits       chan *watched
	stopping    chan struct{}
	stopOnce    sync.Once
	done        chan struct{}

	mu        sync.Mutex
	state     State         // guarded by mu
	runningAt time.Time     // guarded by mu
	ready     bool          // guarded by mu: passes its readiness check
	reason    string        // guarded by mu: why it has crashed
	killed    []string      // guarded by mu
	changed   chan struct{} // guarded by mu: closed when any of these changes
}

// watched is a process or sidecar whose end ends the instance.
type watched struct {
	name     string // WEB, or the sidecar's name
	label    string
	command  string
	env      map[string]string
	proc     *container.Proc
	out, err *lineWriter
}

// newInstanceGUID has, as the platform's, only 28 of a UUID's 36 characters.
func newInstanceGUID() string { return uuid.NewString()[:28] }

// newInstance creates the container and starts everything in it, in any order.
func (r *RunningApp) newInstance(ctx context.Context, droplet *Droplet, processType string, index int) (*Instance, error) {
	i := &Instance{
		run: r, processType: processType, index: index, guid: newInstanceGUID(),
		startedAt: time.Now(), state: Starting,
		stopping: make(chan struct{}), done: make(chan struct{}), changed: make(chan struct{}),
	}
	r.cell.journal.cell(r.app.Name, index, "Creating container for %s instance %s", processType, i.guid)
	g, err := r.cell.newAppContainer(ctx, i.guid, r.app, processType, droplet)
	if err != nil {
		return nil, err
	}
	i.Guest = g
	i.procs = r.plan(droplet, processType, index)
	i.exits = make(chan *watched, len(i.procs))
	for _, p := range i.procs {
		instanceEnvironment(p.env, g, i.guid, index)
	}
	i.env = i.procs[0].env
	if err := i.launch(); err != nil {
		g.end()
		return nil, err
	}
	return i, nil
}

func (i *Instance) launch() error {
	order := slices.Clone(i.procs)
	rand.Shuffle(len(order), func(a, b int) { order[a], order[b] = order[b], order[a] })
	errs := make(chan error, len(order))
	for _, p := range order {
		go func() {
			process := launch(p.command, p.env)
			p.out = i.cell.journal.writer(i.run.app.Name, p.label, false)
			p.err = i.cell.journal.writer(i.run.app.Name, p.label, true)
			process.Stdout, process.Stderr = p.out, p.err
			var err error
			p.proc, err = i.ctr.Run(process)
			errs <- err
		}()
	}
	var all []error
	for range order {
		all = append(all, <-errs)
	}
	if err := errors.Join(all...); err != nil {
		return fmt.Errorf("failed to launch: %w", err)
	}
	for _, p := range i.procs {
		go func() {
			<-p.proc.Done()
			p.out.flush()
			p.err.flush()
			i.exits <- p
		}()
	}
	return nil
}

// watch follows the instance until it is gone.
func (i *Instance) watch() {
	defer close(i.done)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	healthy, unhealthy := make(chan error, 1), make(chan error, 1)
	go func() { healthy <- i.waitHealthy(ctx) }()
	end, reason := Stopped, ""
	for up := true; up; {
		select {
		case err := <-healthy:
			if err == nil {
				i.setRunning()
				i.log("Container became healthy: instance %s is running", i.guid)
				go func() { unhealthy <- i.stayHealthy(ctx) }()
				go i.watchReadiness(ctx)
				continue
			}
			end, reason, up = Crashed, err.Error(), false
		case err := <-unhealthy:
			i.log("Container became unhealthy: instance %s", i.guid)
			end, reason, up = Crashed, err.Error(), false
		case p := <-i.exits:
			status, _ := p.proc.Wait(context.Background())
			end, reason, up = Crashed, fmt.Sprintf("%s: %s", p.label, status), false
		case <-i.stopping:
			up = false
		case <-i.cell.closing:
			i.end()
			up = false
		}
	}
	cancel()
	i.set(Stopping, reason)
	if end == Crashed {
		i.log("Instance %s crashed: %s", i.guid, reason)
	} else {
		i.log("Stopping instance %s", i.guid)
	}
	i.shutDown()
	i.set(end, reason)
	i.log("Destroyed container for instance %s", i.guid)
}

// shutDown tells all processes at once to end, and after a while makes them.
func (i *Instance) shutDown() {
	for _, p := range i.procs {
		go func() { _ = p.proc.Signal(syscall.SIGTERM) }() // it may have ended
	}
	patience, over := context.WithTimeout(context.Background(), i.cell.options.StopGrace)
	defer over()
	for _, p := range i.procs {
		_, _ = p.proc.Wait(patience)
		if !p.hasEnded() {
			i.mu.Lock()
			i.killed = append(i.killed, p.name)
			i.mu.Unlock()
		}
	}
	i.end()
	for _, p := range i.procs {
		<-p.proc.Done()
		p.out.flush()
		p.err.flush()
		status, _ := p.proc.Wait(context.Background())
		i.cell.journal.add(Line{App: i.run.app.Name, Label: p.label, Text: exitText(status)})
	}
}

func (p *watched) hasEnded() bool {
	select {
	case <-p.proc.Done():
		return true
	default:
		return false
	}
}

func exitText(s container.ExitStatus) string {
	if s.Signal != 0 {
		return fmt.Sprintf("Exit status %d (%s)", s.Code, s.Signal)
	}
	return fmt.Sprintf("Exit status %d", s.Code)
}

func (i *Instance) set(s State, reason string) {
	i.change(func() { i.state, i.reason = s, reason })
}

func (i *Instance) setRunning() {
	i.change(func() { i.state, i.runningAt, i.ready = Running, time.Now(), i.readinessKind() == HealthProcess })
}

func (i *Instance) setReady(ready bool) { i.change(func() { i.ready = ready }) }

func (i *Instance) change(how func()) {
	i.mu.Lock()
	defer i.mu.Unlock()
	how()
	close(i.changed)
	i.changed = make(chan struct{})
}

func (i *Instance) log(format string, args ...any) {
	i.cell.journal.cell(i.run.app.Name, i.index, format, args...)
}
