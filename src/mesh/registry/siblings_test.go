package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/consul-mesh/mesh-buildpack/src/mesh/consul"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/instance"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/wait"
)

// neighbourhood is what the servers have of the instances of a service, and
// counts what is asked.
type neighbourhood struct {
	mutex   sync.Mutex
	index   int
	changed chan struct{} // closed with the next change of the keys
	nodes   map[string]bool
	alive   map[string]bool // nodes with a session, and their key
	removed map[string]int  // how often a node was
	silent  string          // the server that answers nobody
	asked   int             // but for renewals of sessions
}

// change ends sessions, or begins them.
func (n *neighbourhood) change(alive bool, nodes ...string) {
	n.mutex.Lock()
	defer n.mutex.Unlock()
	for _, node := range nodes {
		if delete(n.alive, node); alive {
			n.nodes[node], n.alive[node] = true, true
		}
	}
	n.index++
	close(n.changed)
	n.changed = make(chan struct{})
}

// RoundTrip implements http.RoundTripper.
func (n *neighbourhood) RoundTrip(r *http.Request) (*http.Response, error) {
	const prefix = "consul-mesh-buildpack/one/"
	n.mutex.Lock()
	isRenewal := strings.HasPrefix(r.URL.Path, "/v1/session/renew/")
	if !isRenewal {
		n.asked++
	}
	if seen, err := strconv.Atoi(r.URL.Query().Get("index")); err == nil && seen == n.index {
		changed := n.changed
		n.mutex.Unlock()
		select {
		case <-changed:
		case <-time.After(instance.SiblingWait):
		case <-r.Context().Done():
			return nil, r.Context().Err()
		}
		n.mutex.Lock()
	}
	if n.silent == r.URL.Hostname() {
		n.mutex.Unlock()
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	defer n.mutex.Unlock()
	var entries []any
	switch path := r.URL.Path; {
	case isRenewal:
	case strings.HasPrefix(path, "/v1/kv/"):
		for _, node := range slices.Sorted(maps.Keys(n.alive)) {
			entries = append(entries, prefix+node)
		}
	case path == "/v1/catalog/service/one", path == "/v1/catalog/nodes":
		for node := range n.nodes {
			if filter := r.URL.Query().Get("filter"); filter == "" || filter == fmt.Sprintf("Node == %q", node) {
				entries = append(entries, map[string]string{"Node": node})
			}
		}
	case strings.HasPrefix(path, "/v1/session/node/"):
		if n.alive[strings.TrimPrefix(path, "/v1/session/node/")] {
			entries = append(entries, map[string]string{"ID": "session"})
		}
	case path == "/v1/catalog/deregister":
		var body struct{ Node string }
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			return nil, err
		}
		delete(n.nodes, body.Node)
		n.removed[body.Node]++
	default:
		return nil, fmt.Errorf("asked for %s", path)
	}
	body, err := json.Marshal(entries)
	header := http.Header{"X-Consul-Index": {strconv.Itoa(n.index)}}
	return &http.Response{StatusCode: http.StatusOK, Header: header, Body: io.NopCloser(strings.NewReader(string(body)))}, err
}

// live starts instances that watch over each other, and whose own sessions are
// renewed, or never are.
func (n *neighbourhood) live(t *testing.T, count int, renews bool) (all []*viaServers, names []string, kill []context.CancelFunc) {
	t.Helper()
	n.changed, n.nodes, n.alive, n.removed = make(chan struct{}), map[string]bool{}, map[string]bool{}, map[string]int{}
	n.index = 1
	for i := range count {
		n.change(true, fmt.Sprintf("app-%d", i))
	}
	for i := range count {
		v := running(t, nil, "one")
		v.Inst.GUID = strconv.Itoa(i)
		v.Log = func(string, ...any) {}
		v.servers = &consul.Servers{Names: []string{"127.0.0.2", "127.0.0.3"}}
		v.Consul.HTTP.Transport = &consul.ToServer{Servers: v.servers, Port: consul.ServerHTTP, Transport: n}
		v.noteRenewed()
		ctx, cancel := context.WithCancel(t.Context())
		all, names, kill = append(all, v), append(names, v.Inst.NodeName()), append(kill, cancel)
		go v.watchSiblings(ctx)
		go func() {
			for renews && wait.Pause(ctx, instance.RenewEvery) == nil {
				_ = v.renewSession(ctx) // a server that is silent is what a test is about
			}
		}()
	}
	return all, names, kill
}

