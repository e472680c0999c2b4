package gate

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/consul-mesh/mesh-buildpack/src/droplet"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/instance"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/meshtest"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/wait"
)

// TestMain lets the test binary stand in for `mesh app`, so that signals,
// exec and exit status are the real ones.
func TestMain(m *testing.M) {
	if program := os.Getenv("MESH_TEST_PROGRAM"); program != "" {
		log := wait.NewLog(os.Stdout)
		inst, err := instance.New(program, os.Getenv)
		var status int
		if err == nil {
			status, err = App(context.Background(), inst, log, os.Args[1:], os.Environ(), syscall.Exec)
		}
		if err != nil {
			log("failed: %v", err)
			status = 1
		}
		os.Exit(status)
	}
	os.Exit(m.Run())
}

// container is a droplet with one service for the process "web".
type container struct {
	t    *testing.T
	inst instance.Instance
}

func newContainer(t *testing.T) *container {
	t.Helper()
	// Short, because the path of a Unix socket has at most 107 bytes.
	top, err := os.MkdirTemp("", "mesh")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(top) })
	for path, text := range map[string]string{
		"deps/0/mesh.json":  `{"services":[{"id":"s","process":"web"}],"lifecycle":{"hold_app":true,"drain_delay":300000000,"drain_timeout":3000000000}}`,
		"deps/1/launch.yml": `{processes: [{type: other, command: other-sidecar, platforms: {cloudfoundry: {sidecar_for: [web]}}}]}`,
		"staging_info.yml":  `{"start_command":"released"}`,
		"app/Procfile":      "web: declared\n",
		"tmp/mesh/.keep":    "",
	} {
		full := filepath.Join(top, path)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	inst, err := instance.New(filepath.Join(top, "deps/0/bin/mesh"), func(string) string { return "" })
	if err != nil {
		t.Fatal(err)
	}
	return &container{t: t, inst: inst}
}

func (c *container) openGate() *Gate {
	c.t.Helper()
	gate, err := New(c.t.Context(), c.inst.Gate())
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { gate.Listener.Close() })
	return gate
}

// app is a running `mesh app -- bash -c COMMAND`.
type app struct {
	*exec.Cmd
	t      *testing.T
	output *strings.Builder
}

func (c *container) start(process, command, stdin string) *app {
	c.t.Helper()
	a := &app{exec.Command(os.Args[0], "bash", "-c", command), c.t, &strings.Builder{}}
	a.Env = append(os.Environ(), "MESH_TEST_PROGRAM="+c.inst.Program("mesh"),
		fmt.Sprintf(`VCAP_APPLICATION={"application_name":"a","process_type":%q}`, process))
	a.Stdin = strings.NewReader(stdin)
	a.Stdout, a.Stderr = a.output, a.output
	if err := a.Start(); err != nil {
		c.t.Fatal(err)
	}
	return a
}

// end waits for the app and returns its exit status and output.
func (a *app) end() (int, string) {
	a.t.Helper()
	timeout := time.AfterFunc(30*time.Second, func() { _ = a.Process.Kill() })
	defer timeout.Stop()
	_ = a.Wait()
	if a.ProcessState.ExitCode() < 0 {
		a.t.Fatalf("the app ended by %v, its output: %s", a.ProcessState, a.output)
	}
	return a.ProcessState.ExitCode(), a.output.String()
}

func (a *app) signal(sig syscall.Signal) {
	a.t.Helper()
	if err := a.Process.Signal(sig); err != nil {
		a.t.Fatal(err)
	}
}

func (g *Gate) waitingCount() int {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	return len(g.waiting)
}

func isFile(path string) bool { _, err := os.Stat(path); return err == nil }

func TestAppIsHeldUntilTheGateOpens(t *testing.T) {
	t.Parallel()
	c := newContainer(t)
	a := c.start("web", "cat; touch "+c.inst.RunDir+"/started; exit 7", "from stdin")
	gate := c.openGate() // after the app: the order of sidecars and app is undefined
	meshtest.Eventually(t, "the app at the gate", func() bool { return gate.waitingCount() == 1 })
	if isFile(c.inst.RunDir + "/started") {
		t.Fatal("the app started before the gate was open")
	}
	gate.Open()
	status, output := a.end()
	if status != 7 || output != "from stdin" {
		t.Errorf("exit status %d, output %q", status, output)
	}
	select {
	case <-gate.Ended:
	case <-time.After(5 * time.Second):
		t.Error("the gate does not know that the app has ended")
	}
}

