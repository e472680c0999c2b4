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
// one container, pages that they share counted once (Pss). The caller has run
// since an earlier measure where there was one, and the growth is that of its
// health cycles until now.
func meshMemory(ctx context.Context, b *bench) ([]result, error) {
	app, err := b.caller(ctx, ours)
	if err != nil {
		return nil, err
	}
	i := app.Instance(0)
	if b.memory == nil {
		<-time.After(10 * time.Second) // a start is no measure for growth
		if b.memory, err = firstLook(i); err != nil {
			return nil, err
		}
	}
	<-time.After(30 * time.Second)
	now, err := meshMB(i)
	if err != nil {
		return nil, err
	}
	cycles := time.Since(b.memory.at) / beat
	say("mesh-memory: %.2f MB at first, %.2f MB after %d health cycles", b.memory.mb, now, cycles)
	r := result{Name: "mesh-memory", Unit: "MB", Ours: max(b.memory.mb, now)}
	grown := result{Name: fmt.Sprintf("mesh-memory-growth-%d-cycles", cycles), Unit: "MB", Ours: now - b.memory.mb}
	return []result{r.aimedAt(goal{atMost: 16}), grown}, nil
}

// memory is a first look, to compare a later one with.
type memory struct {
	at time.Time
	mb float64
}

func firstLook(i *cell.Instance) (*memory, error) {
	mb, err := meshMB(i)
	return &memory{time.Now(), mb}, err
}

func meshMB(i *cell.Instance) (float64, error) {
	parts, err := foundation.Parts(i)
	if err != nil {
		return 0, err
	}
	var sum float64
	found := 0
	for part, process := range parts {
		switch part {
		case foundation.MeshAgent, foundation.MeshProxy, foundation.MeshApp:
			kb, err := pss(process.HostPid)
			if err != nil {
				return 0, err
			}
			sum += kb / 1024
			found++
		}
	}
	if found < 2 {
		return 0, fmt.Errorf("found %d processes of mesh in %v", found, parts)
	}
	return sum, nil
}

// pss is the resident memory of a process in kB.
func pss(pid int) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, found := strings.CutPrefix(line, "Pss:"); found {
			return strconv.ParseFloat(strings.Fields(rest)[0], 64)
		}
	}
	return 0, fmt.Errorf("process %d has no Pss", pid)
}
