package mesh

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/consul-mesh/mesh-buildpack/integration/cell"
	"github.com/consul-mesh/mesh-buildpack/integration/foundation"
	"github.com/consul-mesh/mesh-buildpack/integration/load"
)

// outage is how long the servers are gone: longer than the time that a session
// has, and than gossip takes to give a member up.
const outage = 15 * time.Second

// TestServersGone: without any server, who has been called can be called, on
// connections that are open and on new ones. Nobody is taken for dead for it,
// and what starts meanwhile gets ready when the servers are back. Both modes go
// through the same outage.
func TestServersGone(t *testing.T) {
	var sides []*outageSide
	for _, m := range []mode{withAgent, agentless} {
		sides = append(sides, newOutageSide(t, m))
	}
	<-time.After(time.Second)
	restore := silenceServers(t)
	<-time.After(outage / 3)
	for _, s := range sides {
		if err := s.backend.Scale(deadline(t), 2); err != nil {
			t.Error(err)
		}
	}
	rest := time.After(outage - outage/3)
	for _, s := range sides {
		statusNames(t, s.caller, "no server can be reached on 8")
	}
	<-rest
	for _, s := range sides {
		if s.backend.Instance(1).State() == cell.Running {
			t.Errorf("%s: the instance without servers got ready", s.mode.name)
		}
		if s.mode.gossip { // the servers have given the agents up, and say so before they meet them again
			s.stopLoads(t)
			s.startLoads()
		}
	}
	for _, undo := range restore {
		if err := undo(); err != nil {
			t.Fatal(err)
		}
	}
	back := time.Now()
	for _, s := range sides {
		running(t, s.backend)
		served(t, s.caller, s.backend)
		t.Logf("%s: all was well %.1f s after the servers were back", s.mode.name, time.Since(back).Seconds())
	}
	sides[1].nobodyIsTakenForDead(t, back.Add(sweptWithin))
	for _, l := range sides[0].loads {
		result := l.Stop()
		t.Logf("%s, when the servers come back: %v", sides[0].mode.name, result)
		if late := result.LastLoss.Sub(back); late > metAgain {
			t.Errorf("a request was lost %v after the servers were back", late)
		}
	}
}

// metAgain is the longest that gossip takes until servers and agents that have
// given each other up know better.
const metAgain = 15 * time.Second

// outageSide are the apps of one mode.
type outageSide struct {
	mode            mode
	backend, caller *cell.RunningApp
	loads           []*load.Load
}

func newOutageSide(t *testing.T, m mode) *outageSide {
	t.Helper()
	s := &outageSide{mode: m}
	called := m.echo(t, "lines-"+m.name)
	called.Command = "./echo -tcp -on-term finish"
	s.backend = m.start(t, called)
	s.caller = m.start(t, m.echo(t, "liner-"+m.name, fmt.Sprintf("upstream %q { port = 9001 }", called.Name)), called.Name)
	served(t, s.caller, s.backend)
	s.startLoads()
	return s
}

func (s *outageSide) startLoads() {
	s.loads = nil
	for _, kind := range []load.Kind{load.TCPNew, load.TCPLong} {
		s.loads = append(s.loads, load.Start(load.Plan{
			Kind: kind, Target: "127.0.0.1:9001", Rate: 50, Connections: 3, Timeout: answered, Dial: s.caller.Instance(0).Dial,
		}))
	}
}

func (s *outageSide) stopLoads(t *testing.T) {
	t.Helper()
	for _, l := range s.loads {
		if result := l.Stop(); result.Lost > 0 || result.Sent == 0 {
			t.Errorf("%s: lost: %v", s.mode.name, result)
		} else {
			t.Logf("%s: %v", s.mode.name, result)
		}
	}
}

// nobodyIsTakenForDead looks until sessions that were not renewed would have
// ended.
func (s *outageSide) nobodyIsTakenForDead(t *testing.T, until time.Time) {
	t.Helper()
	first := foundation.SidecarOf(s.backend.Instance(0))
	for time.Now().Before(until) {
		endpoints, err := foundation.Endpoints(t.Context(), s.caller.Instance(0), s.backend.App().Name)
		if err == nil && endpoints[first] != "healthy" {
			err = fmt.Errorf("the caller's Envoy has %v, and not %s", endpoints, first)
		}
		if err != nil {
			t.Fatal(err)
		}
		<-time.After(100 * time.Millisecond)
	}
	s.stopLoads(t)
	for _, app := range []*cell.RunningApp{s.backend, s.caller} {
		for _, line := range app.Logs() {
			if strings.Contains(line.Text, "taken out of the catalog") || strings.Contains(line.Text, "took this instance for dead") {
				t.Errorf("somebody was taken for dead: %s", line)
			}
		}
	}
}

// silenceServers has all servers silent until what it returns is called.
func silenceServers(t *testing.T) (restore []func() error) {
	t.Helper()
	for _, server := range shared.Servers.Instances() {
		undo, err := shared.Silence(server)
		if err != nil {
			t.Fatal(err)
		}
		restore = append(restore, undo)
	}
	return restore
}
