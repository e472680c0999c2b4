package main

import (
	"context"
	"math/rand/v2"
	"net/http"
	"time"
)

const (
	// slowSiblings are in rotation when slowStarts others start at once.
	slowSiblings, slowStarts = 10, 50
	// leastLate and mostLate is by how much each write reaches the servers later.
	leastLate, mostLate = 500 * time.Millisecond, 4 * time.Second
	// slowWatched is how long it is looked whether somebody is taken for dead.
	slowWatched = 40 * time.Second
	// slowGone is how long after a goodbye nothing may be left of those who have said it:
	// a janitor looks at all nodes each minute, and again some seconds later.
	slowGone = 75 * time.Second
)

// slowWrites has instances start, and stop again, at servers to whom all that is
// written comes late, and counts who is taken for dead, and what is in the catalog of
// those who are not there.
func slowWrites(ctx context.Context, b *bench) ([]result, error) {
	c, done, err := b.newCrowd(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	front, err := c.NewFront(func(r *http.Request) time.Duration {
		if r.Method == http.MethodGet {
			return 0
		}
		return leastLate + rand.N(mostLate-leastLate)
	})
	if err != nil {
		return nil, err
	}
	defer front.Close()
	const service = "slow"
	if _, err := startCrowd(ctx, c, map[string]int{service: slowSiblings}); err != nil {
		return nil, err
	}
	started, err := startCrowd(ctx, c, map[string]int{service: slowStarts})
	if err != nil {
		return nil, err
	}
	slowest, failed := started[0].SlowestStart().Seconds(), failedStarts("slow-writes", c)
	<-time.After(slowWatched)
	begun, err := ghosts(ctx, c)
	if err != nil {
		return nil, err
	}
	started[0].Stop()
	<-time.After(slowGone)
	left, err := ghosts(ctx, c)
	if err != nil {
		return nil, err
	}
	say("slow-writes: the slowest start took %.1f s, ghosts %v, and %v after a goodbye", slowest, begun, left)
	row := func(name, unit string, n float64) result {
		return result{Name: "slow-writes-" + name, Unit: unit, Ours: n}
	}
	return []result{
		row("starts-failed", "instances", failed).aimedAt(goal{none: true}),
		row("start-slowest", "s", slowest),
		row("ghosts", "nodes", float64(len(begun)+len(left))).aimedAt(goal{none: true}),
		row("living-buried", "instances", saidOf("slow-writes", c.LivingBuried())).aimedAt(goal{none: true}),
	}, nil
}
