// Package chaos holds the tests that break things: each does one thing to a
// mesh under load, and then the catalog has to equal what runs, callers have to
// have recovered within the fault's bound, and nothing may be left behind. Apps
// with agents and apps without are in the same mesh, and each fault is done to
// both, one after the other.
//
// The short form is part of `make test`. `make chaos` has CHAOS=long, which
// does everything. What is random comes from a seed that is printed, and is the
// same again with CHAOS_SEED.
package chaos

import (
	"context"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/consul-mesh/mesh-buildpack/integration/cell"
	"github.com/consul-mesh/mesh-buildpack/integration/foundation"
)

// port is where a caller has the service.
const port = 9001

// instances of the service.
const instances = 3

var (
	long = os.Getenv("CHAOS") == "long"
	seed = uint64(time.Now().UnixNano())
	dice *rand.Rand
)

// mesh has the apps that faults are done to, one of the systems.
var (
	mesh    *system
	systems []*system
)

func TestMain(m *testing.M) { cell.Main(foundation.Prepare, func() int { return run(m) }) }

func run(m *testing.M) int {
	if text := os.Getenv("CHAOS_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			fmt.Fprintln(os.Stderr, "CHAOS_SEED is not a number:", err)
			return 2
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	f, err := newSystems(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, "failed to start the mesh:", err)
		return 1
	}
	defer f.Close()
	status := m.Run()
	fmt.Printf("chaos: CHAOS_SEED=%d does the same again\n", seed)
	return status
}

// roll makes what follows in a test random, the same for the same seed whatever
// other tests run.
func roll(t *testing.T) {
	t.Helper()
	name := fnv.New64()
	_, _ = name.Write([]byte(t.Name()))
	dice = rand.New(rand.NewPCG(seed, name.Sum64()))
	t.Logf("CHAOS_SEED=%d", seed)
}

// inEachMode runs a test that does things to the apps of one mode at a time.
// brief says that the short form does so without agents, too.
func inEachMode(t *testing.T, brief bool, test func(t *testing.T)) {
	t.Helper()
	for _, s := range systems {
		t.Run(s.mode, func(t *testing.T) {
			if !long && !brief && s.agentless() {
				t.Skip("in the long form only: the short one does it with agents")
			}
			mesh = s
			test(t)
		})
	}
}

// system is a service and a caller, in one mesh with the others.
type system struct {
	*foundation.Foundation
	mode            string
	service, caller *cell.RunningApp
	policies        []cell.Policy
}

func (s *system) agentless() bool { return s.mode == "agentless" }

// newSystems starts three servers, and the apps of each mode.
func newSystems(ctx context.Context) (*foundation.Foundation, error) {
	// Instances are crashed on purpose, so none is kept down for it.
	f, err := foundation.NewWith(cell.Options{RestartDelay: 100 * time.Millisecond})
	if err != nil {
		return nil, err
	}
	if err := f.StartServers(ctx); err != nil {
		return nil, err
	}
	for _, mode := range []struct {
		name, consul string
		policies     func(upstreams map[string][]string) []cell.Policy
	}{
		{"agent", `datacenter = "cf"`, foundation.MeshPolicies},
		{"agentless", foundation.AgentlessLines, foundation.AgentlessPolicies},
	} {
		service, caller := mode.name+"-back", mode.name+"-front"
		s := &system{Foundation: f, mode: mode.name, policies: mode.policies(map[string][]string{service: nil, caller: {service}})}
		if err := f.Allow(s.policies...); err != nil {
			return nil, err
		}
		s.service, err = s.push(ctx, service, instances, mode.consul, `protocol = "http"
			check "health" {
				http     = "/health"
				interval = "1s"
				timeout  = "1s"
			}`)
		if err != nil {
			return nil, err
		}
		s.caller, err = s.push(ctx, caller, 1, mode.consul, fmt.Sprintf("upstream %q { port = %d }", service, port))
		if err != nil {
			return nil, err
		}
		systems = append(systems, s)
	}
	return f, nil
}

func (s *system) push(ctx context.Context, name string, n int, consul, lines string) (*cell.RunningApp, error) {
	dir, err := s.Write(map[string]string{
		"mesh.hcl": fmt.Sprintf("service %q {\n%s\n}\nconsul {\n%s\n}\n", name, lines, consul),
		"Procfile": "web: ./echo -on-term finish\n",
	})
	if err != nil {
		return nil, err
	}
	return s.Push(ctx, cell.App{Name: name, Dir: dir, Instances: n, Disk: 320})
}
