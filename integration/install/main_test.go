// Package install tests the three ways to install the buildpack: by git URL,
// with a zip and with a cached zip, each made as docs/operators.md says, in
// every place that a buildpack can have.
package install

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/consul-mesh/mesh-buildpack/integration/binaries"
	"github.com/consul-mesh/mesh-buildpack/integration/cell"
	"github.com/consul-mesh/mesh-buildpack/integration/foundation"
	"github.com/consul-mesh/mesh-buildpack/src/artifact"
)

var (
	// shared is the foundation of all tests: one cell, one control plane.
	shared *foundation.Foundation
	// checkout is a copy of the repository, where the commands of
	// docs/operators.md have run.
	checkout string
	// version is that of the buildpack.
	version string
)

func TestMain(m *testing.M) { cell.Main(prepare, func() int { return run(m) }) }

// prepare gets what needs the machine's own network: the modules that packaging
// takes, and the Go that a stack does not have.
func prepare() error {
	if err := foundation.Prepare(); err != nil {
		return err
	}
	for _, program := range []string{"curl", "unzip"} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("every stack has %s, this machine has not: %w", program, err)
		}
	}
	set, err := binaries.Find()
	if err != nil {
		return err
	}
	return set.GetModules(context.Background())
}

func run(m *testing.M) int {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	var err error
	if shared, err = foundation.New(nil); err == nil {
		err = errors.Join(checkOut(), shared.StartServers(ctx))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "failed to prepare:", err)
		return 1
	}
	defer shared.Close()
	if err := runDocument(); err != nil {
		fmt.Fprintln(os.Stderr, "a command of docs/operators.md fails:", err)
		return 1
	}
	return m.Run()
}

// checkOut makes checkout: the files as they are, committed or not, as one
// commit. A platform team's mirror.yml is there too.
func checkOut() error {
	var err error
	if checkout, err = shared.Dir("checkout"); err != nil {
		return err
	}
	root := shared.Binaries.Root
	files, err := command(root, "git", "ls-files", "--cached", "--others", "--exclude-standard")
	if err != nil {
		return err
	}
	for name := range strings.Lines(files) {
		name = strings.TrimSpace(name)
		err := artifact.Copy(filepath.Join(root, name), filepath.Join(checkout, name))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	for _, args := range [][]string{
		{"init", "--quiet"}, {"add", "--all"},
		{"-c", "user.name=test", "-c", "user.email=test@localhost", "commit", "--quiet", "--message", "test"},
	} {
		if _, err := command(checkout, "git", args...); err != nil {
			return err
		}
	}
	text, err := os.ReadFile(filepath.Join(checkout, "VERSION"))
	if err != nil {
		return err
	}
	version = strings.TrimSpace(string(text))
	mirrored, err := shared.Binaries.MirrorManifest("http://"+shared.Outside(), true)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(checkout, "mirror.yml"), mirrored, 0o644)
}

// command runs a program and returns what it prints.
func command(dir, name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	output, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, output)
	}
	return string(output), nil
}

func must(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	output, err := command(dir, name, args...)
	if err != nil {
		t.Fatal(err)
	}
	return output
}

// zipPath is a zip that a command of docs/operators.md has made.
func zipPath(kind string) string {
	return filepath.Join(checkout, "build", "mesh_buildpack"+kind+"-cflinuxfs4-v"+version+".zip")
}

// unpacked is a buildpack made of a zip, as a cell of the platform unpacks it.
func unpacked(t *testing.T, path string) cell.Buildpack {
	t.Helper()
	dir, err := shared.Dir("unpacked")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	must(t, dir, "unzip", "-q", path)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return cell.Buildpack{Name: "mesh_buildpack", Dir: dir}
}

// mirrored is the zip without binaries, whose manifest names the mirror.
func mirrored(t *testing.T) cell.Buildpack {
	t.Helper()
	if err := makeMirrored(); err != nil {
		t.Fatal(err)
	}
	return unpacked(t, filepath.Join(checkout, "mirrored", filepath.Base(zipPath(""))))
}

var makeMirrored = sync.OnceValue(func() error {
	_, err := command(checkout, "go", "run", "./src/cmd/package", "-manifest", "mirror.yml", "-out", "mirrored")
	return err
})

// frontend is HotROD's.
func frontend(t *testing.T, buildpacks ...cell.Buildpack) cell.App {
	t.Helper()
	source, err := shared.Source("hotrod/frontend", shared.Binaries.HotROD())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(source) })
	return cell.App{Name: "frontend", Dir: source, Buildpacks: buildpacks}
}

func stage(t *testing.T, app cell.App) (*cell.Droplet, error) {
	t.Helper()
	droplet, err := shared.Cell.Stage(t.Context(), app)
	if err == nil {
		t.Cleanup(func() { os.RemoveAll(droplet.Dir) })
	}
	return droplet, err
}

// forget removes the app's build cache when the test ends: it weighs as much
// as its droplet.
func forget(t *testing.T, app cell.App) {
	t.Cleanup(func() { os.RemoveAll(shared.CacheDir(app.Name)) })
}

// runs starts a staged frontend and asks it for its page.
func runs(t *testing.T, app cell.App, droplet *cell.Droplet) {
	t.Helper()
	policies := foundation.MeshPolicies(map[string][]string{app.Name: nil})
	if err := shared.Allow(policies...); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	running, err := shared.Start(ctx, app, droplet)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		if err := errors.Join(running.Stop(ctx), shared.Disallow(policies...)); err != nil {
			t.Error(err)
		}
	}()
	if err := running.WaitRunning(ctx); err != nil {
		t.Fatalf("it does not run: %v\n%v", err, running.Logs())
	}
	page, err := shared.Route(ctx, app.Name, "/")
	if err != nil || !strings.Contains(page, "HotROD") {
		t.Errorf("the frontend answers %.200q: %v", page, err)
	}
	err = foundation.Eventually(ctx, "the mesh sends it requests", func(ctx context.Context) error {
		healthy, err := shared.Healthy(ctx, app.Name)
		if err == nil && len(healthy) != 1 {
			err = fmt.Errorf("its instances are %v", healthy)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// fails asserts that staging fails with a message that has all parts.
func fails(t *testing.T, app cell.App, parts ...string) {
	t.Helper()
	_, err := stage(t, app)
	if err == nil {
		t.Fatal("staged without an error")
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("the error lacks %q:\n%v", part, err)
		}
	}
}

// serve serves on the outside network until the test ends.
func serve(t *testing.T, handler http.Handler) (address string) {
	t.Helper()
	listener, err := net.Listen("tcp", shared.Outside()+":0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: time.Minute}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { server.Close() })
	return listener.Addr().String()
}
