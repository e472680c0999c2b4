package chaos

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/consul-mesh/mesh-buildpack/integration/cell"
	"github.com/consul-mesh/mesh-buildpack/integration/foundation"
)

// noticed is how long an instance can be gone without a word until callers know:
// gossip gives a member up after 6 s, a session ends after 20 s.
func noticed() time.Duration {
	if mesh.agentless() {
		return 22 * time.Second
	}
	return 9 * time.Second
}

// away is how long a part of the network is gone: in the long form, and where
// there are no agents, longer than what makes the others give an instance up.
func away() time.Duration {
	if long || mesh.agentless() {
		return noticed() + 6*time.Second
	}
	return 8 * time.Second
}

// TestPartitions cuts policies, with the connections that use them.
func TestPartitions(t *testing.T) { inEachMode(t, true, partitions) }

func partitions(t *testing.T) {
	for _, c := range []struct {
		name   string
		short  bool
		gossip bool // is what is cut
		cuts   func(cell.Policy) bool
		bound  time.Duration // from when the network is whole again
	}{
		{"the whole mesh from the servers", true, false, func(p cell.Policy) bool { return touches(p, foundation.ServersApp) }, 15 * time.Second},
		{"the service from the servers", false, false, func(p cell.Policy) bool {
			return touches(p, foundation.ServersApp) && touches(p, mesh.service.App().Name)
		}, 15 * time.Second},
		{"the caller from the sidecars", false, false, func(p cell.Policy) bool { return p.Start == 21000 }, 5 * time.Second},
		{"members from members", false, true, func(p cell.Policy) bool { return p.Start == 8301 && !touches(p, foundation.ServersApp) }, 15 * time.Second},
	} {
		if !long && !c.short {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			if c.gossip && mesh.agentless() {
				t.Skip("without agents there is no gossip")
			}
			survive(t, c.bound, func(context.Context) (time.Time, error) {
				cut := slices.DeleteFunc(slices.Clone(mesh.policies), func(p cell.Policy) bool { return !c.cuts(p) })
				if len(cut) == 0 {
					return time.Now(), errors.New("there is nothing to cut")
				}
				if err := mesh.Cut(cut...); err != nil {
					return time.Now(), err
				}
				<-time.After(away())
				whole, err := time.Now(), mesh.Allow(cut...)
				if mesh.agentless() {
					// An instance finds out that it was taken for dead, and that
					// others seem to be, when it renews its session, every 5 s.
					<-time.After(12 * time.Second)
				}
				return whole, err
			})
		})
	}
}

func touches(p cell.Policy, app string) bool { return p.Source == app || p.Destination == app }

// TestSilence: an instance is cut off without a word, and comes back.
func TestSilence(t *testing.T) {
	if !long {
		t.Skip("in the long form only: the short one has TestReusedAddress")
	}
	inEachMode(t, false, silence)
}

func silence(t *testing.T) {
	var began time.Time
	survive(t, noticed(), func(context.Context) (time.Time, error) {
		restore, err := mesh.Silence(mesh.service.Instance(dice.IntN(instances)))
		began = time.Now()
		if err != nil {
			return began, err
		}
		<-time.After(away())
		return began, restore()
	})
}

// TestReusedAddress: an instance dies without a word, and the next one gets its
// address while the dead one's node is still in the catalog. Cloud Foundry does
// so all the time.
func TestReusedAddress(t *testing.T) { inEachMode(t, true, reusedAddress) }

func reusedAddress(t *testing.T) {
	survive(t, noticed(), func(ctx context.Context) (time.Time, error) {
		index := dice.IntN(instances)
		for range addressTries {
			dead := mesh.service.Instance(index)
			from := time.Now()
			dead.Kill()
			err := foundation.Eventually(ctx, "there is another instance", func(context.Context) error {
				if next := mesh.service.Instance(index); next == dead || next.State() != cell.Running {
					return errors.New("not yet")
				}
				return nil
			})
			if err != nil {
				return from, err
			}
			// The lowest free address is given: one that an earlier test has
			// freed goes first.
			if next := mesh.service.Instance(index); next.Address() == dead.Address() {
				return from, serves(ctx, next, dead)
			}
		}
		return time.Now(), errors.New("no instance got the address of the one before it")
	})
}

