package mesh

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/consul-mesh/mesh-buildpack/integration/cell"
	"github.com/consul-mesh/mesh-buildpack/integration/foundation"
)

// mode is a way to be in the mesh: by an agent in each container, or without.
type mode struct {
	name   string
	consul string // the block consul of mesh.hcl
	// The apps of most tests: front calls back on frontPort.
	back, front string
	agents      int // in each container
	policies    func(upstreams map[string][]string) []cell.Policy
	// gossip is whether app and upstreams are members that talk to each other.
	gossip bool
}

var (
	withAgent = mode{
		name: "agent", back: "back", front: "front", agents: 1, gossip: true, policies: foundation.MeshPolicies,
		consul: fixtureConsul,
	}
	agentless = mode{
		name: "agentless", back: "direct-back", front: "direct-front", policies: foundation.AgentlessPolicies,
		consul: "consul {\n" + foundation.AgentlessLines + "\n}\n",
	}
)

// fixtureConsul is the block consul of the apps in fixtures.
const fixtureConsul = "consul {\n  datacenter = \"cf\"\n}\n"

// Tests that are about neither way use an agent.
var start, launch = withAgent.start, withAgent.launch

// inBothModes runs a test in each mode. What it shows holds for both.
func inBothModes(t *testing.T, test func(t *testing.T, m mode)) {
	t.Helper()
	for _, m := range []mode{withAgent, agentless} {
		t.Run(m.name, func(t *testing.T) { test(t, m) })
	}
}

// start stages and starts an app of the test's own and stops it when the test ends,
// without its policies from then on. upstreams are the apps that it calls.
func (m mode) start(t *testing.T, app cell.App, upstreams ...string) *cell.RunningApp {
	t.Helper()
	return running(t, m.launch(t, app, upstreams...))
}

// running waits until an app runs.
func running(t *testing.T, app *cell.RunningApp) *cell.RunningApp {
	t.Helper()
	if err := app.WaitRunning(deadline(t)); err != nil {
		t.Fatalf("%s does not run: %v\n%s", app.App().Name, err, tail(app))
	}
	return app
}

// launch is start without the wait.
func (m mode) launch(t *testing.T, app cell.App, upstreams ...string) *cell.RunningApp {
	t.Helper()
	return m.launchDroplet(t, app, stage(t, app), upstreams...)
}

// launchDroplet is launch for an app that is staged.
func (m mode) launchDroplet(t *testing.T, app cell.App, droplet *cell.Droplet, upstreams ...string) *cell.RunningApp {
	t.Helper()
	policies := m.policies(map[string][]string{app.Name: upstreams})
	for _, upstream := range upstreams {
		for _, protocol := range []string{"tcp", "udp"} {
			if !m.gossip {
				break
			}
			policies = append(policies,
				cell.Policy{Source: app.Name, Destination: upstream, Protocol: protocol, Start: 8301},
				cell.Policy{Source: upstream, Destination: app.Name, Protocol: protocol, Start: 8301})
		}
	}
	if err := shared.Allow(policies...); err != nil {
		t.Fatal(err)
	}
	running, err := shared.Start(t.Context(), app, droplet)
	if err != nil {
		t.Fatal(err)
	}
	together.add(t, running)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		together.stop(ctx, t)
		if t.Failed() {
			t.Log(tail(running))
		}
		// Deleting it would end the policies from other apps to it.
		if err := running.Stop(ctx); err != nil {
			t.Errorf("failed to stop %s: %v", app.Name, err)
		}
		if err := shared.Disallow(policies...); err != nil {
			t.Error(err)
		}
	})
	return running
}

// together are the apps of each test. They are stopped at the same moment when
// it ends, because an agent takes seconds to leave.
var together apps

type apps struct {
	mutex sync.Mutex
	of    map[*testing.T][]*cell.RunningApp // guarded by mutex
}

func (a *apps) add(t *testing.T, app *cell.RunningApp) {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	if a.of == nil {
		a.of = map[*testing.T][]*cell.RunningApp{}
	}
	a.of[t] = append(a.of[t], app)
}

// stop begins to stop all apps of a test; who deletes them waits.
func (a *apps) stop(ctx context.Context, t *testing.T) {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	for _, app := range a.of[t] {
		go func() { _ = app.Stop(ctx) }()
	}
	delete(a.of, t)
}

// echo is an app that runs the echo program as one service of its own name,
// with more lines inside the service block.
func (m mode) echo(t *testing.T, name string, lines ...string) cell.App {
	t.Helper()
	return write(t, name, map[string]string{
		"mesh.hcl": m.meshFile(name, lines...),
		"Procfile": "web: ./echo\n",
	})
}

func (m mode) meshFile(name string, lines ...string) string {
	return fmt.Sprintf("service %q {\n%s\n}\n", name, strings.Join(lines, "\n")) + m.consul
}

// fixture is the app in fixtures/PATH with a program beside it, under the
// path's last name.
func (m mode) fixture(t *testing.T, path, program string) cell.App {
	t.Helper()
	dir, err := shared.Source(path, program)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "mesh.hcl")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Count(string(text), fixtureConsul) != 1 {
		t.Fatalf("%s has another block consul:\n%s", path, text)
	}
	if err := os.WriteFile(file, []byte(strings.Replace(string(text), fixtureConsul, m.consul, 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	return cell.App{Name: filepath.Base(path), Dir: dir}
}

// own is a program of the project's own.
func own(name string) string { return filepath.Join(shared.Binaries.Build(), name) }

const (
	frontPort = 9001
	backURL   = "http://127.0.0.1:9001/"
)

// droplets are those of all apps back and front by name, which are staged once.
var droplets struct {
	mutex  sync.Mutex
	byName map[string]*cell.Droplet // guarded by mutex
}

// pair starts back, with some instances, and front.
func (m mode) pair(t *testing.T, instances int) (backend, caller *cell.RunningApp) {
	t.Helper()
	called := m.echo(t, m.back, `protocol = "http"`, `meta = { version = "v1" }`, "check \"health\" {\n  http = \"/health\"\n  interval = \"1s\"\n}")
	called.Instances = instances
	backend = m.launchDroplet(t, called, staged(t, called))
	calls := m.echo(t, m.front, fmt.Sprintf("upstream %q { port = %d }", m.back, frontPort))
	caller = m.launchDroplet(t, calls, staged(t, calls), m.back)
	running(t, backend)
	running(t, caller)
	eventually(t, "all instances answer", func(ctx ctx) error {
		endpoints, err := foundation.Endpoints(ctx, caller.Instance(0), m.back)
		if err != nil {
			return err
		}
		for _, i := range backend.Instances() {
			if endpoints[foundation.SidecarOf(i)] != "healthy" {
				return fmt.Errorf("the caller's Envoy has %v", endpoints)
			}
		}
		return get(ctx, caller)
	})
	return backend, caller
}

func staged(t *testing.T, app cell.App) *cell.Droplet {
	t.Helper()
	droplets.mutex.Lock()
	defer droplets.mutex.Unlock()
	if droplets.byName[app.Name] == nil {
		if droplets.byName == nil {
			droplets.byName = map[string]*cell.Droplet{}
		}
		droplets.byName[app.Name] = build(t, app)
	}
	return droplets.byName[app.Name]
}

// get asks for something through the caller's only upstream.
func get(ctx context.Context, caller *cell.RunningApp) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, backURL, nil)
	if err != nil {
		return err
	}
	response, err := caller.Instance(0).HTTPClient().Do(request)
	if err != nil {
		return err
	}
	response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("status %s", response.Status)
	}
	return nil
}
