package registry

import (
	"fmt"
	"maps"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/consul-mesh/mesh-buildpack/src/droplet"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/consul"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/instance"
)

// TestBurialRequests: what a death costs the servers does not grow with the survivors,
// nor what an instance asks for while nothing happens.
func TestBurialRequests(t *testing.T) {
	for _, survivors := range []int{20, 100} {
		t.Run(fmt.Sprint(survivors), func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				const deaths = 10
				n := newNeighbourhood(t, survivors+deaths)
				defer n.close()
				n.count()
				time.Sleep(2 * time.Minute)
				idle := n.count()
				// Two or three watches, and what the janitor does.
				if most := 3*(survivors+deaths) + 20; idle > most {
					t.Errorf("%d requests in two idle minutes, more than %d", idle, most)
				}
				dead := n.others(deaths)
				for _, guid := range dead {
					n.die(guid)
					time.Sleep(12 * time.Second)
				}
				asked := n.count() - idle
				time.Sleep(time.Minute)
				if buried := n.buried(dead...); buried != deaths {
					t.Errorf("%d of %d were buried", buried, deaths)
				}
				if asked > 5*deaths+idle/5 { // watches begin at other moments than before
					t.Errorf("%d requests for %d deaths beside %d survivors", asked, deaths, survivors)
				}
			})
		})
	}
}

// TestJanitorDies: when the janitor is among the dead, another takes over, few try to,
// and all are out in time.
func TestJanitorDies(t *testing.T) {
	for _, of := range []int{3, 30, 100} {
		t.Run(fmt.Sprint(of), func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				n := newNeighbourhood(t, of)
				defer n.close()
				dead := append(n.others(of/10), n.janitorNow())
				if len(dead) != of/10+1 || slices.Contains(dead, -1) {
					t.Fatalf("the janitor and others are %v", dead)
				}
				n.mutex.Lock()
				n.acquired = 0
				n.mutex.Unlock()
				n.die(dead...)
				time.Sleep(25 * time.Second)
				if buried := n.buried(dead...); buried != len(dead) {
					t.Errorf("%d of %d were buried after 25 s", buried, len(dead))
				}
				n.mutex.Lock()
				acquired := n.acquired
				n.mutex.Unlock()
				if acquired > 5 {
					t.Errorf("%d tried to be the janitor", acquired)
				}
				if again := n.janitorNow(); again < 0 || slices.Contains(dead, again) {
					t.Errorf("the janitor is %d", again)
				}
				time.Sleep(2 * time.Minute)
				if buried := n.buried(slices.Collect(maps.Keys(n.kill))...); buried != len(dead) {
					t.Errorf("%d were buried, %d are dead", buried, len(dead))
				}
			})
		})
	}
}

// TestBrake: where most of a service have ended at once, with or without the janitor,
// they are given time to be back; half of them is not most.
func TestBrake(t *testing.T) {
	for name, test := range map[string]struct {
		of, dead    int
		withJanitor bool
		brakes      bool
	}{
		"half of many":                  {90, 45, false, false},
		"two thirds of many":            {90, 60, false, true},
		"two thirds, the janitor too":   {90, 60, true, true},
		"two thirds of few":             {9, 6, false, true},
		"three of five are not so many": {5, 3, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				n := newNeighbourhood(t, test.of)
				defer n.close()
				dead := n.others(test.dead)
				if test.withJanitor {
					dead[0] = n.janitorNow()
				}
				n.die(dead...)
				time.Sleep(25 * time.Second)
				early, said := n.buried(dead...), n.said("seem dead at once")
				if noted := len(n.all[n.janitorNow()].Notes()) > 0; noted != test.brakes {
					t.Errorf("mesh status notes it: %t", noted)
				}
				time.Sleep(35 * time.Second)
				late := n.buried(dead...)
				switch {
				case late != test.dead:
					t.Errorf("%d of %d were buried after a minute", late, test.dead)
				case test.brakes && (early > 2 || !said):
					t.Errorf("%d of %d were buried after 25 s; said: %t", early, test.dead, said)
				case !test.brakes && (early != test.dead || said):
					t.Errorf("%d of %d were buried after 25 s; said: %t", early, test.dead, said)
				}
				// Who dies next is not held up by these.
				next := n.others(test.dead + 2)[test.dead:]
				next = slices.DeleteFunc(next, func(guid int) bool { return slices.Contains(dead, guid) })
				if len(next) == 0 {
					return
				}
				n.die(next[0])
				time.Sleep(25 * time.Second)
				if n.buried(next[0]) != 1 {
					t.Error("one that died later was not buried after 25 s")
				}
			})
		})
	}
}

// TestBrakeLetsGo: those whose sessions have ended and who are back in time are not
// buried.
func TestBrakeLetsGo(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		n := newNeighbourhood(t, 30)
		defer n.close()
		cut := n.others(20)
		n.mutex.Lock()
		n.cutOff = map[string]bool{}
		for _, guid := range cut {
			n.cutOff[fmt.Sprint(guid)] = true
		}
		n.mutex.Unlock()
		time.Sleep(40 * time.Second)
		n.mutex.Lock()
		n.cutOff = nil
		n.mutex.Unlock()
		time.Sleep(2 * time.Minute)
		if buried := n.buried(slices.Collect(maps.Keys(n.kill))...); buried > 0 {
			t.Errorf("%d of the living were buried", buried)
		}
		for guid := range n.kill {
			if err := n.isWell(guid); err != nil {
				t.Errorf("instance %d: %v", guid, err)
			}
		}
	})
}

