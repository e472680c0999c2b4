package compat

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/consul-mesh/mesh-buildpack/integration/cell"
	"github.com/consul-mesh/mesh-buildpack/integration/foundation"
	"github.com/consul-mesh/mesh-buildpack/integration/load"
)

const (
	instances = 3
	port      = 9001 // where the caller has the service
	// mixed is longer than the half minute after which an instance looks for what
	// has died, and how the catalog has it.
	mixed = 40 * time.Second
	// patience bounds one wait. It is long: what is tested is not how fast it is.
	patience = 2 * time.Minute
)

// rate is requests a second. Beside the rest of `make test` an Envoy's share of the
// processors is too small for more, and what waits in it longer than drain_timeout
// is lost for that.
func rate() int {
	if long {
		return 200
	}
	return 50
}

// way is a way to be in a mesh.
type way struct {
	name     string
	mesh     func() *foundation.Foundation
	consul   string // the block of mesh.hcl
	policies func(upstreams map[string][]string) []cell.Policy
	short    bool // it is in the short form
}

var ways = []way{
	{"agent/open", func() *foundation.Foundation { return open }, `datacenter = "cf"`, foundation.MeshPolicies, true},
	{"agent/closed", func() *foundation.Foundation { return closed }, "", foundation.MeshPolicies, false},
	{"agentless/open", func() *foundation.Foundation { return open }, foundation.AgentlessLines, foundation.AgentlessPolicies, false},
	{"agentless/closed", func() *foundation.Foundation { return closed }, `mode = "agentless"`, foundation.AgentlessPolicies, true},
}

// TestRollingRestage: under load, a service's instances are replaced one at a time
// by those of the other version, and then its caller. No request is lost, and
// nobody living is taken out of the catalog.
func TestRollingRestage(t *testing.T) {
	for _, w := range ways {
		t.Run(w.name, func(t *testing.T) {
			if !long && !w.short {
				t.Skip("in the long form only")
			}
			s := newSystem(t, w)
			stop := s.watch(t)
			s.roll(t, "this version", func(a *app) *cell.Droplet { return a.now })
			if long {
				s.roll(t, "0.1.0", func(a *app) *cell.Droplet { return a.before })
			}
			s.catalogIsRight(t)
			stop()
			if long && strings.HasPrefix(w.name, "agentless") {
				s.buries(t)
			}
		})
	}
}

// system is a service and its caller.
type system struct {
	way
	*foundation.Foundation
	service, caller *app
}

// app is an app that was started as 0.1.0.
type app struct {
	*cell.RunningApp
	before, now *cell.Droplet // staged by 0.1.0 and by this version
}

func newSystem(t *testing.T, w way) *system {
	t.Helper()
	s := &system{way: w, Foundation: w.mesh()}
	mode, _, _ := strings.Cut(w.name, "/")
	back, front := mode+"-back", mode+"-front"
	policies := w.policies(map[string][]string{back: nil, front: {back}})
	for _, name := range []string{back, front} {
		if s.Secure != nil {
			policies = append(append(policies, s.AccessPolicies(name)...), s.AgentlessAccess(name))
		}
	}
	if err := s.Allow(policies...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Disallow(policies...); err != nil {
			t.Error(err)
		}
	})
	if s.Secure != nil {
		if err := s.Intention(t.Context(), front, back, "allow"); err != nil {
			t.Fatal(err)
		}
	}
	s.service = s.push(t, back, instances, `protocol = "http"`, `check "health" { http = "/health" }`)
	s.caller = s.push(t, front, 1, fmt.Sprintf("upstream %q { port = %d }", back, port))
	s.allServe(t)
	return s
}

