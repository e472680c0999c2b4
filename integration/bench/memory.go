package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/consul-mesh/mesh-buildpack/integration/cell"
	"github.com/consul-mesh/mesh-buildpack/integration/foundation"
)

// beat is how often the proxy looks at its Envoy (src/runtime).
const beat = 500 * time.Millisecond

// meshMemory adds up what the container program's processes have resident in
// one container (Rss: pages of the program that two of them share are counted
// twice). The caller has run since an earlier measure where there was one, and
// the growth is that of its health cycles until now. It is of what is theirs
// alone: how much of the program's file is resident is the kernel's choice.
func meshMemory(ctx context.Context, b *bench) ([]result, error) {
	app, err := b.caller(ctx, ours)
	if err != nil {
		return nil, err
	}
	i := app.Instance(0)
	<-time.After(30 * time.Second)
	now, err := look(i)
	if err != nil {
		return nil, err
	}
	cycles := now.at.Sub(b.memory.at) / beat
	say("mesh-memory: %v at first, %v after %d health cycles", b.memory, now, cycles)
	r := result{Name: "mesh-memory", Unit: "MB", Ours: max(b.memory.resident, now.resident)}
	grown := result{Name: "mesh-memory-growth", Unit: "MB", Ours: now.own - b.memory.own}
	return []result{r.aimedAt(goal{atMost: 16}), grown.aimedAt(goal{atMost: 0.5})}, nil
}

// memory is that of all processes of mesh in a container, in MB.
type memory struct {
	at       time.Time
	resident float64 // Rss
	own      float64 // anonymous memory
}

func (m *memory) String() string {
	return fmt.Sprintf("%.2f MB resident, %.2f MB of them their own", m.resident, m.own)
}

// firstLook is to compare later ones with. A start is no measure for growth.
func firstLook(i *cell.Instance) (*memory, error) {
	<-time.After(10 * time.Second)
	return look(i)
}

func look(i *cell.Instance) (*memory, error) {
	parts, err := foundation.Parts(i)
	if err != nil {
		return nil, err
	}
	sum := &memory{at: time.Now()}
	found := 0
	for part, process := range parts {
		switch part {
		case foundation.MeshAgent, foundation.MeshProxy, foundation.MeshApp:
			if err := sum.add(process.HostPid); err != nil {
				return nil, err
			}
			found++
		}
	}
	if found < 2 {
		return nil, fmt.Errorf("found %d processes of mesh in %v", found, parts)
	}
	return sum, nil
}

func (m *memory) add(pid int) error {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line) // NAME: NUMBER kB
		kb, err := strconv.ParseFloat(fields[1], 64)
		switch {
		case fields[0] == "Rss:" && err == nil:
			m.resident += kb / 1024
		case fields[0] == "Anonymous:" && err == nil:
			m.own += kb / 1024
		}
	}
	return nil
}