// TestMercy: where all instances were cut off for so long that their sessions ended,
// the first that is back leaves the others time to be, and then takes out who is not.
func TestMercy(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		n := newNeighbourhood(t, 3)
		defer n.close()
		n.mutex.Lock()
		n.cutOff = map[string]bool{"0": true, "1": true, "2": true}
		n.mutex.Unlock()
		time.Sleep(30 * time.Second)
		n.die(2)
		for _, guid := range []string{"0", "1"} {
			n.mutex.Lock()
			delete(n.cutOff, guid)
			n.mutex.Unlock()
			time.Sleep(20 * time.Second)
		}
		time.Sleep(time.Minute)
		if living, dead := n.buried(0, 1), n.buried(2); living != 0 || dead != 1 {
			t.Errorf("%d of the living and %d of the dead were buried", living, dead)
		}
	})
}

// TestServerAndInstanceDieTogether: a server that is gone without a word does not
// keep an instance from seeing that another has died.
func TestServerAndInstanceDieTogether(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		n := newNeighbourhood(t, 2)
		defer n.close()
		dead := n.others(1)[0]
		asked, err := n.all[1-dead].servers.Pick(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		n.mutex.Lock()
		n.silent = asked
		n.mutex.Unlock()
		n.die(dead)
		time.Sleep(25 * time.Second)
		if n.buried(dead) != 1 {
			t.Error("it was not buried")
		}
	})
}

// TestDeletedKeys: where somebody deletes all keys, nobody is taken for dead, and all
// have theirs again.
func TestDeletedKeys(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		n := newNeighbourhood(t, 5)
		defer n.close()
		n.mutex.Lock()
		for key := range n.keys {
			delete(n.keys, key)
			n.written[key] = n.index
		}
		n.tick()
		n.mutex.Unlock()
		time.Sleep(5 * time.Minute)
		for guid := range n.kill {
			if err := n.isWell(guid); err != nil {
				t.Errorf("instance %d: %v", guid, err)
			}
		}
		if n.janitorNow() < 0 {
			t.Error("there is no janitor")
		}
	})
}

// TestGoodbye: who has left and is in the catalog again, by a write of his that came
// late, is taken out soon.
func TestGoodbye(t *testing.T) {
	for _, isJanitor := range []bool{false, true} {
		t.Run(fmt.Sprintf("the janitor: %t", isJanitor), func(t *testing.T) {
			inBubble(t, func(t *testing.T) { goodbye(t, isJanitor) })
		})
	}
}

func goodbye(t *testing.T, isJanitor bool) {
	n := newNeighbourhood(t, 3)
	defer n.close()
	left := n.others(1)[0]
	if isJanitor {
		left = n.janitorNow()
	}
	node := droplet.NodeName("app", fmt.Sprint(left))
	n.die(left)
	n.mutex.Lock()
	entry := n.nodes[node]
	n.remove(node)
	n.tick()
	n.mutex.Unlock()
	time.Sleep(5 * time.Second)
	n.mutex.Lock()
	n.nodes[node] = entry
	n.tick()
	n.mutex.Unlock()
	time.Sleep(instance.HoldTime)
	if got := n.buried(left); got != 2 {
		t.Errorf("it was taken out %d times, by itself and by another", got)
	}
}

// TestLeftovers: the dead go that no other lived to bury, and what an instance leaves
// that is killed between two words to the servers. What one is about to fill stays,
// and who gives its sign of life under another service, or cannot be seen.
func TestLeftovers(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		n := newNeighbourhood(t, 1)
		defer n.close()
		n.die(0)
		node := func(guid int) string { return droplet.NodeName("app", fmt.Sprint(guid)) }
		const bare, coming, elsewhere, foreign = 10, 11, 12, 13
		n.mutex.Lock()
		meta := n.nodes[node(0)].meta
		add := func(guid int, services ...string) {
			entry := &slowNode{meta: meta, services: map[string]map[string]any{}, checks: map[string]consul.Check{}}
			for _, name := range services {
				entry.services[name] = map[string]any{"Service": name}
			}
			n.nodes[node(guid)] = entry
		}
		add(bare)
		add(coming)
		add(elsewhere, "one")
		add(foreign, "one")
		n.nodes[node(foreign)].meta = maps.Clone(meta)
		n.nodes[node(foreign)].meta[instance.MetaApp] = "another"
		n.sessions["elsewhere"] = &slowSession{node(elsewhere), time.Now().Add(time.Hour)}
		n.mutex.Unlock()
		time.Sleep(time.Minute)
		n.start(1)
		time.Sleep(instance.ElectionTime + 2*time.Second)
		if n.buried(0) != 1 || n.buried(bare, coming, elsewhere, foreign, 1) != 0 {
			t.Errorf("at first: %v", n.removed)
		}
		n.mutex.Lock()
		n.sessions["coming"] = &slowSession{node(coming), time.Now().Add(time.Hour)}
		n.mutex.Unlock()
		time.Sleep(2 * time.Minute)
		if n.buried(0) != 1 || n.buried(bare) != 1 || n.buried(foreign) != 1 || n.buried(coming, elsewhere, 1) != 0 {
			t.Errorf("in the end: %v", n.removed)
		}
	})
}

// TestTenThousandRenewals: instances that watch over each other for half a day take
// the memory of those that have just begun.
func TestTenThousandRenewals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNeighbourhood(t, 2)
		defer n.close()
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
	})
}
