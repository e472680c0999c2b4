package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/consul-mesh/mesh-buildpack/integration/cell"
	"github.com/consul-mesh/mesh-buildpack/integration/foundation"
)

// neighbours is how many instances run beside those that are started: servers
// limit the streams of Envoys by the number of all proxies.
const neighbours = 20

// patience bounds every single wait.
const patience = 60 * time.Second

// bench is what the measures share: staged apps, and callers that go on running
// from one measure to the next.
type bench struct {
	f          *foundation.Foundation
	closed     *foundation.Foundation // the same cell with a closed mesh, nil before it is used
	staged     map[string]staged      // by app name
	callers    map[way]*cell.RunningApp
	neighbours *cell.RunningApp // of what is started, nil for none
	memory     *firstLook       // of our caller
}

// mergeWindow is how long an Envoy may put off a change of health that follows
// another change, although its admin API shows it at once.
const mergeWindow = 1200 * time.Millisecond

// staged is an app with its droplet.
type staged struct {
	app     cell.App
	droplet *cell.Droplet
}

func newBench(f *foundation.Foundation) *bench {
	return &bench{f: f, staged: map[string]staged{}, callers: map[way]*cell.RunningApp{}}
}

func say(format string, args ...any) {
	fmt.Printf("%s "+format+"\n", append([]any{time.Now().Format("15:04:05")}, args...)...)
}

// stage stages an app once.
func (b *bench) stage(ctx context.Context, w way, role string) (staged, error) {
	name := w.name(role)
	if s, ok := b.staged[name]; ok {
		return s, nil
	}
	if err := b.f.Allow(w.policies(role)...); err != nil {
		return staged{}, err
	}
	app, err := w.app(b.f, role)
	if err != nil {
		return staged{}, err
	}
	app.Command = "./echo"
	say("staging %s", name)
	droplet, err := b.f.Stage(ctx, app)
	if err != nil {
		return staged{}, err
	}
	// Source and build cache weigh as much as the droplet, in memory.
	for _, dir := range []string{app.Dir, b.f.CacheDir(name)} {
		if err := os.RemoveAll(dir); err != nil {
			return staged{}, err
		}
	}
	b.staged[name] = staged{app, droplet}
	return b.staged[name], nil
}

// start starts an app without waiting for it.
func (b *bench) start(ctx context.Context, w way, role, command string, instances int) (*cell.RunningApp, error) {
	return b.startChecked(ctx, w, role, command, instances, cell.HealthPort)
}

// startUnchecked starts an app without a port check. While a port is closed the
// cell looks twenty times a second, each time with a program, which no platform
// does: where apps are held until their mesh is ready, it would measure that.
func (b *bench) startUnchecked(ctx context.Context, w way, role, command string, instances int) (*cell.RunningApp, error) {
	return b.startChecked(ctx, w, role, command, instances, cell.HealthProcess)
}

func (b *bench) startChecked(ctx context.Context, w way, role, command string, instances int, check string) (*cell.RunningApp, error) {
	s, err := b.stage(ctx, w, role)
	if err != nil {
		return nil, err
	}
	s.app.Command, s.app.Instances, s.app.HealthCheck = command, instances, check
	return b.f.Start(ctx, s.app, s.droplet)
}

// serve starts a service and waits until every caller's Envoy sends requests
// to all of its instances.
func (b *bench) serve(ctx context.Context, w way, role, command string, instances int) (*cell.RunningApp, error) {
	if _, err := b.caller(ctx, w); err != nil {
		return nil, err
	}
	// What a way with requests is, callers hear from this entry alone; this
	// buildpack writes it by itself.
	if !w.buildpack() && role == webService {
		entry := map[string]string{"Kind": "service-defaults", "Name": w.name(role), "Protocol": "http"}
		if err := b.f.Consul(ctx, http.MethodPut, "/v1/config", entry, nil); err != nil {
			return nil, err
		}
	}
	app, err := b.start(ctx, w, role, command, instances)
	if err != nil {
		return nil, err
	}
	return app, b.serves(ctx, w, role, app)
}

// serves waits until every caller's Envoy sends requests to all instances of an app
// that was started.
func (b *bench) serves(ctx context.Context, w way, role string, app *cell.RunningApp) error {
	if err := app.WaitRunning(ctx); err != nil {
		return err
	}
	if err := b.inRotation(ctx, w, role, app); err != nil {
		return err
	}
	<-time.After(mergeWindow)
	return nil
}

