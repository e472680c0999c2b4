package registry

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/consul-mesh/mesh-buildpack/src/droplet"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/consul"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/instance"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/wait"
)

// from are the servers as an instance reaches them.
type from struct {
	*slowServers
	guid string
}

// RoundTrip implements http.RoundTripper.
func (f from) RoundTrip(r *http.Request) (*http.Response, error) {
	r.Header.Set(fromGUID, f.guid)
	return f.slowServers.RoundTrip(r)
}

// live is an instance from its start until ctx ends.
func (s *slowServers) live(ctx context.Context, t *testing.T, guid int, with func(*viaServers)) {
	t.Helper()
	v := viaScripted(t, nil, "one")
	v.servers = &consul.Servers{Names: []string{"127.0.0.2", "127.0.0.3"}}
	v.Consul.HTTP.Transport = &consul.ToServer{Servers: v.servers, Port: consul.ServerHTTP, Transport: from{s, strconv.Itoa(guid)}}
	v.Log = func(string, ...any) {}
	v.Inst.GUID, v.Inst.Address = strconv.Itoa(guid), netip.MustParseAddr(fmt.Sprintf("10.1.0.%d", guid))
	with(v)
	r := v.Services[0]
	r.sidecar().Checks = []droplet.Check{{CheckID: droplet.ReadyCheckID(r.ID), Name: "ready"}}
	go v.stayAlive(ctx)
	start, cancel := context.WithTimeout(ctx, 50*time.Second)
	defer cancel()
	if err := wait.PollUnbounded(start, func(ctx context.Context) error { return v.Register(ctx, r) }); err != nil {
		t.Errorf("instance %d has not been registered: %v", guid, err)
		return
	}
	r.Registered.Store(true)
	r.Works.Store(true)
	for v.Say(ctx, r, consul.Passing, "") != nil {
		if wait.Pause(ctx, instance.Beat) != nil {
			t.Errorf("instance %d does not get into rotation", guid)
			return
		}
	}
	v.watchSiblings(ctx)
}

// isWell says what is wrong with an instance in the catalog.
func (s *slowServers) isWell(guid int) error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	name := droplet.NodeName("app", strconv.Itoa(guid))
	node := s.nodes[name]
	switch {
	case s.removed[name] > 0:
		return fmt.Errorf("it was taken out of the catalog %d times", s.removed[name])
	case node == nil:
		return fmt.Errorf("the catalog does not have it")
	case node.address != fmt.Sprintf("10.1.0.%d", guid):
		return fmt.Errorf("the catalog has it at %q", node.address)
	case len(node.services) != 2:
		return fmt.Errorf("the catalog has %d services of it", len(node.services))
	case node.checks[droplet.ReadyCheckID("one")].Status != consul.Passing:
		return fmt.Errorf("its check is %v", node.checks)
	case s.keys[droplet.AliveKeys("one")+name] == "":
		return fmt.Errorf("it has no key")
	}
	return nil
}

// TestSlowWrites: where the servers take seconds for a write, instances that start
// are not taken for dead by those that are there, nothing stays of a write that came
// late, and all of them get into rotation.
func TestSlowWrites(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ least, most time.Duration }{
		{time.Second, 3 * time.Second}, {500 * time.Millisecond, 4 * time.Second},
	} {
		t.Run(fmt.Sprintf("%v to %v", test.least, test.most), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				const siblings, starts = 10, 50
				s := newSlowServers(func() time.Duration { return test.least + rand.N(test.most-test.least) })
				ctx, cancel := context.WithCancel(t.Context())
				go s.endSessions(ctx)
				var lives sync.WaitGroup
				for guid := range siblings + starts {
					lives.Go(func() { s.live(ctx, t, guid, func(*viaServers) {}) })
					if guid >= siblings {
						time.Sleep(300 * time.Millisecond)
					}
				}
				time.Sleep(2 * time.Minute)
				for guid := range siblings + starts {
					if err := s.isWell(guid); err != nil {
						t.Errorf("instance %d: %v", guid, err)
					}
				}
				cancel()
				lives.Wait()
				synctest.Wait()
			})
		})
	}
}
