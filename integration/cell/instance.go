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

// healthInterval is the time between health checks while an instance starts.
const healthInterval = 50 * time.Millisecond

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
	running     chan struct{}
	done        chan struct{}

	mu        sync.Mutex
	state     State     // guarded by mu
	runningAt time.Time // guarded by mu
	reason    string    // guarded by mu: why it has crashed
	killed    []string  // guarded by mu
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
func (r *RunningApp) newInstance(ctx context.Context, processType string, index int) (*Instance, error) {
	i := &Instance{
		run: r, processType: processType, index: index, guid: newInstanceGUID(),
		startedAt: time.Now(), state: Starting,
		stopping: make(chan struct{}), running: make(chan struct{}), done: make(chan struct{}),
	}
	r.cell.journal.cell(r.app.Name, index, "Creating container for %s instance %s", processType, i.guid)
	droplet := r.Droplet()
	spec := guestSpec{hostname: i.guid, app: r.app.Name, mounts: r.cell.mounts(r.app, droplet)}
	if r.app.EnforceMemory {
		spec.memory = r.app.Memory
	}
	g, err := r.cell.newContainer(ctx, spec)
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

// mounts are those of an instance or a task.
func (c *Cell) mounts(app App, d *Droplet) []container.Mount {
	return []container.Mount{
		{Source: c.lifecycleDir(), Target: "/tmp/lifecycle", ReadOnly: true},
		{Lower: []string{d.Dir}, Target: "/home/vcap", Size: app.Disk},
	}
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
	log := func(format string, args ...any) { i.cell.journal.cell(i.run.app.Name, i.index, format, args...) }
	ctx, cancel := context.WithTimeout(context.Background(), i.run.app.HealthTimeout)
	defer cancel()
	healthy := make(chan error, 1)
	go func() { healthy <- i.waitHealthy(ctx) }()
	end, reason := Stopped, ""
	for up := true; up; {
		select {
		case err := <-healthy:
			if err == nil {
				i.setRunning()
				log("Container became healthy: instance %s is running", i.guid)
				continue
			}
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
	i.set(Stopping, reason)
	if end == Crashed {
		log("Instance %s crashed: %s", i.guid, reason)
	} else {
		log("Stopping instance %s", i.guid)
	}
	i.shutDown()
	i.set(end, reason)
	log("Destroyed container for instance %s", i.guid)
}

// waitHealthy returns when the health check passes for the first time.
func (i *Instance) waitHealthy(ctx context.Context) error {
	kind := HealthProcess
	if i.processType == webProcess {
		kind = i.run.app.HealthCheck
	}
	const program = "/tmp/lifecycle/healthcheck"
	args := []string{program, "-port", appPort}
	switch kind {
	case HealthProcess:
		return nil
	case HealthHTTP:
		args = append(args, "-uri", i.run.app.HealthPath)
	}
	for {
		p, err := i.ctr.Run(container.Process{Path: program, Args: args})
		if err != nil {
			return fmt.Errorf("failed to check the health: %w", err)
		}
		if status, err := p.Wait(ctx); err == nil && status.Code == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("instance never healthy after %s: %s check on port %s failed", i.run.app.HealthTimeout, kind, appPort)
		case <-time.After(healthInterval):
		}
	}
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
	i.mu.Lock()
	defer i.mu.Unlock()
	i.state, i.reason = s, reason
}

func (i *Instance) setRunning() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.state, i.runningAt = Running, time.Now()
	close(i.running)
}