// caller is the way's caller, two instances that stay.
func (b *bench) caller(ctx context.Context, w way) (*cell.RunningApp, error) {
	if app := b.callers[w]; app != nil {
		return app, nil
	}
	app, err := b.start(ctx, w, caller, "./echo", 2)
	if err != nil {
		return nil, err
	}
	b.callers[w] = app
	if w == ours {
		b.memory = lookLater(app)
	}
	return app, app.WaitRunning(ctx)
}

// startNeighbours starts idle instances, which run beside what is measured.
func (b *bench) startNeighbours(ctx context.Context) (err error) {
	if b.neighbours, err = b.start(ctx, agentless, idleService, "./echo", neighbours); err != nil {
		return err
	}
	if err := b.allPass(ctx, agentless, idleService, neighbours); err != nil {
		return errors.Join(err, b.stopNeighbours(ctx))
	}
	return nil
}

func (b *bench) stopNeighbours(ctx context.Context) error {
	app := b.neighbours
	b.neighbours = nil
	return app.Stop(ctx)
}

// stopCallers makes room for measures that start callers themselves.
func (b *bench) stopCallers(ctx context.Context) error {
	for w, app := range b.callers {
		delete(b.callers, w)
		if err := app.Stop(ctx); err != nil {
			return err
		}
	}
	return nil
}

// inRotation waits until every caller's Envoy sends requests to all instances
// of a service and has no others.
func (b *bench) inRotation(ctx context.Context, w way, role string, app *cell.RunningApp) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var want []string
	return foundation.Eventually(ctx, "callers have all instances of "+w.name(role), func(ctx context.Context) error {
		want = want[:0]
		for _, i := range app.Instances() {
			want = append(want, foundation.SidecarOf(i))
		}
		for _, i := range b.callers[w].Instances() {
			endpoints, err := foundation.Endpoints(ctx, i, w.name(role))
			if err != nil {
				return err
			}
			if len(endpoints) != len(want) {
				return fmt.Errorf("the Envoy of a caller has %v, want %v", endpoints, want)
			}
			for address, flags := range endpoints {
				if flags != "healthy" || !slices.Contains(want, address) {
					return fmt.Errorf("the Envoy of a caller has %v, want %v", endpoints, want)
				}
			}
		}
		return nil
	})
}

// gone stops an app and waits until nothing of it is in the catalog.
func (b *bench) gone(ctx context.Context, w way, app *cell.RunningApp) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := app.Stop(ctx); err != nil {
		return err
	}
	if !w.buildpack() {
		if err := b.sweep(ctx); err != nil {
			return err
		}
	}
	name := app.App().Name
	return foundation.Eventually(ctx, name+" is out of the catalog", func(ctx context.Context) error {
		services, err := b.f.Services(ctx)
		if err == nil && slices.Contains(services, name) {
			err = fmt.Errorf("the catalog has %v", services)
		}
		return err
	})
}

// sweep takes out the nodes of instances that are gone, which the other ways
// leave behind: for a minute where an agent left in its first seconds, for days
// where one died.
func (b *bench) sweep(ctx context.Context) error {
	nodes, err := b.leftOver(ctx)
	if err != nil {
		return err
	}
	for _, node := range nodes {
		if err := b.f.Consul(ctx, http.MethodPut, "/v1/catalog/deregister", map[string]string{"Node": node}, nil); err != nil {
			return err
		}
	}
	return nil
}

// leftOver are the nodes in the catalog of instances that are gone.
func (b *bench) leftOver(ctx context.Context) ([]string, error) {
	var alive []string
	for _, app := range append(slices.Collect(maps.Values(b.callers)), b.neighbours) {
		if app == nil {
			continue
		}
		for _, i := range app.Instances() {
			alive = append(alive, i.GUID())
		}
	}
	nodes, err := b.f.Nodes(ctx)
	return slices.DeleteFunc(nodes, func(node string) bool {
		belongs := func(guid string) bool { return strings.HasSuffix(node, guid) }
		return strings.HasPrefix(node, "server-") || slices.ContainsFunc(alive, belongs)
	}), err
}

// allPass waits until so many instances of a service pass all their checks.
func (b *bench) allPass(ctx context.Context, w way, role string, instances int) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return foundation.Eventually(ctx, "all instances pass their checks", func(ctx context.Context) error {
		healthy, err := b.f.Healthy(ctx, w.name(role))
		if err == nil && len(healthy) != instances {
			err = fmt.Errorf("%d of %d do", len(healthy), instances)
		}
		return err
	})
}
