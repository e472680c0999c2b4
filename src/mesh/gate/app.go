package gate

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"

	"github.com/consul-mesh/mesh-buildpack/src/droplet"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/instance"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/registry"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/wait"
)

// Exec replaces the running program, as syscall.Exec does.
type Exec func(program string, args, env []string) error

// stopPatience is how long the app is kept from a SIGTERM while its proxy does
// not say that callers have gone. It is longer than the proxy needs.
func stopPatience(config droplet.Config) time.Duration {
	return registry.GoodbyeBudget(config) + instance.LongestDrain(config.Lifecycle) + 500*time.Millisecond
}

// stopTimes are how long after SIGTERM an app is kept from it at most, and when it is
// killed.
type stopTimes struct{ patience, killed time.Duration }

// App runs a start command as the app of the mesh: it starts when the proxy
// says so, with this process's input and output, in its own environment. Signals are
// passed on, SIGTERM when the instance is out of rotation. The result is the
// command's exit status, 128+n where signal n ended it.
//
// A task's command runs in the same way where mesh.hcl has a task. A command that is
// not the app's (another task's, a sidecar's, a person's, one of a process without a
// service) takes this process's place at once.
func App(ctx context.Context, inst instance.Instance, log wait.Log, command, environment []string, exec Exec) (int, error) {
	// From here on no signal may end this process before it is decided what
	// the signal means.
	signals := make(chan os.Signal, 16)
	signal.Notify(signals)
	replace := func() (int, error) {
		signal.Reset()
		path, err := lookPath(command[0])
		if err != nil {
			return 0, err
		}
		return 0, exec(path, command, environment)
	}
	if instance.UnderSSH() {
		return replace()
	}
	config, err := inst.Config()
	var kind string
	if err == nil {
		kind, err = kindOf(inst, config, command[len(command)-1])
	}
	if err != nil {
		log("the app starts outside the mesh: %v", err)
		return replace()
	}
	if kind == kindTask && config.Task != nil {
		return runTask(ctx, inst, config, command, environment, signals, replace)
	}
	if kind == kindTask {
		log("a task gets no sidecars: it runs outside the mesh")
	}
	if kind == kindForeign && len(config.Services) == 0 {
		log("no service of mesh.hcl is run by the process %s: it is outside the mesh", inst.Process)
	}
	if kind != KindApp && kind != kindMaybe || !config.Lifecycle.HoldApp {
		return replace()
	}
	note := time.AfterFunc(instance.WaitingNote, func() {
		log("the app waits for its mesh: the log of %s and `mesh status` say for what", droplet.ProxySidecar)
	})
	mesh := newParts(log)
	defer mesh.end(instance.Within(config.Lifecycle, instance.Grace))
	alone := time.AfterFunc(aloneAfter(kind), func() {
		if err := mesh.standIn(inst, registry.Parts(config)); err != nil {
			mesh.lost <- err
		}
	})
	conn, word, err := waitAtGate(ctx, inst, kind, signals, mesh.lost)
	note.Stop()
	alone.Stop()
	var overtaken *overtakenError
	switch {
	case errors.As(err, &overtaken):
		return 128 + int(overtaken.signal), nil // the app was never started
	case err != nil:
		return 0, err
	case word == sayForeign:
		mesh.end(instance.Within(config.Lifecycle, instance.Grace))
		return replace()
	}
	defer conn.Close()
	inst.NoteMemory(config, log)
	orphaned := func() { registry.LeaveOrphaned(ctx, inst, config, log) }
	return supervise(command, environment, conn, signals, stopTimes{stopPatience(config), instance.Within(config.Lifecycle, instance.StopBudget)}, mesh, orphaned, log)
}

// aloneAfter is how long an app waits for sidecars before it does without. What may be
// somebody's sidecar leaves that to the app.
func aloneAfter(kind string) time.Duration {
	if kind == KindApp {
		return instance.AloneAfter
	}
	return instance.AloneAfter + instance.MaybeLater
}

func lookPath(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("failed to find %s: %w", name, err)
	}
	return path, nil
}

// overtakenError says that the platform stopped the app before it started.
type overtakenError struct{ signal syscall.Signal }

func (e *overtakenError) Error() string {
	return "stopped before the mesh was ready: " + e.signal.String()
}