// push stages an app with both versions, the second with what the first left in
// the build cache, and starts it as 0.1.0.
func (s *system) push(t *testing.T, name string, n int, lines ...string) *app {
	t.Helper()
	source, err := s.Write(map[string]string{
		"mesh.hcl": fmt.Sprintf("service %q {\n%s\n}\nconsul {\n%s\n}\n", name, strings.Join(lines, "\n"), s.consul),
		"Procfile": "web: ./echo -on-term finish\n",
	})
	if err != nil {
		t.Fatal(err)
	}
	pushed := cell.App{Name: name, Dir: source, Instances: n}
	if s.Secure != nil {
		pushed.VcapServices = foundation.Bind(s.binding(t, pushed))
	}
	a := &app{}
	a.before = s.stage(t, pushed, firstRelease)
	a.now = s.stage(t, pushed, s.Mesh)
	s.forget(t, s.CacheDir(name))
	a.RunningApp, err = s.Start(t.Context(), pushed, a.before)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if t.Failed() {
			for _, line := range a.Logs() {
				t.Log(line)
			}
		}
		if err := a.Delete(ctx); err != nil {
			t.Error(err)
		}
	})
	s.eventually(t, name+" runs", a.WaitRunning)
	return a
}

func (s *system) stage(t *testing.T, a cell.App, buildpack cell.Buildpack) *cell.Droplet {
	t.Helper()
	a.Buildpacks = []cell.Buildpack{buildpack, s.Last}
	droplet, err := s.Stage(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.forget(t, droplet.Dir) })
	return droplet
}

// roll deploys the service, and then moves the caller, which calls instances of both
// versions (in the long form for a while), those of the other alone, and those of
// its own.
func (s *system) roll(t *testing.T, to string, droplet func(*app) *cell.Droplet) {
	t.Helper()
	s.use(t, s.service, droplet(s.service))
	s.underLoad(t, "the service becomes "+to, func() {
		if long {
			s.evacuate(t, s.service, 0)
			<-time.After(mixed)
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if err := s.service.Deploy(ctx, s.service.Droplet()); err != nil {
			t.Fatal(err)
		}
	})
	s.use(t, s.caller, droplet(s.caller))
	s.evacuate(t, s.caller, 0)
	s.allServe(t)
	s.underLoad(t, "the caller is "+to, func() { <-time.After(time.Second) })
}

func (s *system) use(t *testing.T, a *app, droplet *cell.Droplet) {
	t.Helper()
	if err := a.Use(droplet); err != nil {
		t.Fatal(err)
	}
}

func (s *system) evacuate(t *testing.T, a *app, index int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := a.Evacuate(ctx, index); err != nil {
		t.Fatal(err)
	}
}

// underLoad does something while the caller sends requests, none of which may be
// lost.
func (s *system) underLoad(t *testing.T, what string, do func()) {
	t.Helper()
	requests := load.Start(load.Plan{
		Kind: load.HTTP, Target: fmt.Sprintf("http://127.0.0.1:%d/slow?ms=5", port), Rate: rate(),
		Dial: s.caller.Instance(0).Dial, Timeout: 10 * time.Second,
	})
	defer func() {
		result := requests.Stop()
		t.Logf("%s: %v", what, result)
		if result.Lost > 0 {
			t.Errorf("%s: requests were lost", what)
		}
	}()
	<-time.After(time.Second)
	do()
	s.allServe(t)
	<-time.After(time.Second)
}

// allServe waits until the caller's Envoy sends requests to every instance.
func (s *system) allServe(t *testing.T) {
	t.Helper()
	s.eventually(t, "the caller has all instances", func(ctx context.Context) error {
		return foundation.EndpointsAre(ctx, s.caller.Instance(0), s.service.RunningApp)
	})
}

func (s *system) catalogIsRight(t *testing.T) {
	t.Helper()
	s.eventually(t, "the catalog has what runs", func(ctx context.Context) error {
		return s.CatalogIs(ctx, append(s.caller.Instances(), s.service.Instances()...)...)
	})
}

func (s *system) eventually(t *testing.T, what string, condition func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := foundation.Eventually(ctx, what, condition); err != nil {
		t.Fatal(err)
	}
}
