package cell

import (
	"context"
	"fmt"
	"io"

	"github.com/consul-mesh/mesh-buildpack/integration/container"
)

// SSH runs a command as "cf ssh APP -c COMMAND": by bash, with next to no
// environment and no profile scripts. output has both streams.
func (i *Instance) SSH(ctx context.Context, command string) (output string, status container.ExitStatus, err error) {
	var out syncBuffer
	p, err := i.ctr.Run(container.Process{
		Path: "/bin/bash", Args: []string{"/bin/bash", "-c", command}, Dir: "/home/vcap",
		Env: list(map[string]string{
			"HOME": "/home/vcap", "USER": "vcap", "LANG": "en_US.UTF-8",
			"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin",
		}),
		Stdout: &out, Stderr: &out,
	})
	if err != nil {
		return "", status, fmt.Errorf("failed to run %q in %s: %w", command, i.guid, err)
	}
	status, err = p.Wait(ctx)
	return out.String(), status, err
}

// Shell is "cf ssh APP": a shell that went through the app's profile scripts,
// with the process' environment. What it prints, errors too, goes to stdout. It
// ends with its input, unless it has a terminal.
func (i *Instance) Shell(ctx context.Context, stdin io.Reader, stdout io.Writer, tty bool) (*container.Proc, error) {
	const shell = "/tmp/lifecycle/shell"
	env := list(i.env)
	if tty {
		env = append(env, "TERM=xterm")
	}
	return i.Exec(ctx, container.Process{
		Path: shell, Args: []string{shell, "app"}, Dir: "/home/vcap", Env: env,
		Stdin: stdin, Stdout: stdout, Stderr: stdout, TTY: tty,
	})
}

// Task runs a command in a container of its own until it ends, as cf run-task:
// with the app's droplet, policies and profile scripts, without sidecars.
func (r *RunningApp) Task(ctx context.Context, command string) (container.ExitStatus, error) {
	return r.cell.Task(ctx, r.app, r.Droplet(), command)
}

// Task is RunningApp.Task for an app that need not be started. It logs as
// APP/TASK/0.
func (c *Cell) Task(ctx context.Context, app App, d *Droplet, command string) (status container.ExitStatus, err error) {
	app = app.withDefaults()
	g, err := c.newAppContainer(ctx, newInstanceGUID(), app, d)
	if err != nil {
		return status, fmt.Errorf("failed to run a task of app %s: %w", app.Name, err)
	}
	defer g.end()
	env := c.environment(app, "", app.Memory)
	env["CF_INSTANCE_INTERNAL_IP"] = g.Address()
	out, errs := c.journal.writer(app.Name, "APP/TASK/0", false), c.journal.writer(app.Name, "APP/TASK/0", true)
	process := launch(command, env)
	process.Stdout, process.Stderr = out, errs
	p, err := g.Exec(ctx, process)
	if err != nil {
		return status, fmt.Errorf("failed to run a task of app %s: %w", app.Name, err)
	}
	status, err = p.Wait(ctx)
	out.flush()
	errs.flush()
	return status, err
}
