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

// outage is how long the servers are gone: longer than a session lives that is
// not renewed, and than gossip takes to give a member up.
const outage = 15 * time.Second

// TestServersGone: without any server, who has been called can be called, on
// connections that are open and on new ones. Nobody is taken for dead for it,
// and what starts meanwhile gets ready when the servers are back.
func TestServersGone(t *testing.T) { inBothModes(t, serversGone) }

func serversGone(t *testing.T, m mode) {
	called := m.echo(t, "lines")
	called.Command = "./echo -tcp -on-term finish"
	backend := m.start(t, called)
	caller := m.start(t, m.echo(t, "liner", `upstream "lines" { port = 9001 }`), "lines")
	served(t, caller, backend)

	var loads []*load.Load
	for _, kind := range []load.Kind{load.TCPNew, load.TCPLong} {
		loads = append(loads, load.Start(load.Plan{Kind: kind, Target: "127.0.0.1:9001", Rate: 50, Connections: 3, Dial: caller.Instance(0).Dial}))
	}
	stopped := func() {
		for _, l := range loads {
			if result := l.Stop(); result.Lost > 0 || result.Sent == 0 {
				t.Errorf("lost: %v", result)
			} else {
				t.Log(result)
			}
		}
	}
	<-time.After(time.Second)
	var restore []func() error
	for _, server := range shared.Servers.Instances() {
		undo, err := shared.Silence(server)
		if err != nil {
			t.Fatal(err)
		}
		restore = append(restore, undo)
	}
	<-time.After(outage / 3)
	if err := backend.Scale(deadline(t), 2); err != nil {
		t.Error(err)
	}
	<-time.After(outage - outage/3)
	if backend.Instance(1).State() == cell.Running {
		t.Error("the instance without servers got ready")
	}
	if m.gossip { // the servers have given the agents up, and say so before they meet them again
		stopped()
	}
	for _, undo := range restore {
		if err := undo(); err != nil {
			t.Fatal(err)
		}
	}
	back := time.Now()
	running(t, backend)
	served(t, caller, backend)
	t.Logf("all was well %.1f s after the servers were back", time.Since(back).Seconds())
	if m.gossip {
		return
	}
	// Sessions that were not renewed would end until now.
	first := foundation.SidecarOf(backend.Instance(0))
	for time.Since(back) < sweptWithin {
		endpoints, err := foundation.Endpoints(t.Context(), caller.Instance(0), "lines")
		if err == nil && endpoints[first] != "healthy" {
			err = fmt.Errorf("the caller's Envoy has %v, and not %s", endpoints, first)
		}
		if err != nil {
			t.Fatal(err)
		}
		<-time.After(100 * time.Millisecond)
	}
	stopped()
	for _, app := range []*cell.RunningApp{backend, caller} {
		for _, line := range app.Logs() {
			if strings.Contains(line.Text, "taken out of the catalog") || strings.Contains(line.Text, "took this instance for dead") {
				t.Errorf("somebody was taken for dead: %s", line)
			}
		}
	}
}
