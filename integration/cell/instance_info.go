package cell

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"
)

// App is the app's name.
func (i *Instance) App() string { return i.run.app.Name }

// Index is CF_INSTANCE_INDEX.
func (i *Instance) Index() int { return i.index }

// GUID is CF_INSTANCE_GUID, 28 characters.
func (i *Instance) GUID() string { return i.guid }

// StartedAt is when creating the container began: the zero of measurements.
func (i *Instance) StartedAt() time.Time { return i.startedAt }

// RunningAt is when the health check passed; zero before.
func (i *Instance) RunningAt() time.Time {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.runningAt
}

// upFor is how long it was running, or has been so far.
func (i *Instance) upFor() time.Duration {
	if at := i.RunningAt(); !at.IsZero() {
		return time.Since(at)
	}
	return 0
}

// State is the instance's state now.
func (i *Instance) State() State {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.state
}

// Reason says why the instance has crashed; empty if it has not.
func (i *Instance) Reason() string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.reason
}

// Killed names the processes that had to be ended with SIGKILL.
func (i *Instance) Killed() []string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return slices.Clone(i.killed)
}

// Done is closed when the container is gone.
func (i *Instance) Done() <-chan struct{} { return i.done }

// Routable tells whether routes lead to the instance: the router's and those of
// apps.internal. They do from when it is running, while its readiness check
// passes, and until its container is gone.
func (i *Instance) Routable() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.ready && !i.isOver()
}

// isOver is called with mu held.
func (i *Instance) isOver() bool { return i.state == Stopped || i.state == Crashed }

// WaitRunning waits until the health check has passed. It is an error if the
// instance ends instead.
func (i *Instance) WaitRunning(ctx context.Context) error {
	return i.wait(ctx, "running", func() bool { return !i.runningAt.IsZero() })
}

// WaitRoutable waits until the instance is running and its readiness check
// passes, if it has one. It is an error if the instance ends instead.
func (i *Instance) WaitRoutable(ctx context.Context) error {
	return i.wait(ctx, "running and ready", func() bool { return i.state == Running && i.ready })
}

// wait calls is with mu held.
func (i *Instance) wait(ctx context.Context, what string, is func() bool) error {
	for {
		i.mu.Lock()
		reached, over, changed := is(), i.isOver(), i.changed
		i.mu.Unlock()
		if reached {
			return nil
		}
		if over {
			return fmt.Errorf("instance %s of %s has %s: %s", i.guid, i.App(), i.State(), i.Reason())
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("instance %s of %s is not %s but %s: %w", i.guid, i.App(), what, i.State(), ctx.Err())
		}
	}
}

// requestStop returns at once.
func (i *Instance) requestStop() { i.stopOnce.Do(func() { close(i.stopping) }) }

// Stop stops the instance as the platform does and tells how long it took. Its
// place stays empty until the app is restarted or the index replaced.
func (i *Instance) Stop(ctx context.Context) (time.Duration, error) {
	began := time.Now()
	i.requestStop()
	select {
	case <-i.done:
		return time.Since(began), nil
	case <-ctx.Done():
		return time.Since(began), fmt.Errorf("instance %s of %s has not stopped: %w", i.guid, i.App(), ctx.Err())
	}
}

// Proc is a process that the platform watches.
type Proc struct {
	// Name is the process type in capitals, e.g. "WEB", or the sidecar's name.
	Name string
	// Pid in the container.
	Pid int
}

// Processes are the process and its sidecars, the process first.
func (i *Instance) Processes() []Proc {
	var all []Proc
	for _, p := range i.procs {
		all = append(all, Proc{p.name, p.proc.Pid()})
	}
	return all
}

// Signal sends a signal to the top process of that name, in any case of letters.
func (i *Instance) Signal(name string, sig syscall.Signal) error {
	for _, p := range i.procs {
		if strings.EqualFold(p.name, name) {
			return p.proc.Signal(sig)
		}
	}
	return fmt.Errorf("instance %s of %s has no process %s", i.guid, i.App(), name)
}

// Crash kills the top process of that name.
func (i *Instance) Crash(name string) error { return i.Signal(name, syscall.SIGKILL) }
