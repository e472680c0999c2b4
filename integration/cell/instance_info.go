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

// WaitRunning waits until the health check has passed. It is an error if the
// instance ends instead.
func (i *Instance) WaitRunning(ctx context.Context) error {
	select {
	case <-i.running:
		return nil
	case <-i.done:
		return fmt.Errorf("instance %s of %s has %s: %s", i.guid, i.App(), i.State(), i.Reason())
	case <-ctx.Done():
		return fmt.Errorf("instance %s of %s is not running but %s: %w", i.guid, i.App(), i.State(), ctx.Err())
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