// waitAtGate connects to the proxy as soon as there is one, and returns the
// open connection and the first word on it. It ends when a part of the mesh that this
// process has started is lost.
func waitAtGate(ctx context.Context, inst instance.Instance, kind string, signals <-chan os.Signal, lost <-chan error) (net.Conn, string, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var overtaken error // read once held is closed
	held := make(chan struct{})
	go func() {
		defer close(held)
		for {
			select {
			case <-ctx.Done():
				return
			case overtaken = <-lost:
				cancel()
				return
			case sig := <-signals:
				if s := sig.(syscall.Signal); s == syscall.SIGTERM || s == syscall.SIGINT || s == syscall.SIGQUIT || s == syscall.SIGHUP {
					overtaken = &overtakenError{s}
					cancel()
				}
			}
		}
	}()
	var conn net.Conn
	var word string
	err := wait.Poll(ctx, func(attempt context.Context) error {
		var dialer net.Dialer
		c, err := dialer.DialContext(attempt, "unix", inst.Gate())
		if err != nil {
			return err
		}
		stop := context.AfterFunc(ctx, func() { c.Close() })
		defer stop()
		if _, err := fmt.Fprintln(c, kind); err != nil {
			c.Close()
			return err
		}
		if word, err = readWord(c); err != nil {
			c.Close()
			return err
		}
		conn = c
		return nil
	})
	cancel()
	<-held
	if overtaken != nil {
		if conn != nil {
			conn.Close()
		}
		return nil, "", overtaken
	}
	return conn, word, err
}

// readWord reads a line byte by byte, so that nothing of the next is taken.
func readWord(conn net.Conn) (string, error) {
	var word []byte
	var b [1]byte
	for {
		if _, err := conn.Read(b[:]); err != nil {
			return "", err
		}
		if b[0] == '\n' {
			return string(word), nil
		}
		word = append(word, b[0])
	}
}

// supervise runs the app and passes signals on until it ends. An app that
// ignores SIGTERM is killed before the platform would do it, so that its mesh
// ends in order. Where the proxy ends without a word, orphaned does what it would
// have done.
//
// The parts of the mesh that are children of this process get SIGTERM with it, as
// sidecars do, and are waited for. The end of one of them is the end of all.
func supervise(command, environment []string, gate net.Conn, signals <-chan os.Signal, after stopTimes, mesh *parts, orphaned func(), log wait.Log) (int, error) {
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Env = environment
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("failed to start the app: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()

	// released is closed when the proxy says that callers have gone, or when it
	// has gone itself, and what it left behind.
	alone, released := make(chan struct{}), make(chan struct{})
	over := make(chan struct{}) // the app has ended, so that nobody leaves it alone
	defer close(over)
	go func() {
		defer close(released)
		lines := bufio.NewScanner(gate)
		for lines.Scan() {
			if lines.Text() == SayStop {
				return
			}
		}
		select {
		case <-over:
			return
		default:
		}
		close(alone)
		orphaned()
	}()
	var mayStop <-chan struct{} // set once SIGTERM has come
	var tooLong, lastMoment <-chan time.Time
	pass := func(sig os.Signal) {
		mayStop, tooLong = nil, nil
		// An app that has ended takes no signal, which is what was wanted.
		_ = cmd.Process.Signal(sig)
	}
	terminate := func() {
		if !mesh.outlive {
			mesh.stop()
		}
		switch {
		case lastMoment == nil:
			mayStop, tooLong, lastMoment = released, time.After(after.patience), time.After(after.killed)
		case mayStop == nil: // the first has been passed on
			pass(syscall.SIGTERM)
		}
	}
	for {
		select {
		case err := <-ended:
			select {
			case <-alone:
				<-released
			default:
			}
			return exitStatus(cmd, err)
		case <-mayStop:
			pass(syscall.SIGTERM)
		case <-tooLong:
			pass(syscall.SIGTERM)
		case <-lastMoment:
			log("the app has not ended %.0f s after SIGTERM and is killed", after.killed.Seconds())
			pass(syscall.SIGKILL)
		case err := <-mesh.lost:
			log("%v: the app is stopped", err)
			terminate()
		case sig := <-signals:
			switch sig {
			case syscall.SIGCHLD, syscall.SIGURG, syscall.SIGPIPE:
				// About this process: its child's state, Go's scheduler, the gate.
			case syscall.SIGTERM:
				terminate()
			default:
				_ = cmd.Process.Signal(sig)
			}
		}
	}
}

func exitStatus(cmd *exec.Cmd, err error) (int, error) {
	if cmd.ProcessState == nil {
		return 0, fmt.Errorf("failed to wait for the app: %w", err)
	}
	status := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if status.Signaled() {
		return 128 + int(status.Signal()), nil
	}
	return status.ExitStatus(), nil
}
