package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/consul-mesh/mesh-buildpack/integration/cell"
	"github.com/consul-mesh/mesh-buildpack/integration/load"
)

// limits are the memories that an app is pushed with and that are enforced, in MB.
var limits = []int{192, 256}

// limitedFor is how long requests are sent to such an app.
const limitedFor = 20 * time.Second

// memoryLimit enforces the memory of an app that has its own copy of its droplet, and
// takes what it is charged for and which requests it loses.
func memoryLimit(ctx context.Context, b *bench) (all []result, err error) {
	if err := cell.MemoryLimits(); err != nil {
		say("memory-limit: NOT MEASURED: %v", err)
		return nil, nil
	}
	for _, limit := range limits {
		of := map[way]limited{}
		for _, w := range []way{ours, agentless} {
			if of[w], err = b.limited(ctx, w, limit); err != nil {
				return all, fmt.Errorf("%s in %d MB: %w", w, limit, err)
			}
			say("memory-limit, %s in %d MB: %+v", w, limit, of[w])
		}
		agent, without := of[ours], of[agentless]
		row := func(name, unit string, with, without float64, g goal) {
			r := result{Name: fmt.Sprintf("memory-limit-%d-%s", limit, name), Unit: unit, Ours: with}
			all = append(all, r.aimedAt(g), r.agentless(without).aimedAt(g))
		}
		row("own", "MB", megabytes(agent.Own), megabytes(without.Own), goal{})
		row("files", "MB", megabytes(agent.Files), megabytes(without.Files), goal{})
		row("peak", "MB", megabytes(agent.Peak), megabytes(without.Peak), goal{})
		row("killed", "processes", float64(agent.Kills), float64(without.Kills), goal{none: true})
		row("lost", "requests", float64(agent.lost), float64(without.lost), goal{none: true})
	}
	return all, nil
}

// limited is what an app took whose memory was enforced.
type limited struct {
	cell.MemoryUse
	lost int
}

func megabytes(bytes int) float64 { return float64(bytes) / (1 << 20) }

func (b *bench) limited(ctx context.Context, w way, limit int) (l limited, err error) {
	if _, err := b.caller(ctx, w); err != nil {
		return l, err
	}
	s, err := b.stage(ctx, w, webService)
	if err != nil {
		return l, err
	}
	s.app.Command, s.app.Memory, s.app.EnforceMemory = "./echo", limit, true
	app, err := b.f.Start(ctx, s.app, s.droplet)
	if err != nil {
		return l, err
	}
	defer func() { err = errors.Join(err, b.gone(ctx, w, app)) }()
	if err := b.serves(ctx, w, webService, app); err != nil {
		return l, err
	}
	requests := b.load(w, load.HTTP, 100)
	<-time.After(limitedFor)
	l.lost = requests.Stop().Lost
	l.MemoryUse, err = app.Instance(0).MemoryUse()
	return l, err
}
