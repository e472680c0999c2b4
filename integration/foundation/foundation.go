// Package foundation is a cell with what the project's systems need: the
// binaries on a mirror, this buildpack and a last one, a control plane of three
// Consul servers, and HotROD. Tests, demo and benchmark are written in its
// terms.
package foundation

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/consul-mesh/mesh-buildpack/integration/binaries"
	"github.com/consul-mesh/mesh-buildpack/integration/cell"
	"github.com/consul-mesh/mesh-buildpack/src/artifact"
)

// Foundation is a running cell and what is on it.
type Foundation struct {
	*cell.Cell
	Binaries binaries.Set
	// Mesh is a copy of this buildpack that names the mirror, Last a buildpack
	// that does what binary_buildpack does, or the one in the folder LAST_BUILDPACK
	// of the environment.
	Mesh, Last cell.Buildpack
	// Secure closes the control plane, if it is set before the servers start.
	Secure *Secure
	// Agentless has HotROD run without Consul agents.
	Agentless bool
	// Servers are the Consul servers, once they are started.
	Servers *cell.RunningApp

	serversApp string
	mirror     *http.Server
	work       string
	apps       *apps
}

// apps are the pushed ones.
type apps struct {
	mutex  sync.Mutex
	byName map[string]*cell.RunningApp // guarded by mutex
}

// setEnv tells the inner half of the program where the binaries are.
const setEnv = "MESH_BINARIES"

// Prepare gets everything that needs the machine's own network. It is the
// first half of a program that uses a Foundation (cell.Main).
func Prepare() error {
	set, err := binaries.Prepare(context.Background(), os.Stderr)
	if err != nil {
		return err
	}
	if err := os.Setenv(setEnv, set.Root+"\n"+set.Cache); err != nil {
		return err
	}
	_, err = cell.BuildLifecycle(os.TempDir())
	return err
}

// startupInterval is shorter than the platform's 2 s, which would be a part of
// whatever is measured; and the sooner an instance counts as running, the sooner a
// rolling deployment stops another.
const startupInterval = 50 * time.Millisecond

// New makes a foundation, inside cell.Main. The app logs go to log as they
// come, if it is not nil.
func New(log io.Writer) (*Foundation, error) { return NewWith(cell.Options{Log: log}) }

// NewWith is New with everything that can be chosen of a cell.
func NewWith(options cell.Options) (_ *Foundation, err error) {
	root, cache, _ := strings.Cut(os.Getenv(setEnv), "\n")
	f := &Foundation{
		Binaries:   binaries.Set{Root: root, Cache: cache},
		serversApp: ServersApp,
		apps:       &apps{byName: map[string]*cell.RunningApp{}},
	}
	if f.work, err = os.MkdirTemp("", "foundation"); err != nil {
		return nil, fmt.Errorf("failed to make room: %w", err)
	}
	f.Mesh = cell.Buildpack{Name: "mesh_buildpack", Dir: filepath.Join(f.work, "mesh_buildpack")}
	f.Last = cell.Buildpack{Dir: cmp.Or(os.Getenv("LAST_BUILDPACK"), filepath.Join(root, "fixtures", "procfile-buildpack"))}
	options.StartupInterval = cmp.Or(options.StartupInterval, startupInterval)
	options.SystemBuildpacks = []cell.Buildpack{f.Mesh}
	if f.Cell, err = cell.New(options); err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", f.Outside()+":80")
	if err != nil {
		return nil, fmt.Errorf("failed to serve the mirror: %w", err)
	}
	f.mirror = &http.Server{Handler: f.Binaries.Mirror(), ReadHeaderTimeout: time.Minute}
	go func() { _ = f.mirror.Serve(listener) }()
	return f, f.Binaries.CopyBuildpack(f.Mesh.Dir, "http://"+f.Outside())
}

// FirstRelease is the buildpack of 0.1.0, which binaries.PrepareFirstRelease has
// built, naming the mirror. To the platform it is the same one as Mesh, so each has
// what the other left in an app's build cache.
func (f *Foundation) FirstRelease() (cell.Buildpack, error) {
	first := cell.Buildpack{Name: f.Mesh.Name, Dir: filepath.Join(f.work, "mesh_buildpack-0.1.0")}
	return first, f.Binaries.FirstRelease().CopyBuildpack(first.Dir, "http://"+f.Outside())
}

// Close ends everything.
func (f *Foundation) Close() error {
	_ = f.mirror.Close()
	return f.Cell.Close()
}

// Dir makes a fresh folder for an app's source.
func (f *Foundation) Dir(name string) (string, error) {
	return os.MkdirTemp(f.work, name+"-")
}

// Source makes an app's source: a fixture's files with programs beside them.
func (f *Foundation) Source(fixture string, programs ...string) (string, error) {
	dir, err := f.Dir(filepath.Base(fixture))
	if err != nil {
		return "", err
	}
	return dir, f.Binaries.CopyApp(dir, fixture, programs...)
}

// Write makes an app's source of files given by path and text, with the echo
// program beside them.
func (f *Foundation) Write(files map[string]string) (string, error) {
	dir, err := f.Dir("app")
	if err != nil {
		return "", err
	}
	for path, text := range files {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, path)), 0o755); err != nil {
			return "", err
		}
		if err := os.WriteFile(filepath.Join(dir, path), []byte(text), 0o644); err != nil {
			return "", err
		}
	}
	return dir, artifact.Copy(filepath.Join(f.Binaries.Build(), "echo"), filepath.Join(dir, "echo"))
}

// Push stages an app, starts it and waits until it runs. Where the app names
// no buildpacks, it gets the mesh and a last one.
func (f *Foundation) Push(ctx context.Context, app cell.App) (*cell.RunningApp, error) {
	droplet, err := f.Stage(ctx, app)
	if err != nil {
		return nil, err
	}
	return f.Run(ctx, app, droplet)
}

// Stage stages an app with the buildpacks that Push would use.
func (f *Foundation) Stage(ctx context.Context, app cell.App) (*cell.Droplet, error) {
	if app.Buildpacks == nil {
		app.Buildpacks = []cell.Buildpack{f.Mesh, f.Last}
	}
	return f.Cell.Stage(ctx, app)
}

// Run starts a staged app and waits until it runs.
func (f *Foundation) Run(ctx context.Context, app cell.App, droplet *cell.Droplet) (*cell.RunningApp, error) {
	running, err := f.Start(ctx, app, droplet)
	if err != nil {
		return nil, err
	}
	f.apps.mutex.Lock()
	f.apps.byName[app.Name] = running
	f.apps.mutex.Unlock()
	return running, running.WaitRunning(ctx)
}

// App is a pushed app.
func (f *Foundation) App(name string) *cell.RunningApp {
	f.apps.mutex.Lock()
	defer f.apps.mutex.Unlock()
	return f.apps.byName[name]
}
