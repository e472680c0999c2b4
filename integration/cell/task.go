package cell

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"syscall"
	"time"

	"github.com/google/uuid"

	"github.com/consul-mesh/mesh-buildpack/integration/container"
)

// TaskOptions are those of cf run-task.
type TaskOptions struct {
	// Name defaults to eight random hexadecimal digits.
	Name string
	// Memory in MB. Defaults to App.Memory; App.EnforceMemory counts here too.
	Memory int
	// Disk in MB. Defaults to App.Disk.
	Disk int
}

// Task is a command that runs in a container of its own, with the app's droplet,
// identity, volumes, policies and profile scripts, without sidecars and with no
// route. It logs as APP/TASK/NAME/0.
type Task struct {
	*Guest
	app       string
	id        int
	name      string
	guid      string
	proc      *container.Proc
	out, errs *lineWriter
	done      chan struct{}

	// What is known when done is closed.
	status      container.ExitStatus
	outOfMemory bool
}

// Task runs a task of the app until it ends. It is killed if ctx ends before.
func (r *RunningApp) Task(ctx context.Context, command string) (container.ExitStatus, error) {
	return r.cell.Task(ctx, r.app, r.Droplet(), command)
}

// Task is RunningApp.Task for an app that need not be started.
func (c *Cell) Task(ctx context.Context, app App, d *Droplet, command string) (container.ExitStatus, error) {
	t, err := c.StartTask(ctx, app, d, command, TaskOptions{})
	if err != nil {
		return container.ExitStatus{}, err
	}
	status, err := t.Wait(ctx)
	if err != nil {
		t.Kill()
	}
	return status, err
}

// StartTask starts a task of the app and returns when its process runs. It goes on
// when the app is stopped. ctx bounds the start.
func (r *RunningApp) StartTask(ctx context.Context, command string, o TaskOptions) (*Task, error) {
	return r.cell.StartTask(ctx, r.app, r.Droplet(), command, o)
}

// StartTask is RunningApp.StartTask for an app that need not be started.
func (c *Cell) StartTask(ctx context.Context, app App, d *Droplet, command string, o TaskOptions) (*Task, error) {
	app = app.withDefaults()
	setDefault(&o.Name, randomName())
	setDefault(&o.Memory, app.Memory)
	setDefault(&o.Disk, app.Disk)
	app.Memory, app.Disk = o.Memory, o.Disk
	t := &Task{app: app.Name, id: c.nextTask(app.Name), name: o.Name, guid: uuid.NewString(), done: make(chan struct{})}
	label := "APP/TASK/" + t.name + "/0"
	t.out, t.errs = c.journal.writer(app.Name, label, false), c.journal.writer(app.Name, label, true)
	var err error
	if t.Guest, err = c.newAppContainer(ctx, t.guid, app, "", d); err != nil {
		return nil, fmt.Errorf("failed to run a task of app %s: %w", app.Name, err)
	}
	env := c.environment(app, "", o.Memory)
	env["CF_INSTANCE_INTERNAL_IP"] = t.Address()
	process := launch(command, env)
	process.Stdout, process.Stderr = t.out, t.errs
	if t.proc, err = t.Exec(ctx, process); err != nil {
		t.end()
		return nil, fmt.Errorf("failed to run a task of app %s: %w", app.Name, err)
	}
	c.loops.Go(t.watch)
	return t, nil
}

func randomName() string {
	b := make([]byte, 4)
	_, _ = rand.Read(b) // it never fails
	return hex.EncodeToString(b)
}

func (c *Cell) nextTask(app string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tasks[app]++
	return c.tasks[app]
}

// watch follows the task until it is gone.
func (t *Task) watch() {
	defer close(t.done)
	<-t.proc.Done()
	t.status, _ = t.proc.Wait(context.Background())
	t.out.flush()
	t.errs.flush()
	t.outOfMemory = t.group.hasKilled()
	t.end()
	line := t.out.line
	line.Text = exitText(t.status)
	t.cell.journal.add(line)
}

// ID counts the tasks of an app, from 1.
func (t *Task) ID() int { return t.id }

// Name is TaskOptions.Name, or what was made up.
func (t *Task) Name() string { return t.name }

// GUID is the task's id, which its certificate names: 36 characters, of which it
// has no environment variable.
func (t *Task) GUID() string { return t.guid }

// Done is closed when the container is gone.
func (t *Task) Done() <-chan struct{} { return t.done }

// Wait waits until the container is gone. A command that fails is no error.
func (t *Task) Wait(ctx context.Context) (container.ExitStatus, error) {
	select {
	case <-t.done:
		return t.status, nil
	case <-ctx.Done():
		return container.ExitStatus{}, fmt.Errorf("task %s of app %s has not ended: %w", t.name, t.app, ctx.Err())
	}
}

// OutOfMemory tells of a task that has ended whether the kernel had killed
// something in it that took more than the task's memory.
func (t *Task) OutOfMemory() bool {
	select {
	case <-t.done:
		return t.outOfMemory
	default:
		return false
	}
}

// Terminate ends the task as cf terminate-task, with SIGTERM to its top process and
// after Options.StopGrace with SIGKILL, and waits until its container is gone.
func (t *Task) Terminate(ctx context.Context) error {
	_ = t.proc.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-t.done:
	case <-time.After(t.cell.options.StopGrace):
		t.Kill()
	case <-ctx.Done():
	}
	_, err := t.Wait(ctx)
	return err
}
