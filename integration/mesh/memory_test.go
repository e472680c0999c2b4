package mesh

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/consul-mesh/mesh-buildpack/integration/cell"
	"github.com/consul-mesh/mesh-buildpack/integration/foundation"
	"github.com/consul-mesh/mesh-buildpack/integration/load"
)

const (
	notEnough = "not enough memory: the kernel has killed "
	// tooLittle is what is said where nobody was killed, but programs do not fit.
	tooLittle = "not enough memory: the kernel keeps reading programs again"
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
		either := regexp.MustCompile("^mesh: hint: (" + notEnough + "|" + tooLittle + ")")
		if _, err := hungry.WaitLogMatch(deadline(t), either); err != nil {
			t.Fatal(err)
		}
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

// TestEnoughMemory: HotROD's four apps, pushed with as much memory as is enforced,
// the pages of their droplets included, answer under load, and nothing is killed.
func TestEnoughMemory(t *testing.T) { inBothModes(t, enoughMemory) }

func enoughMemory(t *testing.T, m mode) {
	if err := cell.MemoryLimits(); err != nil {
		t.Skip("NOT TESTED: ", err)
	}
	type staged struct {
		app     cell.App
		droplet *cell.Droplet
	}
	apps := map[string]staged{}
	for name := range foundation.HotRODUpstreams {
		app := m.fixture(t, "hotrod/"+name, shared.Binaries.HotROD())
		app.EnforceMemory = true
		apps[name] = staged{app, stage(t, app)}
	}
	for _, limit := range []int{192, 256} {
		t.Run(fmt.Sprintf("%d MB", limit), func(t *testing.T) {
			started := map[string]*cell.RunningApp{}
			for name, upstreams := range foundation.HotRODUpstreams {
				s := apps[name]
				s.app.Memory = limit
				started[name] = m.launchDroplet(t, s.app, s.droplet, upstreams...)
			}
			for _, app := range started {
				running(t, app)
			}
			eventually(t, "a dispatch has data from all three services", func(ctx context.Context) error {
				_, _, err := shared.Dispatch(ctx)
				return err
			})
			calls := load.Start(load.Plan{
				Kind: load.HTTP, Rate: 50, Dial: started["frontend"].Instance(0).Dial,
				Target: "http://127.0.0.1:8083/route?pickup=1,2&dropoff=3,4",
			})
			for range 10 {
				if _, answer, err := shared.Dispatch(deadline(t)); err != nil {
					t.Errorf("a dispatch failed: %v: %s", err, answer)
				}
			}
			if result := calls.Stop(); result.Lost > 0 {
				t.Errorf("of the calls through the mesh were lost: %v", result)
			}
			for name, app := range started {
				use, err := app.Instance(0).MemoryUse()
				if err != nil {
					t.Fatal(err)
				}
				t.Logf("%s: %d MB of its own, %d MB of files, %d MB at most; %d reads", name, use.Own>>20, use.Files>>20, use.Peak>>20, use.Reads)
				if use.Kills > 0 {
					t.Errorf("%s: %d were killed", name, use.Kills)
				}
				if use.Files < 64<<20 { // Envoy's program alone has more that is used
					t.Errorf("%s: it does not pay for its droplet", name)
				}
			}
		})
	}
}