func TestSignals(t *testing.T) {
	t.Parallel()
	const shell = `trap 'echo usr1' USR1; trap 'echo term; exit 3' TERM; touch "$0"; while :; do sleep 0.01; done`
	within := func(t *testing.T, c *container, command string) (*Gate, *app) {
		gate := c.openGate()
		gate.Open()
		started := c.inst.RunDir + "/started"
		a := c.start("web", strings.ReplaceAll(command, `"$0"`, started), "")
		meshtest.Eventually(t, "the app running", func() bool { return isFile(started) })
		return gate, a
	}
	running := func(t *testing.T, command string) (*Gate, *app) { return within(t, newContainer(t), command) }
	t.Run("SIGTERM waits for the proxy, others do not", func(t *testing.T) {
		t.Parallel()
		gate, a := running(t, shell)
		a.signal(syscall.SIGTERM)
		a.signal(syscall.SIGUSR1)
		<-time.After(100 * time.Millisecond)
		gate.Stop()
		status, output := a.end()
		if status != 3 || output != "usr1\nterm\n" {
			t.Errorf("exit status %d, output %q", status, output)
		}
	})
	t.Run("a second SIGTERM is passed on after the first", func(t *testing.T) {
		t.Parallel()
		gate, a := running(t, `n=0; trap 'n=$((n+1)); echo term; [ $n = 1 ] || exit 4; true' TERM; touch "$0"; while :; do sleep 0.01; done`)
		a.signal(syscall.SIGTERM)
		gate.Stop()
		<-time.After(300 * time.Millisecond)
		a.signal(syscall.SIGTERM)
		if status, output := a.end(); status != 4 || output != "term\nterm\n" {
			t.Errorf("exit status %d, output %q", status, output)
		}
	})
	t.Run("an app that ignores SIGTERM is killed", func(t *testing.T) {
		t.Parallel()
		gate, a := running(t, `trap '' TERM; touch "$0"; while :; do sleep 0.01; done`)
		a.signal(syscall.SIGTERM)
		gate.Stop()
		status, output := a.end()
		if status != 137 || !strings.Contains(output, "has not ended 8 s after SIGTERM and is killed") {
			t.Errorf("exit status %d, output %q", status, output)
		}
	})
	t.Run("with a longer grace it is killed later", func(t *testing.T) {
		t.Parallel()
		c := newContainer(t)
		const config = `{"services":[{"id":"s","process":"web"}],"lifecycle":{"hold_app":true,"drain_delay":300000000,"drain_timeout":3000000000,"grace":15000000000}}`
		if err := os.WriteFile(c.inst.Path(droplet.ConfigFile), []byte(config), 0o644); err != nil {
			t.Fatal(err)
		}
		gate, a := within(t, c, `trap '' TERM; touch "$0"; while :; do sleep 0.01; done`)
		begun := time.Now()
		a.signal(syscall.SIGTERM)
		gate.Stop()
		status, output := a.end()
		if status != 137 || !strings.Contains(output, "has not ended 12 s after SIGTERM and is killed") || time.Since(begun) < 12*time.Second {
			t.Errorf("exit status %d, output %q after %v", status, output, time.Since(begun))
		}
	})
	t.Run("SIGTERM is passed on when the proxy is gone", func(t *testing.T) {
		t.Parallel()
		gate, a := running(t, shell)
		a.signal(syscall.SIGTERM)
		gate.mutex.Lock()
		for conn := range gate.running {
			conn.Close()
		}
		gate.mutex.Unlock()
		if status, output := a.end(); status != 3 || output != "term\n" {
			t.Errorf("exit status %d, output %q", status, output)
		}
	})
	t.Run("an app that a signal ends is 128+n", func(t *testing.T) {
		t.Parallel()
		_, a := running(t, `touch "$0"; kill -KILL $$`)
		if status, _ := a.end(); status != 128+9 {
			t.Errorf("exit status %d", status)
		}
	})
	t.Run("SIGTERM while held", func(t *testing.T) {
		t.Parallel()
		c := newContainer(t)
		gate := c.openGate()
		a := c.start("web", "touch "+c.inst.RunDir+"/started", "")
		meshtest.Eventually(t, "the app at the gate", func() bool { return gate.waitingCount() == 1 })
		a.signal(syscall.SIGTERM)
		if status, _ := a.end(); status != 128+15 {
			t.Errorf("exit status %d", status)
		}
		if isFile(c.inst.RunDir + "/started") {
			t.Error("the app was started")
		}
	})
	t.Run("SIGTERM while there is no proxy yet", func(t *testing.T) {
		t.Parallel()
		c := newContainer(t)
		a := c.start("web", "true", "")
		// The signal must come when the handler is there, which is before the
		// first look for the proxy; a listener that never answers shows it.
		gate := c.openGate()
		meshtest.Eventually(t, "the app at the gate", func() bool { return gate.waitingCount() == 1 })
		gate.Listener.Close()
		a.signal(syscall.SIGTERM)
		if status, _ := a.end(); status != 128+15 {
			t.Errorf("exit status %d", status)
		}
	})
}

