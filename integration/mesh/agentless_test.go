package mesh

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/consul-mesh/mesh-buildpack/integration/cell"
	"github.com/consul-mesh/mesh-buildpack/integration/foundation"
	"github.com/consul-mesh/mesh-buildpack/integration/load"
	"github.com/consul-mesh/mesh-buildpack/src/droplet"
)

// TestNoAgent: neither the droplet nor a container has anything of an agent,
// and nothing is written to the servers while nothing changes.
func TestNoAgent(t *testing.T) {
	backend, caller := agentless.pair(t, 2)
	staged := filepath.Join(backend.Droplet().Dir, "deps", "0")
	for _, file := range []string{"bin/consul", droplet.AgentFile} {
		if _, err := os.Stat(filepath.Join(staged, file)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the droplet has %s: %v", file, err)
		}
	}
	var sidecars []string
	for _, process := range backend.Instance(0).Processes() {
		sidecars = append(sidecars, process.Name)
	}
	slices.Sort(sidecars)
	if diff := cmp.Diff([]string{"WEB", "mesh-envoy"}, sidecars); diff != "" {
		t.Errorf("processes that the platform starts (-want +got):\n%s", diff)
	}
	lines := commandLines(t, backend.Instance(0))
	for part, want := range map[string]int{"consul": 0, "mesh agent": 0, "mesh proxy": 1, "bin/envoy": 1} {
		if got := count(lines, part); got != want {
			t.Errorf("%d processes with %q, want %d:\n%s", got, part, want, strings.Join(lines, "\n"))
		}
	}

	eventually(t, "there are janitors", func(ctx ctx) error {
		var keys []string
		err := shared.Consul(ctx, http.MethodGet, "/v1/kv/consul-mesh-buildpack/?keys", nil, &keys)
		for _, app := range []*cell.RunningApp{backend, caller} {
			name := app.App().Name
			if err == nil && !slices.Contains(keys, droplet.JanitorKey(name, name, "web")) {
				err = fmt.Errorf("there are only %v", keys)
			}
		}
		return err
	})
	// Longer than a session lives that is not renewed.
	const quiet = 35 * time.Second
	before := indexes(t)
	<-time.After(quiet)
	if diff := cmp.Diff(before, indexes(t)); diff != "" {
		t.Errorf("something is written while nothing changes, indexes of the servers (-before +after):\n%s", diff)
	}
}

// TestOpenServers: a bound service closes the mesh, but without an agent it is
// the servers that do so, and these do not.
func TestOpenServers(t *testing.T) {
	t.Parallel()
	for name, open := range map[string]bool{"deny": true, "allow": false} {
		app := agentless.echo(t, "open-"+name)
		app.VcapServices = foundation.Bind(map[string]any{"datacenter": "cf", "default_policy": name})
		running := agentless.launch(t, app)
		if open {
			waitLog(t, running, `every service of the mesh may call it`)
			continue
		}
		waitLog(t, running, "passing, in rotation")
		<-time.After(time.Second)
		for _, line := range running.Logs() {
			if strings.Contains(line.Text, "may call it") {
				t.Errorf("nobody asked for anything else: %v", line)
			}
		}
	}
}

// indexes are when the servers have last written something of all that an
// instance writes.
func indexes(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, path := range []string{"catalog/nodes", "catalog/services", "health/state/any", "session/list", "kv/?recurse", "config/service-defaults"} {
		response, err := http.Get("http://" + shared.Servers.Instance(0).Address() + ":8080/v1/" + path)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		all[path] = response.Header.Get("X-Consul-Index")
	}
	return all
}

// unrenewed is the least that a session lives when nobody renews it any more: what
// happens sooner has another cause.
const unrenewed = 12 * time.Second

// sweptWithin is the longest that an instance that has died is in the catalog:
// its session ends 20 s after it was renewed last, and a sibling acts on that.
const sweptWithin = 21 * time.Second

