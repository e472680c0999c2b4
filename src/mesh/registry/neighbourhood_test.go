package registry

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/consul-mesh/mesh-buildpack/src/droplet"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/instance"
)

// neighbourhood are instances of one service, by their GUIDs, and their servers.
type neighbourhood struct {
	*slowServers
	t     *testing.T
	ctx   context.Context
	end   context.CancelFunc
	lives sync.WaitGroup

	lines []string // of their logs; guarded by slowServers.mutex
	kill  map[int]context.CancelFunc
	all   map[int]*viaServers // guarded by slowServers.mutex
}

// newNeighbourhood has instances with GUIDs from 0 that are in rotation, with the
// session of each renewed at another moment.
func newNeighbourhood(t *testing.T, count int) *neighbourhood {
	t.Helper()
	n := &neighbourhood{
		slowServers: newSlowServers(func() time.Duration { return 5 * time.Millisecond }), t: t,
		kill: map[int]context.CancelFunc{}, all: map[int]*viaServers{},
	}
	n.ctx, n.end = context.WithCancel(t.Context())
	go n.endSessions(n.ctx)
	for guid := range count {
		n.start(guid)
		time.Sleep(instance.RenewEvery * 7 / 10 / time.Duration(count))
	}
	time.Sleep(10 * time.Second)
	return n
}

func (n *neighbourhood) start(guid int) {
	ctx, kill := context.WithCancel(n.ctx)
	n.kill[guid] = kill
	n.lives.Go(func() {
		n.slowServers.live(ctx, n.t, guid, func(v *viaServers) {
			v.Log = func(format string, args ...any) {
				n.mutex.Lock()
				defer n.mutex.Unlock()
				n.lines = append(n.lines, fmt.Sprintf(format, args...))
			}
			n.mutex.Lock()
			defer n.mutex.Unlock()
			n.all[guid] = v
		})
	})
}

// die kills instances at one moment.
func (n *neighbourhood) die(guids ...int) {
	for _, guid := range guids {
		n.kill[guid]()
	}
}

// close ends everything.
func (n *neighbourhood) close() {
	n.end()
	n.lives.Wait()
	synctest.Wait()
}

// janitorNow is the GUID of the janitor, -1 if there is none.
func (n *neighbourhood) janitorNow() int {
	n.mutex.Lock()
	defer n.mutex.Unlock()
	session := n.keys[droplet.JanitorKey("one", "app", "")]
	for guid, v := range n.all {
		if v.ownSession() == session && session != "" {
			return guid
		}
	}
	return -1
}

// count is what has been asked since it was last counted.
func (n *neighbourhood) count() int {
	n.mutex.Lock()
	defer n.mutex.Unlock()
	defer func() { n.asked = 0 }()
	return n.asked
}

// buried is how often the nodes of instances were taken out of the catalog.
func (n *neighbourhood) buried(guids ...int) (times int) {
	n.mutex.Lock()
	defer n.mutex.Unlock()
	for _, guid := range guids {
		times += n.removed[droplet.NodeName("app", fmt.Sprint(guid))]
	}
	return times
}

func (n *neighbourhood) said(text string) bool {
	n.mutex.Lock()
	defer n.mutex.Unlock()
	return slices.ContainsFunc(n.lines, func(line string) bool { return strings.Contains(line, text) })
}

// others are some of the instances that are not the janitor, and with it if all are
// wanted.
func (n *neighbourhood) others(count int) (guids []int) {
	janitor := n.janitorNow()
	for _, guid := range slices.Sorted(maps.Keys(n.kill)) {
		if guid != janitor && len(guids) < count {
			guids = append(guids, guid)
		}
	}
	return guids
}

func inBubble(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, test)
}
