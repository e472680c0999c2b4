// Package mesh holds the integration tests of the buildpack: real Consul, real
// Envoy and real apps on a local Cloud Foundry cell.
package mesh

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/consul-mesh/mesh-buildpack/integration/cell"
	"github.com/consul-mesh/mesh-buildpack/integration/foundation"
)

// shared is the foundation of all tests of a process: one cell, one control
// plane. Each test brings its own apps and takes them away.
var shared *foundation.Foundation

// cells are enough for tests that mostly wait to keep two cores busy.
const cells = 3

func TestMain(m *testing.M) { cell.MainTests(m, cells, foundation.Prepare, run) }

func run(tests func() int) int {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var err error
	if shared, err = foundation.New(nil); err == nil {
		err = errors.Join(shared.StartServers(ctx), keepPrograms(ctx))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "failed to start the control plane:", err)
		return 1
	}
	defer shared.Close()
	return tests()
}

// kept has the build cache that every app of these tests finds at its first
// staging: fetching the programs for each would be most of all their work.
const kept = "kept"

// keepPrograms stages an app that needs them.
func keepPrograms(ctx context.Context) error {
	dir, err := shared.Write(map[string]string{"mesh.hcl": withAgent.meshFile(kept)})
	if err != nil {
		return err
	}
	droplet, err := shared.Stage(ctx, cell.App{Name: kept, Dir: dir})
	if err != nil {
		return err
	}
	return os.RemoveAll(droplet.Dir)
}

// build stages an app, with the programs in its build cache as second names of
// the same files.
func build(t *testing.T, app cell.App) *cell.Droplet {
	t.Helper()
	cache := shared.CacheDir(app.Name)
	if output, err := exec.Command("cp", "--archive", "--link", shared.CacheDir(kept), cache).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	droplet, err := shared.Stage(t.Context(), app)
	if err := errors.Join(err, os.RemoveAll(cache)); err != nil {
		t.Fatal(err)
	}
	return droplet
}

func stage(t *testing.T, app cell.App) *cell.Droplet {
	t.Helper()
	droplet := build(t, app)
	t.Cleanup(func() {
		if err := os.RemoveAll(droplet.Dir); err != nil {
			t.Error(err)
		}
	})
	return droplet
}

func write(t *testing.T, name string, files map[string]string) cell.App {
	t.Helper()
	dir, err := shared.Write(files)
	if err != nil {
		t.Fatal(err)
	}
	return cell.App{Name: name, Dir: dir}
}

// patience bounds a wait for what takes a few seconds on a machine that has nothing
// else to do.
const patience = 2 * time.Minute

// answered bounds the time until a request counts as lost: where there is much else
// to do, an answer that is late is no fault.
const answered = 20 * time.Second

// deadline bounds one wait of a test.
func deadline(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
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
