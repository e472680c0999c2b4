package mesh

import (
	"context"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/consul-mesh/mesh-buildpack/integration/cell"
	"github.com/consul-mesh/mesh-buildpack/integration/container"
	"github.com/consul-mesh/mesh-buildpack/integration/load"
)

type ctx = context.Context

func nodeOf(app *cell.RunningApp) string {
	return app.App().Name + "-" + app.Instance(0).GUID()
}

// TestLoopback is S10: an app that binds loopback is reached through its
// sidecar only, also where a policy allows its port.
func TestLoopback(t *testing.T) { inBothModes(t, loopback) }

func loopback(t *testing.T, m mode) {
	back := m.echo(t, "loopback", `protocol = "http"`)
	back.Command = "./echo -bind 127.0.0.1"
	back.HealthCheck = cell.HealthProcess
	backend := m.start(t, back)
	caller := m.start(t, m.echo(t, "caller", `upstream "loopback" { port = 9001 }`), "loopback")
	if err := shared.Allow(cell.Policy{Source: "caller", Destination: "loopback", Protocol: "tcp", Start: 8080}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the caller is answered through the mesh", func(ctx ctx) error {
		answer, err := shared.Route(ctx, "caller", "/call?url=http://127.0.0.1:9001/")
		if err != nil {
			return err
		}
		if !strings.Contains(answer, `"app":"loopback"`) || !strings.Contains(answer, `"reached_on":"127.0.0.1:8080"`) {
			return fmt.Errorf("the answer is %s", answer)
		}
		return nil
	})
	for _, port := range []int{8080, 8500, 8502, 19000} {
		if err := shared.Allow(cell.Policy{Source: "caller", Destination: "loopback", Protocol: "tcp", Start: port}); err != nil {
			t.Fatal(err)
		}
		conn, err := caller.Instance(0).Dial(deadline(t), "tcp", fmt.Sprintf("%s:%d", backend.Instance(0).Address(), port))
		if err == nil {
			conn.Close()
			t.Errorf("port %d can be reached from another container", port)
		}
	}
}

const answersPortCheck = "lifecycle { port_check = true }\n"

// TestPortCheck: an app on loopback runs for the platform, by its port check, from
// when it passes in the mesh, and nobody gets past its sidecar.
func TestPortCheck(t *testing.T) { inBothModes(t, portCheck) }

func portCheck(t *testing.T, m mode) {
	app := write(t, "checked-"+m.name, map[string]string{
		"mesh.hcl": m.meshFile("checked") + answersPortCheck,
		"Procfile": "web: sleep 2; exec ./echo -bind 127.0.0.1\n",
	})
	running := m.start(t, app)
	const runs = "Container became healthy"
	waitLog(t, running, runs)
	if before, _, _ := strings.Cut(tail(running), runs); !strings.Contains(before, "passing, in rotation") {
		t.Errorf("it ran for the platform before it passed in the mesh:\n%s", tail(running))
	}
	caller := m.start(t, m.echo(t, "caller"))
	policy := cell.Policy{Source: "caller", Destination: app.Name, Protocol: "tcp", Start: 8080}
	if err := shared.Allow(policy); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = shared.Disallow(policy) })
	conn, err := caller.Instance(0).Dial(deadline(t), "tcp", running.Instance(0).Address()+":8080")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	if n, err := conn.Read(make([]byte, 1)); n > 0 || os.IsTimeout(err) {
		t.Errorf("somebody answers past the sidecar: %d bytes, %v", n, err)
	}
}

// TestPortTakenByTheApp: an app that listens on all addresses answers the port check
// itself, also where mesh.hcl asks the sidecars to.
func TestPortTakenByTheApp(t *testing.T) { inBothModes(t, portTakenByTheApp) }

func portTakenByTheApp(t *testing.T, m mode) {
	running := m.start(t, write(t, "open-"+m.name, map[string]string{
		"mesh.hcl": m.meshFile("open") + answersPortCheck,
		"Procfile": "web: ./echo\n",
	}))
	waitLog(t, running, "port_check: somebody listens on")
}

// TestFailingCheck: while the app's own checks fail, callers are sent
// elsewhere.
func TestFailingCheck(t *testing.T) { inBothModes(t, failingCheck) }

func failingCheck(t *testing.T, m mode) {
	app := m.echo(t, "health", `protocol = "grpc"`, `check "server" { grpc = "" }`, `check "service" { grpc = "echo" }`, `check "port" { tcp = true }`)
	app.Command = "exec ./echo -grpc"
	running := m.start(t, app)
	eventually(t, "it is in rotation", inRotation("health"))
	processes, err := running.Instance(0).List()
	if err != nil {
		t.Fatal(err)
	}
	pid := find(t, processes, "./echo -grpc")
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is out of rotation", func(ctx ctx) error {
		if inRotation("health")(ctx) == nil {
			return fmt.Errorf("it is in rotation")
		}
		return nil
	})
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is back", inRotation("health"))
}