// TestSiblings: what has died without a word is taken out of the catalog by
// those that live, or by the next that starts.
func TestSiblings(t *testing.T) {
	t.Parallel()
	backend, caller := agentless.pair(t, 2)

	t.Run("a new instance has the address of a dead one", func(t *testing.T) {
		dead := vanish(t, backend, 1)[0]
		living, gone := foreign(t, dead.Address(), "foreign-living"), foreign(t, dead.Address(), "foreign-dead")
		var session struct{ ID string }
		if err := shared.Consul(t.Context(), http.MethodPut, "/v1/session/create", map[string]any{"Node": living, "NodeChecks": []string{}}, &session); err != nil {
			t.Fatal(err)
		}
		scale(t, backend, 2)
		if next := backend.Instance(1); next.Address() != dead.Address() {
			t.Fatalf("the new instance is at %s, the dead one was at %s", next.Address(), dead.Address())
		}
		waitLog(t, backend, agentless.back+"-"+dead.GUID()+" had this address before and is taken out of the catalog")
		served(t, caller, backend)
		eventually(t, "the catalog has what runs", func(ctx ctx) error { return nodesOf(ctx, backend) })
		nodes, err := shared.Nodes(t.Context())
		if err != nil || !slices.Contains(nodes, living) || slices.Contains(nodes, gone) {
			t.Errorf("of another foundation's nodes at its address there are %v, %v", nodes, err)
		}
		if err := shared.Consul(t.Context(), http.MethodPut, "/v1/catalog/deregister", map[string]string{"Node": living}, nil); err != nil {
			t.Fatal(err)
		}
	})

	t.Run("the next start takes out what nobody could", func(t *testing.T) {
		dead := vanish(t, backend, 0)
		eventually(t, "their sessions have ended", func(ctx ctx) error {
			var keys []string
			err := shared.Consul(ctx, http.MethodGet, "/v1/kv/consul-mesh-buildpack/?keys", nil, &keys)
			if err == nil && slices.ContainsFunc(keys, func(key string) bool { return strings.Contains(key, "/"+agentless.back+"/") }) {
				err = fmt.Errorf("there are %v", keys)
			}
			return err
		})
		if err := nodesAre(t.Context(), dead); err != nil {
			t.Errorf("before the start: %v", err)
		}
		leaveBare(t, shared, agentless.back)
		scale(t, backend, 1)
		served(t, caller, backend)
		eventually(t, "the catalog has what runs", func(ctx ctx) error { return nodesOf(ctx, backend) })
	})

	t.Run("a sibling takes the dead instance out", func(t *testing.T) {
		scale(t, backend, 2)
		served(t, caller, backend)
		requests := load.Start(load.Plan{Kind: load.HTTP, Target: backURL + "slow?ms=5", Rate: 100, Timeout: answered, Dial: caller.Instance(0).Dial})
		// Envoy's workers learn of what has changed at most once a second
		// (update_merge_window), and two changes were just now.
		<-time.After(2 * time.Second)
		dead := vanish(t, backend, 1)
		died := time.Now()
		eventually(t, "it is out of the catalog", func(ctx ctx) error { return nodesOf(ctx, backend) })
		took := time.Since(died)
		result := requests.Stop()
		t.Logf("%s was out of the catalog after %.1f s; %v", dead[0].GUID(), took.Seconds(), result)
		waitLog(t, backend, "has died and is taken out of the catalog")
		// Callers' Envoys leave alone what refuses five times in a row, and where another
		// change came just before, a second later: that is half of a hundred requests.
		if result.Lost > 100 {
			t.Errorf("lost: %v", result)
		}
	})

	t.Run("somebody deletes the signs of life", func(t *testing.T) {
		// A new instance with the address of one that has just gone is to callers
		// what that was, until they have heard of its end.
		<-time.After(2 * time.Second)
		scale(t, backend, 2)
		served(t, caller, backend)
		if err := shared.Consul(t.Context(), http.MethodDelete, "/v1/kv/consul-mesh-buildpack/"+agentless.back+"/?recurse", nil, nil); err != nil {
			t.Fatal(err)
		}
		within(t, lookedAt, "both are there again, and a janitor", func(ctx ctx) error {
			want := []string{droplet.JanitorKey(agentless.back, agentless.back, "web")}
			for _, i := range backend.Instances() {
				want = append(want, droplet.AliveKeys(agentless.back)+foundation.NodeOf(i))
			}
			var keys []string
			if err := shared.Consul(ctx, http.MethodGet, "/v1/kv/consul-mesh-buildpack/"+agentless.back+"/?keys", nil, &keys); err != nil {
				return err
			}
			return foundation.Same(want, keys, "the keys are not those of what runs")
		})
		scale(t, backend, 3) // the third would bury them
		served(t, caller, backend)
		for _, line := range backend.Logs() {
			if strings.Contains(line.Text, "took this instance for dead") {
				t.Errorf("a living instance was buried: %v", line)
			}
		}
	})

	t.Run("the servers carry out an old write", func(t *testing.T) {
		node := agentless.back + "-" + backend.Instance(0).GUID()
		var before struct{ Node map[string]any }
		if err := shared.Consul(t.Context(), http.MethodGet, "/v1/catalog/node/"+node, nil, &before); err != nil {
			t.Fatal(err)
		}
		const nowhere = "192.0.2.1"
		old := map[string]any{"Node": node, "ID": before.Node["ID"], "Address": nowhere, "NodeMeta": before.Node["Meta"]}
		if err := shared.Consul(t.Context(), http.MethodPut, "/v1/catalog/register", old, nil); err != nil {
			t.Fatal(err)
		}
		within(t, lookedAt, "the instance sees it", func(ctx ctx) error {
			_, err := backend.WaitLog(ctx, fmt.Sprintf("the catalog has this instance at %q, not at", nowhere))
			return err
		})
		eventually(t, "it is where it was", func(ctx ctx) error {
			var now struct{ Node map[string]any }
			err := shared.Consul(ctx, http.MethodGet, "/v1/catalog/node/"+node, nil, &now)
			if err == nil && now.Node["Address"] != before.Node["Address"] {
				err = fmt.Errorf("it is at %v", now.Node["Address"])
			}
			return err
		})
		served(t, caller, backend)
	})
}

