// Package mesh holds the integration tests of the buildpack: real Consul, real
// Envoy and real apps on a local Cloud Foundry cell.
package mesh

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/consul-mesh/mesh-buildpack/integration/cell"
	"github.com/consul-mesh/mesh-buildpack/integration/foundation"
)

// shared is the foundation of all tests: one cell, one control plane. Each
// test brings its own apps and takes them away.
var shared *foundation.Foundation

func TestMain(m *testing.M) { cell.Main(foundation.Prepare, func() int { return run(m) }) }

func run(m *testing.M) int {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var err error
	if shared, err = foundation.New(nil); err == nil {
		err = shared.StartServers(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "failed to start the control plane:", err)
		return 1
	}
	defer shared.Close()
	return m.Run()
}

// start stages and starts an app of the test's own and takes it away when the
// test ends, with its policies. upstreams are the apps that it calls.
func start(t *testing.T, app cell.App, upstreams ...string) *cell.RunningApp {
	t.Helper()
	running := launch(t, app, upstreams...)
	if err := running.WaitRunning(deadline(t)); err != nil {
		t.Fatalf("%s does not run: %v\n%s", app.Name, err, tail(running))
	}
	return running
}

// launch is start without the wait.
func launch(t *testing.T, app cell.App, upstreams ...string) *cell.RunningApp {
	t.Helper()
	return launchDroplet(t, app, stage(t, app), upstreams...)
}

// launchDroplet is launch for an app that is staged.
func launchDroplet(t *testing.T, app cell.App, droplet *cell.Droplet, upstreams ...string) *cell.RunningApp {
	t.Helper()
	policies := foundation.MeshPolicies(map[string][]string{app.Name: upstreams})
	for _, upstream := range upstreams {
		for _, protocol := range []string{"tcp", "udp"} {
			policies = append(policies,
				cell.Policy{Source: app.Name, Destination: upstream, Protocol: protocol, Start: 8301},
				cell.Policy{Source: upstream, Destination: app.Name, Protocol: protocol, Start: 8301})
		}
	}
	if text, err := os.ReadFile(filepath.Join(app.Dir, "mesh.hcl")); err == nil && strings.Contains(string(text), "agentless") {
		policies = foundation.AgentlessPolicies(map[string][]string{app.Name: upstreams})
	}
	if err := shared.Allow(policies...); err != nil {
		t.Fatal(err)
	}
	running, err := shared.Start(t.Context(), app, droplet)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if t.Failed() {
			t.Log(tail(running))
		}
		if err := running.Delete(ctx); err != nil {
			t.Errorf("failed to delete %s: %v", app.Name, err)
		}
		if err := shared.Disallow(policies...); err != nil {
			t.Error(err)
		}
	})
	return running
}

func stage(t *testing.T, app cell.App) *cell.Droplet {
	t.Helper()
	// Droplet and build cache weigh half a gigabyte of memory together.
	t.Cleanup(func() {
		if err := os.RemoveAll(shared.CacheDir(app.Name)); err != nil {
			t.Error(err)
		}
	})
	droplet, err := shared.Stage(t.Context(), app)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(droplet.Dir); err != nil {
			t.Error(err)
		}
	})
	return droplet
}

// echo is an app that runs the echo program as one service of its own name,
// with more lines inside the service block.
func echo(t *testing.T, name string, lines ...string) cell.App {
	t.Helper()
	return write(t, name, map[string]string{
		"mesh.hcl": meshFile(name, lines...),
		"Procfile": "web: ./echo\n",
	})
}

func meshFile(name string, lines ...string) string {
	return fmt.Sprintf("service %q {\n%s\n}\nconsul {\n  datacenter = \"cf\"\n}\n", name, strings.Join(lines, "\n"))
}

func write(t *testing.T, name string, files map[string]string) cell.App {
	t.Helper()
	dir, err := shared.Write(files)
	if err != nil {
		t.Fatal(err)
	}
	return cell.App{Name: name, Dir: dir}
}

// deadline bounds one wait of a test.
func deadline(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func eventually(t *testing.T, what string, condition func(context.Context) error) {
	t.Helper()
	if err := foundation.Eventually(deadline(t), what, condition); err != nil {
		t.Fatal(err)
	}
}

func waitLog(t *testing.T, app *cell.RunningApp, text string) {
	t.Helper()
	if _, err := app.WaitLog(deadline(t), text); err != nil {
		t.Fatal(err)
	}
}

func tail(app *cell.RunningApp) string {
	lines := app.Logs()
	var text strings.Builder
	for _, line := range lines[max(0, len(lines)-60):] {
		fmt.Fprintln(&text, line)
	}
	return text.String()
}
