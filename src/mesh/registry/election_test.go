package registry

import (
	"testing"
	"time"

	"github.com/consul-mesh/mesh-buildpack/src/mesh/instance"
)

// TestElectionRequests: when the janitor dies, each survivor asks twice: whether there
// is another one after a while, and then again what becomes of that.
func TestElectionRequests(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		const survivors = 100
		n := newNeighbourhood(t, survivors+1)
		defer n.close()
		dead := n.janitorNow()
		n.count()
		n.die(dead)
		const until = 30 * time.Second // a session ends within 20 s
		time.Sleep(until)
		asked := n.count()
		if n.buried(dead) != 1 || n.janitorNow() < 0 {
			t.Fatalf("the janitor was buried %d times, the next one is %d", n.buried(dead), n.janitorNow())
		}
		watches := survivors * int(until) / int(instance.WatchWait) // that end meanwhile
		if most := 2*survivors + watches + 20; asked > most {
			t.Errorf("%d requests, more than %d", asked, most)
		}
	})
}