// find is the process, as this test sees it, whose command line has a part.
func find(t *testing.T, processes []container.ProcessInfo, part string) int {
	t.Helper()
	for _, process := range processes {
		if line := strings.Join(process.Args, " "); strings.Contains(line, part) && !strings.HasPrefix(line, "bash") && !strings.Contains(line, "mesh app") {
			return process.HostPid
		}
	}
	t.Fatalf("there is no process with %q", part)
	return 0
}

// TestOutOfRotation: an instance whose Envoy hangs gets no traffic, and comes
// back.
func TestOutOfRotation(t *testing.T) { inBothModes(t, outOfRotation) }

func outOfRotation(t *testing.T, m mode) {
	running, _ := m.pair(t, 1)
	processes, err := running.Instance(0).List()
	if err != nil {
		t.Fatal(err)
	}
	envoy := find(t, processes, "bin/envoy")
	signal := func(sig syscall.Signal) {
		t.Helper()
		if err := syscall.Kill(envoy, sig); err != nil {
			t.Fatal(err)
		}
	}
	signal(syscall.SIGSTOP)
	eventually(t, "it is out of rotation", func(ctx ctx) error {
		if inRotation(m.back)(ctx) == nil {
			return fmt.Errorf("it is in rotation")
		}
		return nil
	})
	signal(syscall.SIGCONT)
	eventually(t, "it is back", inRotation(m.back))
}

// TestRollingReplaceLosesNothing: while requests come in through the mesh, three
// instances are replaced by a rolling deployment, and then evacuated one by one.
func TestRollingReplaceLosesNothing(t *testing.T) { inBothModes(t, rollingReplaceLosesNothing) }

func rollingReplaceLosesNothing(t *testing.T, m mode) {
	backend, caller := m.pair(t, 3)
	requests := load.Start(load.Plan{Kind: load.HTTP, Target: backURL + "slow?ms=10", Rate: 200, Timeout: answered, Dial: caller.Instance(0).Dial})
	soon, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	if err := backend.Deploy(soon, backend.Droplet()); err != nil {
		t.Error(err)
	}
	for i := range 3 {
		if err := backend.Evacuate(soon, i); err != nil {
			t.Error(err)
		}
	}
	result := requests.Stop()
	t.Log(result)
	if result.Lost > 0 {
		t.Errorf("lost: %v", result)
	}
	eventually(t, "the catalog has what runs", func(ctx ctx) error { return nodesOf(ctx, backend) })
}

// TestStarvedCell: while neither Envoy nor the proxy that looks at it is run, which is
// how a cell short of processors looks to both, nothing is held against Envoy.
func TestStarvedCell(t *testing.T) { inBothModes(t, starvedCell) }

func starvedCell(t *testing.T, m mode) {
	running, _ := m.pair(t, 1)
	processes, err := running.Instance(0).List()
	if err != nil {
		t.Fatal(err)
	}
	proxy, envoy := find(t, processes, "mesh proxy"), find(t, processes, "bin/envoy")
	for range 3 {
		for _, step := range []struct {
			pid   int
			sig   syscall.Signal
			pause time.Duration
		}{
			{envoy, syscall.SIGSTOP, 550 * time.Millisecond}, // the proxy looks at it
			{proxy, syscall.SIGSTOP, 1500 * time.Millisecond},
			{proxy, syscall.SIGCONT, 50 * time.Millisecond},
			{envoy, syscall.SIGCONT, time.Second},
		} {
			if err := syscall.Kill(step.pid, step.sig); err != nil {
				t.Fatal(err)
			}
			<-time.After(step.pause)
		}
	}
	if log := tail(running); strings.Contains(log, "out of rotation, Envoy is not ready") {
		t.Errorf("Envoy was blamed:\n%s", log)
	}
	eventually(t, "it is in rotation", inRotation(m.back))
}

// TestClosedPort: an app without a check that closes its port gets no traffic until it
// listens again.
func TestClosedPort(t *testing.T) { inBothModes(t, closedPort) }

func closedPort(t *testing.T, m mode) {
	running := m.start(t, write(t, "reloads-"+m.name, map[string]string{
		"mesh.hcl": m.meshFile("reloads", `protocol = "http"`),
		"Procfile": "web: while :; do ./echo; sleep 8; done\n",
	}))
	eventually(t, "it is in rotation", inRotation("reloads"))
	processes, err := running.Instance(0).List()
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(find(t, processes, "./echo"), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is out of rotation", func(ctx ctx) error {
		if inRotation("reloads")(ctx) == nil {
			return fmt.Errorf("it is in rotation")
		}
		return nil
	})
	eventually(t, "it is back", inRotation("reloads"))
	if log := tail(running); !strings.Contains(log, "out of rotation: the app does not listen on 127.0.0.1:8080 any more") {
		t.Errorf("its log does not say why:\n%s", log)
	}
}
