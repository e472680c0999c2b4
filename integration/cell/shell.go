package cell

import (
	"context"
	"fmt"
	"io"
	"maps"

	"github.com/consul-mesh/mesh-buildpack/integration/container"
)

// SSH runs a command as "cf ssh APP -c COMMAND". output has both streams.
func (i *Instance) SSH(ctx context.Context, command string) (output string, status container.ExitStatus, err error) {
	var out syncBuffer
	process := i.ssh("-c", command)
	process.Stdout, process.Stderr = &out, &out
	p, err := i.ctr.Run(process)
	if err != nil {
		return "", status, fmt.Errorf("failed to run %q in %s: %w", command, i.guid, err)
	}
	status, err = p.Wait(ctx)
	return out.String(), status, err
}

// Shell is "cf ssh APP": a shell that reads stdin, and ends with it unless it has
// a terminal. What it prints, errors too, goes to stdout. Who wants what the app's
// profile scripts set runs /tmp/lifecycle/shell in it.
func (i *Instance) Shell(ctx context.Context, stdin io.Reader, stdout io.Writer, tty bool) (*container.Proc, error) {
	process := i.ssh()
	if tty {
		process.Env = append(process.Env, "TERM=xterm")
	}
	process.Stdin, process.Stdout, process.Stderr, process.TTY = stdin, stdout, stdout, tty
	return i.Exec(ctx, process)
}

// ssh is what Diego's ssh daemon starts: a plain bash, without any profile script.
// It has the daemon's environment, which is what the launcher of the process gets,
// but a PATH of its own.
func (i *Instance) ssh(args ...string) container.Process {
	const bash = "/bin/bash"
	env := maps.Clone(i.env)
	maps.Copy(env, map[string]string{"PATH": "/bin:/usr/bin", "HOME": "/home/vcap", "USER": "vcap"})
	return container.Process{Path: bash, Args: append([]string{bash}, args...), Dir: "/home/vcap", Env: list(env)}
}