// addressTries is how many addresses may be free below.
const addressTries = 4

// ejection is for how long a caller may hold against an address what the one
// that had it before has done: Envoy's base ejection time, and a round of looks.
const ejection = 45 * time.Second

// serves waits until callers are sent to an instance, and looks for as long as
// the dead one is in the catalog whether they go on to be.
func serves(ctx context.Context, next, dead *cell.Instance) error {
	first, cancel := context.WithTimeout(ctx, ejection)
	defer cancel()
	healthy := func(ctx context.Context) error {
		endpoints, err := foundation.Endpoints(ctx, mesh.caller.Instance(0), mesh.service.App().Name)
		if err == nil && endpoints[foundation.SidecarOf(next)] != "healthy" {
			err = fmt.Errorf("the caller's Envoy has %v", endpoints)
		}
		return err
	}
	if err := foundation.Eventually(first, "callers are sent to the new instance", healthy); err != nil {
		return err
	}
	seen := false
	for {
		nodes, err := mesh.Nodes(ctx)
		if err != nil {
			return err
		}
		if !slices.Contains(nodes, dead.App()+"-"+dead.GUID()) {
			break
		}
		seen = true
		if err := healthy(ctx); err != nil {
			return fmt.Errorf("while the dead instance is in the catalog: %w", err)
		}
		<-time.After(50 * time.Millisecond)
	}
	if !seen {
		// Somebody has taken it out before, which is as good.
		fmt.Println("the dead instance was out of the catalog before the new one was in rotation")
	}
	return nil
}

// TestLeader: the servers elect another leader because they are told to, and
// because the leader dies.
func TestLeader(t *testing.T) {
	if !long {
		t.Skip("in the long form only")
	}
	inEachMode(t, false, leader)
}

func leader(t *testing.T) {
	t.Run("handed over", func(t *testing.T) {
		survive(t, time.Second, func(ctx context.Context) (time.Time, error) {
			from := time.Now()
			return from, mesh.Consul(ctx, http.MethodPost, "/v1/operator/raft/transfer-leader", nil, nil)
		})
	})
	t.Run("dead", func(t *testing.T) {
		survive(t, time.Second, func(ctx context.Context) (time.Time, error) {
			from := time.Now()
			leader, err := mesh.leader(ctx)
			if err == nil {
				leader.Kill()
			}
			return from, err
		})
	})
	t.Run("all servers but one silent", func(t *testing.T) {
		survive(t, time.Second, func(ctx context.Context) (time.Time, error) {
			from := time.Now()
			for _, i := range []int{1, 2} {
				restore, err := mesh.Silence(mesh.Servers.Instance(i))
				if err != nil {
					return from, err
				}
				defer func() { _ = restore() }() // settled says whether it came back
			}
			<-time.After(away())
			return from, nil
		})
	})
	t.Run("callers are told of what comes and goes after that", func(t *testing.T) {
		for _, n := range []int{instances + 1, instances} {
			survive(t, 0, func(ctx context.Context) (time.Time, error) {
				from := time.Now()
				return from, errors.Join(mesh.service.Scale(ctx, n), mesh.service.WaitRunning(ctx))
			})
		}
	})
}

func (s *system) leader(ctx context.Context) (*cell.Instance, error) {
	var address string
	if err := s.Consul(ctx, http.MethodGet, "/v1/status/leader", nil, &address); err != nil {
		return nil, err
	}
	for _, i := range s.Servers.Instances() {
		if i.Address()+":8300" == address {
			return i, nil
		}
	}
	return nil, fmt.Errorf("the leader is at %q, which is no server", address)
}