// TestCommandsThatAreNotTheApps run at once, without a proxy, in place of
// `mesh app`: their parent is this test.
func TestCommandsThatAreNotTheApps(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ process, command, says string }{
		"a task":                           {"", "declared", "mesh: a task gets no sidecars"},
		"a sidecar of another buildpack":   {"web", "other-sidecar", ""},
		"a process type without a service": {"worker", "declared", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newContainer(t)
			bin := t.TempDir()
			script := "#!/bin/sh\necho parent $PPID\n"
			if err := os.WriteFile(filepath.Join(bin, test.command), []byte(script), 0o755); err != nil {
				t.Fatal(err)
			}
			a := &app{exec.Command(os.Args[0], "bash", "-c", test.command), t, &strings.Builder{}}
			a.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "MESH_TEST_PROGRAM="+c.inst.Program("mesh"),
				fmt.Sprintf(`VCAP_APPLICATION={"process_type":%q}`, test.process))
			a.Stdout, a.Stderr = a.output, a.output
			if err := a.Start(); err != nil {
				t.Fatal(err)
			}
			status, output := a.end()
			if status != 0 || !strings.Contains(output, fmt.Sprintf("parent %d\n", os.Getpid())) {
				t.Errorf("exit status %d, output %q, want the parent %d", status, output, os.Getpid())
			}
			if !strings.Contains(output, test.says) {
				t.Errorf("output %q does not say %q", output, test.says)
			}
		})
	}
}

func TestKindOf(t *testing.T) {
	t.Parallel()
	c := newContainer(t)
	c.inst.Process = "web"
	config, err := c.inst.Config()
	if err != nil {
		t.Fatal(err)
	}
	for command, want := range map[string]string{
		"declared": KindApp, "released": KindApp, "other-sidecar": kindForeign, "from cf push -c": kindMaybe,
	} {
		if got, err := kindOf(c.inst, config, command); got != want || err != nil {
			t.Errorf("kindOf(%q) = %q, %v, want %q", command, got, err, want)
		}
	}
}

// TestUndeclaredCommands: beside a declared command they are somebody's
// sidecar, alone they are the app.
func TestUndeclaredCommands(t *testing.T) {
	t.Parallel()
	c := newContainer(t)
	gate := c.openGate()
	declared := c.start("web", "declared", "") // fails: there is no such program
	undeclared := c.start("web", "echo parent $PPID", "")
	meshtest.Eventually(t, "both at the gate", func() bool { return gate.waitingCount() == 2 })
	gate.Open()
	if _, output := undeclared.end(); output != fmt.Sprintf("parent %d\n", os.Getpid()) {
		t.Errorf("the sidecar's output is %q, want the parent %d", output, os.Getpid())
	}
	if status, _ := declared.end(); status != 127 {
		t.Errorf("the app's exit status is %d", status)
	}

	c = newContainer(t)
	gate = c.openGate()
	gate.Open()
	alone := c.start("web", "echo parent $PPID", "")
	if _, output := alone.end(); output != fmt.Sprintf("parent %d\n", alone.Process.Pid) {
		t.Errorf("the app's output is %q, want the parent %d", output, alone.Process.Pid)
	}
}
