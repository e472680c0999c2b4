package mesh

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/consul-mesh/mesh-buildpack/integration/cell"
	"github.com/consul-mesh/mesh-buildpack/integration/foundation"
)

// TestLastAnswer: an app that ends as soon as it has written its answer ends
// before a slow caller has read it. Its Envoy goes on until it has passed on
// everything.
func TestLastAnswer(t *testing.T) { inBothModes(t, lastAnswer) }

func lastAnswer(t *testing.T, m mode) {
	stop := func(t *testing.T, app *cell.RunningApp) {
		if err := app.Stop(deadline(t)); err != nil {
			t.Fatal(err)
		}
	}
	endItself := func(t *testing.T, app *cell.RunningApp) { signal(t, app.Instance(0), "./echo", syscall.SIGTERM) }
	for _, test := range []struct {
		name, protocol string
		end            func(*testing.T, *cell.RunningApp)
	}{{"http", "http", stop}, {"tcp", "tcp", stop}, {"by-itself", "http", endItself}} {
		t.Run(test.name, func(t *testing.T) {
			const size = 24 << 20
			name, protocol := "last-"+test.name, test.protocol
			back := onTerm(t, m.echo(t, name, fmt.Sprintf("protocol = %q", protocol)), "finish")
			back.Dir = addLines(t, back.Dir, `lifecycle { drain_timeout = "100ms" }`)
			running := m.start(t, back)
			front := m.start(t, m.echo(t, "reads-"+test.name, fmt.Sprintf("upstream %q { port = 9001 }", name)), name)
			eventually(t, "the answer comes through the mesh", calls(front, 9001))

			ctx := deadline(t)
			read := make(chan string, 1)
			go func() {
				// A second passes before the first byte is read, two before the last.
				output, _, err := front.Instance(0).SSH(ctx, fmt.Sprintf(
					`exec 3<>/dev/tcp/127.0.0.1/9001; printf 'GET /slow?bytes=%d HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n' >&3; sleep 1; head -c 8000000 <&3 | wc -c; sleep 1; wc -c <&3`, size))
				read <- fmt.Sprintln(output, err)
			}()
			<-time.After(300 * time.Millisecond)
			test.end(t, running)
			var first, rest int
			output := <-read
			if _, err := fmt.Sscan(output, &first, &rest); err != nil || first+rest < size {
				t.Errorf("%d of %d bytes have come: %s\n%s", first+rest, size, output, tail(running))
			}
		})
	}
}

// TestCallsOnTheWayOut: what an app calls while it finishes, it calls through
// its mesh until its last moment.
func TestCallsOnTheWayOut(t *testing.T) { inBothModes(t, callsOnTheWayOut) }

func callsOnTheWayOut(t *testing.T, m mode) {
	m.start(t, m.echo(t, "asked"))
	app := onTerm(t, m.echo(t, "parting", `upstream "asked" { port = 9001 }`), "finish -farewell http://127.0.0.1:9001/")
	running := m.start(t, app, "asked")
	eventually(t, "the upstream answers", calls(running, 9001))
	if err := running.Stop(deadline(t)); err != nil {
		t.Fatal(err)
	}
	line, err := running.WaitLog(deadline(t), "farewell: ")
	if err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`farewell: [1-9]\d* calls, 0 failed`).MatchString(line.Text) {
		t.Errorf("%s\n%s", line.Text, tail(running))
	}
}

// TestKilledSidecar: an instance of which a sidecar is killed is out of the catalog
// before its session could have ended, or its agent been given up.
func TestKilledSidecar(t *testing.T) { inBothModes(t, killedSidecar) }

func killedSidecar(t *testing.T, m mode) {
	sidecars := []string{"mesh proxy", "mesh agent"}
	for _, sidecar := range sidecars[:1+m.agents] {
		t.Run(sidecar, func(t *testing.T) {
			source := m.echo(t, "orphan")
			if sidecar == "mesh agent" { // it leaves while the app ends, which takes this one 8 s
				source.Command = "exec ./echo -on-term ignore"
			}
			bound := unrenewed
			if m.agents > 0 {
				bound = unmet
			}
			app := m.start(t, source)
			waitLog(t, app, "passing, in rotation")
			if m.agents > 0 {
				wait(t, 7) // an agent that leaves sooner puts its node back
			}
			dead := app.Instance(0)
			if err := nodesAre(deadline(t), []*cell.Instance{dead}); err != nil {
				t.Fatal(err)
			}
			kill(t, dead, sidecar)
			within(t, bound, "the catalog does not have it", notInCatalog(shared, dead))
			if m.agents == 0 {
				waitLog(t, app, takenOut)
			}
		})
	}
}

// unmet is the least that the node of an agent that is gone without a word is in
// the catalog: gossip gives it up after 6 s, and servers forget it 40 s after that.
const unmet = 40 * time.Second

const takenOut = "the proxy was killed, and this instance taken out of the catalog"

// notInCatalog returns nil when a mesh no longer has an instance's node.
func notInCatalog(f *foundation.Foundation, dead *cell.Instance) func(context.Context) error {
	return func(ctx context.Context) error {
		nodes, err := f.Nodes(ctx)
		if err == nil && slices.Contains(nodes, dead.App()+"-"+dead.GUID()) {
			err = fmt.Errorf("it has %v", nodes)
		}
		return err
	}
}

// kill ends a process of an instance, of which a part of the command line is
// given, as the kernel would.
func kill(t *testing.T, instance *cell.Instance, part string) {
	t.Helper()
	signal(t, instance, part, syscall.SIGKILL)
}

func signal(t *testing.T, instance *cell.Instance, part string, s syscall.Signal) {
	t.Helper()
	processes, err := instance.List()
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(find(t, processes, part), s); err != nil {
		t.Fatal(err)
	}
}

// TestSlowCheck: a check has its own timeout, at the start too, and when an agent
// is told again.
func TestSlowCheck(t *testing.T) { inBothModes(t, slowCheck) }

func slowCheck(t *testing.T, m mode) {
	app := m.echo(t, "sluggish", `check "slow" {
  http     = "/slow?ms=2300"
  timeout  = "5s"
  interval = "5s"
}`)
	running := m.start(t, app)
	eventually(t, "the sidecar is in rotation", inRotation("sluggish"))
	if m.agents == 0 {
		return
	}
	kill(t, running.Instance(0), "bin/consul agent")
	waitLog(t, running, "registered again (")
	wait(t, 7) // its first synchronisations are done
	if err := inRotation("sluggish")(deadline(t)); err != nil {
		t.Errorf("after the agent's end: %v\n%s", err, tail(running))
	}
}

// calls has an app call its upstream on a port.
func calls(app *cell.RunningApp, port int) func(context.Context) error {
	return func(ctx context.Context) error {
		response, err := shared.Route(ctx, app.App().Name, fmt.Sprintf("/call?url=http://127.0.0.1:%d/", port))
		if err == nil && !strings.Contains(response, `"app":`) {
			err = errors.New(response)
		}
		return err
	}
}

// onTerm has an echo app do something else on SIGTERM.
func onTerm(t *testing.T, app cell.App, how string) cell.App {
	t.Helper()
	if err := os.WriteFile(filepath.Join(app.Dir, "Procfile"), []byte("web: ./echo -on-term "+how+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return app
}

// addLines appends lines to an app's mesh.hcl.
func addLines(t *testing.T, dir string, lines ...string) string {
	t.Helper()
	file := filepath.Join(dir, "mesh.hcl")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(string(text)+strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}
