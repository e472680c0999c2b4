package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/consul-mesh/mesh-buildpack/integration/cell"
	"github.com/consul-mesh/mesh-buildpack/integration/foundation"
)

// beat is how often the proxy looks at its Envoy (src/mesh/instance).
const beat = 500 * time.Millisecond

// meshMemory adds up what is resident in a container of an app that has one
// instance, some time after its start: of the container program's processes, and
// of all that the mesh adds. Pages that processes share are counted once (Pss):
// an app with more instances would have them counted as a part.
//
// The growth is that of a caller's health cycles. It has run since an earlier
// measure where there was one. Only memory that is the processes' own counts:
// how much of the program's file is resident is the kernel's choice.
func meshMemory(ctx context.Context, b *bench) ([]result, error) {
	watched, err := b.caller(ctx, ours)
	if err != nil {
		return nil, err
	}
	first := b.memory
	select {
	case <-first.done:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if first.err != nil {
		return nil, first.err
	}
	all, err := b.atRest(ctx, ours, agentless)
	if err != nil {
		return nil, err
	}
	now, err := look(watched.Instance(0))
	if err != nil {
		return nil, err
	}
	cycles := now.at.Sub(first.at) / beat
	say("mesh-memory: %.2f MB of its own at first, %.2f MB after %d health cycles", first.mesh.own, now.mesh.own, cycles)
	agent, without := all[ours], all[agentless]
	return []result{
		result{Name: "mesh-memory", Unit: "MB", Ours: agent.mesh.once}.aimedAt(goal{atMost: 16}),
		{Name: "mesh-memory-rss", Unit: "MB", Ours: agent.mesh.resident},
		result{Name: "mesh-memory-growth", Unit: "MB", Ours: now.mesh.own - first.mesh.own}.aimedAt(goal{atMost: 0.5}),
		result{Name: "mesh-memory-agentless", Unit: "MB", Ours: without.mesh.once}.beside(agent.mesh.once).aimedAt(goal{atMost: 12}),
		result{Name: "mesh-proxy-rss-agentless", Unit: "MB", Ours: without.proxy.resident}.beside(agent.proxy.resident).aimedAt(goal{atMost: 12}),
		result{Name: "mesh-memory-rss-agentless", Unit: "MB", Ours: without.mesh.resident}.beside(agent.mesh.resident),
		result{Name: "instance-memory-agentless", Unit: "MB", Ours: without.all.once}.beside(agent.all.once).aimedAt(goal{ofAgent: 0.45}),
		result{Name: "instance-memory-rss-agentless", Unit: "MB", Ours: without.all.resident}.beside(agent.all.resident),
	}, nil
}

// atRest looks at one instance of each way, half a minute after its start.
func (b *bench) atRest(ctx context.Context, ways ...way) (map[way]*memory, error) {
	apps := map[way]*cell.RunningApp{}
	all := map[way]*memory{}
	err := func() error {
		for _, w := range ways {
			app, err := b.start(ctx, w, webService, "./echo", 1)
			if err != nil {
				return err
			}
			apps[w] = app
			if err := app.WaitRunning(ctx); err != nil {
				return err
			}
		}
		<-time.After(30 * time.Second)
		for w, app := range apps {
			m, err := look(app.Instance(0))
			if err != nil {
				return fmt.Errorf("%s: %w", w, err)
			}
			say("mesh-memory, %s: %v", w, m)
			all[w] = m
		}
		return nil
	}()
	for w, app := range apps {
		err = errors.Join(err, b.gone(ctx, w, app))
	}
	return all, err
}

// memory is that of a container's processes.
type memory struct {
	at               time.Time
	proxy, mesh, all pages // of mesh proxy, of all processes of mesh, and of all that the mesh adds
}

func (m *memory) String() string {
	return fmt.Sprintf("mesh proxy %v; mesh %v; with Envoy and agent %v", m.proxy, m.mesh, m.all)
}

// pages are in MB.
type pages struct {
	resident float64 // Rss
	once     float64 // Pss
	own      float64 // anonymous memory
}

func (p pages) String() string {
	return fmt.Sprintf("%.2f MB resident (Rss %.2f MB, %.2f MB their own)", p.once, p.resident, p.own)
}

// firstLook is to compare later ones with.
type firstLook struct {
	*memory
	err  error
	done chan struct{} // closed when the others are set
}

// settled is when an instance has what it will always need: Go collects garbage
// at least every two minutes, and takes memory for it the first time.
const settled = 150 * time.Second

// lookLater takes the first look at an app when it has settled.
func lookLater(app *cell.RunningApp) *firstLook {
	first := &firstLook{done: make(chan struct{})}
	time.AfterFunc(settled, func() {
		defer close(first.done)
		first.memory, first.err = look(app.Instance(0))
	})
	return first
}

func look(i *cell.Instance) (*memory, error) {
	parts, err := foundation.Parts(i)
	if err != nil {
		return nil, err
	}
	m := &memory{at: time.Now()}
	found := 0
	for part, process := range parts {
		if part == foundation.Echo {
			continue // the app itself
		}
		of, err := pagesOf(process.HostPid)
		if err != nil {
			return nil, err
		}
		m.all.add(of)
		if part == foundation.MeshProxy {
			m.proxy = of
		}
		switch part {
		case foundation.MeshAgent, foundation.MeshProxy, foundation.MeshApp:
			m.mesh.add(of)
			found++
		}
	}
	if found < 2 || parts[foundation.Envoy].HostPid == 0 {
		return nil, fmt.Errorf("found %v", parts)
	}
	return m, nil
}

func (p *pages) add(other pages) {
	p.resident += other.resident
	p.once += other.once
	p.own += other.own
}

func pagesOf(pid int) (p pages, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return p, err
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line) // NAME: NUMBER kB
		kb, err := strconv.ParseFloat(fields[1], 64)
		if err != nil {
			continue // the first line
		}
		switch fields[0] {
		case "Rss:":
			p.resident = kb / 1024
		case "Pss:":
			p.once = kb / 1024
		case "Anonymous:":
			p.own = kb / 1024
		}
	}
	return p, nil
}
