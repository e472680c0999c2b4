package mesh

import (
	"strings"
	"syscall"
	"testing"

	"github.com/consul-mesh/mesh-buildpack/integration/cell"
)

const (
	notEnough = "not enough memory: the kernel has killed "
	// endless keeps in memory all that it has read of its only line.
	endless = "tail /dev/zero"
)

// TestNotEnoughMemory: where the kernel kills for want of memory, the failed
// start, the status and the end of an instance say so.
func TestNotEnoughMemory(t *testing.T) { inBothModes(t, notEnoughMemory) }

func notEnoughMemory(t *testing.T, m mode) {
	if err := cell.MemoryLimits(); err != nil {
		t.Skip("NOT TESTED: ", err)
	}
	if m.agents > 0 {
		m.consul = strings.Replace(m.consul, "consul {", "consul {\n  memory = 16", 1)
	}
	app := m.echo(t, "hungry")
	appendMesh(t, app, "envoy { memory = 16 }\n") // to be started with less than it takes
	app.EnforceMemory = true
	droplet := stage(t, app)
	t.Run("to start", func(t *testing.T) {
		app.Memory = 17 + 16*m.agents // the least that the platform takes
		hungry := m.launchDroplet(t, app, droplet)
		waitLog(t, hungry, "mesh: failed: ")
		waitLog(t, hungry, "mesh: hint: "+notEnough)
	})
	app.Memory = 512
	t.Run("to run", func(t *testing.T) {
		hungry := running(t, m.launchDroplet(t, app, droplet))
		output, status, err := hungry.Instance(0).SSH(deadline(t), endless)
		if err != nil || status.Signal != syscall.SIGKILL {
			t.Fatalf("%v %v: %s", status, err, output)
		}
		s, text, code := statusOf(t, hungry)
		if code != 1 || len(s.Problems) != 1 || !strings.HasPrefix(s.Problems[0], notEnough+"1 processes") {
			t.Errorf("exit status %d:\n%s", code, text)
		}
		kill(t, hungry.Instance(0), "bin/envoy")
		waitLog(t, hungry, "mesh: failed: the Envoy of hungry ended: signal: killed")
		waitLog(t, hungry, "mesh: hint: "+notEnough)
	})
	t.Run("for the app", func(t *testing.T) {
		app.Command = "exec " + endless
		hungry := m.launchDroplet(t, app, droplet)
		waitLog(t, hungry, "mesh: the app has ended")
		waitLog(t, hungry, "mesh: hint: "+notEnough)
	})
}