// count is what has been asked since it was last counted.
func (n *neighbourhood) count() int {
	n.mutex.Lock()
	defer n.mutex.Unlock()
	defer func() { n.asked = 0 }()
	return n.asked
}

// TestNoHerd: of a hundred instances a few bury those that die, once each, and what
// all of them ask for together grows with the dead, not with their square.
func TestNoHerd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const instances, deaths = 100, 20
		var n neighbourhood
		_, names, kill := n.live(t, instances, true)
		time.Sleep(5 * time.Second)
		if asked := n.count(); asked > 4*instances {
			t.Errorf("%d requests when %d instances look for the first time", asked, instances)
		}
		const starts = 20
		for i := range starts {
			n.change(true, fmt.Sprintf("app-new%d", i))
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(5 * time.Second)
		if asked := n.count(); asked > starts*instances {
			t.Errorf("%d requests when %d more start", asked, starts)
		}
		for i := range deaths {
			kill[i]()
			n.change(false, names[i])
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(10 * time.Second)
		const most = 10 * deaths * (instances - deaths)
		if asked := n.count(); asked > most {
			t.Errorf("%d requests when %d of %d instances die, more than %d", asked, deaths, instances, most)
		}
		removals := 0
		for i, name := range names {
			times := n.removed[name]
			if removals += times; i < deaths && times == 0 || i >= deaths && times > 0 {
				t.Errorf("instance %d of %d dead ones was taken out %d times", i, deaths, times)
			}
		}
		if removals > 2*deaths {
			t.Errorf("%d nodes were taken out %d times", deaths, removals)
		}
		for _, end := range kill {
			end()
		}
		synctest.Wait()
	})
}

// TestMercy: where instances could not reach the servers for so long that their
// sessions ended, the first that is back leaves the others time to be, and then
// takes out who is not.
func TestMercy(t *testing.T) {
	t.Parallel()
	for name, ended := range map[string]bool{"its session has ended": true, "its session has just not ended": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var n neighbourhood
				all, names, kill := n.live(t, 3, false)
				time.Sleep(time.Second)
				first, late, dead := all[0], names[1], names[2]
				kill[1]()
				kill[2]()
				time.Sleep(18 * time.Second)
				if ended {
					first.mutex.Lock()
					first.noteRenewed() // by the session that it has again
					first.mutex.Unlock()
				}
				n.change(false, late, dead)
				time.Sleep(5 * time.Second)
				n.change(true, late)
				time.Sleep(time.Minute)
				n.mutex.Lock()
				removed := maps.Clone(n.removed)
				n.mutex.Unlock()
				if removed[late] != 0 || removed[dead] != 1 {
					t.Errorf("taken out: %v", removed)
				}
				kill[0]()
				synctest.Wait()
			})
		})
	}
}

// TestServerAndInstanceDieTogether: a server that is gone without a word does not
// keep an instance from seeing that another has died.
func TestServerAndInstanceDieTogether(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var n neighbourhood
		all, names, kill := n.live(t, 2, true)
		time.Sleep(12 * time.Second)
		asked, err := all[0].servers.Pick(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		n.mutex.Lock()
		n.silent = asked
		n.mutex.Unlock()
		kill[1]()
		n.change(false, names[1])
		time.Sleep(instance.RenewEvery + instance.CallTimeout + 2*time.Second)
		n.mutex.Lock()
		defer n.mutex.Unlock()
		if n.removed[names[1]] != 1 {
			t.Errorf("taken out: %v", n.removed)
		}
		kill[0]()
		synctest.Wait()
	})
}

// TestTenThousandRenewals: instances that watch over each other for half a day take
// the memory of those that have just begun.
func TestTenThousandRenewals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n neighbourhood
		_, _, kill := n.live(t, 2, true)
		state := func() (heap uint64, goroutines int) {
			synctest.Wait()
			runtime.GC()
			var stats runtime.MemStats
			runtime.ReadMemStats(&stats)
			return stats.HeapAlloc, runtime.NumGoroutine()
		}
		time.Sleep(time.Hour)
		heap, goroutines := state()
		n.count()
		time.Sleep(10_000 * instance.RenewEvery)
		laterHeap, laterGoroutines := state()
		if asked := n.count(); asked < 1_000 {
			t.Errorf("only %d questions were asked", asked)
		}
		const most = 256 << 10
		if laterHeap > heap+most || laterGoroutines > goroutines+2 {
			t.Errorf("heap %d and then %d bytes, %d and then %d goroutines", heap, laterHeap, goroutines, laterGoroutines)
		}
		for _, end := range kill {
			end()
		}
		synctest.Wait()
	})
}
