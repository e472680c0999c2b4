// Package chaos holds the tests that break things: each does one thing to a
// mesh under load, and then the catalog has to equal what runs, callers have to
// have recovered within the fault's bound, and nothing may be left behind.
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

// The two apps of the mesh, and the port at which the caller has the other.
const (
	service = "back"
	caller  = "front"
	port    = 9001
)

// instances of the service.
const instances = 3

var (
	long = os.Getenv("CHAOS") == "long"
	seed = uint64(time.Now().UnixNano())
	dice *rand.Rand
)

// mesh is the one that all faults are done to.
var mesh *system

func TestMain(m *testing.M) { cell.Main(foundation.Prepare, func() int { return run(m) }) }

func run(m *testing.M) int {
	if text := os.Getenv("CHAOS_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			fmt.Fprintln(os.Stderr, "CHAOS_SEED is not a number:", err)
			return 2
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	var err error
	if mesh, err = newSystem(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "failed to start the mesh:", err)
		return 1
	}
	defer mesh.Close()
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

// system is a mesh of three servers, a service and a caller.
type system struct {
	*foundation.Foundation
	service, caller *cell.RunningApp
	policies        []cell.Policy
}

func newSystem(ctx context.Context) (*system, error) {
	// Instances are crashed on purpose, so none is kept down for it.
	f, err := foundation.NewWith(cell.Options{RestartDelay: 100 * time.Millisecond})
	if err != nil {
		return nil, err
	}
	s := &system{Foundation: f, policies: foundation.MeshPolicies(map[string][]string{service: nil, caller: {service}})}
	if err := f.Allow(s.policies...); err != nil {
		return nil, err
	}
	if err := f.StartServers(ctx); err != nil {
		return nil, err
	}
	s.service, err = s.push(ctx, service, instances, `protocol = "http"
		check "health" {
			http     = "/health"
			interval = "1s"
			timeout  = "1s"
		}`)
	if err != nil {
		return nil, err
	}
	s.caller, err = s.push(ctx, caller, 1, fmt.Sprintf("upstream %q { port = %d }", service, port))
	return s, err
}

func (s *system) push(ctx context.Context, name string, n int, lines string) (*cell.RunningApp, error) {
	dir, err := s.Write(map[string]string{
		"mesh.hcl": fmt.Sprintf("service %q {\n%s\n}\nconsul {\n  datacenter = \"cf\"\n}\n", name, lines),
		"Procfile": "web: ./echo -on-term finish\n",
	})
	if err != nil {
		return nil, err
	}
	return s.Push(ctx, cell.App{Name: name, Dir: dir, Instances: n, Disk: 64})
}
