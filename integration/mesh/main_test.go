// Package mesh holds the integration tests of the buildpack: real Consul, real
// Envoy and real apps on a local Cloud Foundry cell.
package mesh

import (
	"context"
	"fmt"
	"os"
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