// leaveBare makes a node as an instance does that is killed before it has said
// more.
func leaveBare(t *testing.T, f *foundation.Foundation, app string) {
	t.Helper()
	node := map[string]any{
		"Node": app + "-bare", "Address": "192.0.2.1",
		"NodeMeta": map[string]string{"cf-app": app, "cf-process": "web", "cf-agentless": "true"},
	}
	if err := f.Consul(t.Context(), http.MethodPut, "/v1/catalog/register", node, nil); err != nil {
		t.Fatal(err)
	}
}

// foreign makes a node of another foundation.
func foreign(t *testing.T, address, name string) string {
	t.Helper()
	node := map[string]any{
		"Node": name, "Address": address,
		"NodeMeta": map[string]string{"cf-api": "https://api.elsewhere", "cf-app": name, "cf-process": "web", "cf-agentless": "true"},
	}
	if err := shared.Consul(t.Context(), http.MethodPut, "/v1/catalog/register", node, nil); err != nil {
		t.Fatal(err)
	}
	return name
}

func vanish(t *testing.T, app *cell.RunningApp, left int) []*cell.Instance {
	t.Helper()
	dead, err := foundation.Vanish(deadline(t), app, left)
	if err != nil {
		t.Fatal(err)
	}
	return dead
}

func scale(t *testing.T, app *cell.RunningApp, n int) {
	t.Helper()
	if err := app.Scale(deadline(t), n); err != nil {
		t.Fatal(err)
	}
	running(t, app)
}

// served waits until the caller's Envoy sends requests to all instances of back,
// and to nothing else.
func served(t *testing.T, caller, backend *cell.RunningApp) {
	t.Helper()
	eventually(t, "the caller has all instances", func(ctx ctx) error {
		return foundation.EndpointsAre(ctx, caller.Instance(0), backend)
	})
}

// nodesOf returns nil while the catalog has the app's instances that run, and no
// others.
func nodesOf(ctx context.Context, app *cell.RunningApp) error { return nodesAre(ctx, app.Instances()) }

func nodesAre(ctx context.Context, instances []*cell.Instance) error {
	var want, got []string
	for _, i := range instances {
		want = append(want, i.App()+"-"+i.GUID())
	}
	nodes, err := shared.Nodes(ctx)
	if err != nil {
		return err
	}
	for _, node := range nodes {
		if strings.HasPrefix(node, instances[0].App()+"-") {
			got = append(got, node)
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		return fmt.Errorf("nodes in the catalog (-want +got):\n%s", diff)
	}
	return nil
}

// lookedAt is when each instance has looked how the servers have it: it does so every
// two minutes.
const lookedAt = 3 * time.Minute

func within(t *testing.T, bound time.Duration, what string, condition func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	defer cancel()
	if err := foundation.Eventually(ctx, what, condition); err != nil {
		t.Fatal(err)
	}
}
