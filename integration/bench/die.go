package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/consul-mesh/mesh-buildpack/integration/crowd"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/instance"
)

const (
	// outMost is when the dead are out of the catalog, in seconds.
	outMost = 25
	// outPatience is how long that is waited for.
	outPatience = 90 * time.Second
	// forgotten is when the dead of before do not count for the brake any more.
	forgotten = instance.Brake + 5*time.Second
)

// braked is what the janitor says that takes out nobody for a while.
const braked = "seem dead at once"

// die has ten of each service die at once, the first of each among them; then half of
// one service, and then most of another, for which there is the brake.
func die(ctx context.Context, c *crowd.Crowd, ten, ofHalf, ofMost *crowd.Group) (all []result, err error) {
	janitors, err := janitorsAmong(ctx, c, ten)
	if err != nil {
		return nil, err
	}
	say("scale: %d janitors die", janitors)
	for _, death := range []struct {
		name  string
		group *crowd.Group
	}{{"ten-of-each", ten}, {"half", ofHalf}} {
		begun := time.Now()
		seconds, err := dieAtOnce(ctx, c, death.group)
		if err != nil {
			return all, fmt.Errorf("%s: %w", death.name, err)
		}
		if held := saidOf("scale: "+death.name, c.Said(braked, begun)); held > 0 {
			return all, fmt.Errorf("%s: %.0f janitors took it for a cut network", death.name, held)
		}
		all = append(all, result{Name: "scale-" + death.name + "-out", Unit: "s", Ours: seconds}.aimedAt(goal{atMost: outMost}))
		<-time.After(forgotten)
	}
	begun := time.Now()
	seconds, err := dieAtOnce(ctx, c, ofMost)
	if err != nil {
		return all, fmt.Errorf("most: %w", err)
	}
	r := result{Name: "scale-most-out", Unit: "s", Ours: seconds}
	held := c.Said(braked, begun)
	met := len(held) > 0 && seconds >= instance.Brake.Seconds() && seconds <= 2*instance.Brake.Seconds()
	r.Goal, r.Met = fmt.Sprintf("%.0f to %.0f s, by the brake", instance.Brake.Seconds(), 2*instance.Brake.Seconds()), &met
	saidOf("scale", held)
	return append(all, r), nil
}

// janitorsAmong counts the janitors in a group, where there has to be one.
func janitorsAmong(ctx context.Context, c *crowd.Crowd, g *crowd.Group) (n int, err error) {
	for _, service := range append([]string{half, most}, others...) {
		node, err := c.Janitor(ctx, service)
		if err != nil {
			return 0, err
		}
		if g.Has(node) {
			n++
		}
	}
	if n == 0 {
		return 0, errors.New("no janitor is among those who die")
	}
	return n, nil
}

// dieAtOnce kills a group, and returns how long the last of it was in the catalog then.
// All who live have to be there after that.
func dieAtOnce(ctx context.Context, c *crowd.Crowd, g *crowd.Group) (seconds float64, err error) {
	ctx, cancel := context.WithTimeout(ctx, outPatience)
	defer cancel()
	first, err := c.LogIndex(ctx)
	if err != nil {
		return 0, err
	}
	begun := time.Now()
	g.Kill()
	if err := c.AwaitOut(ctx, g); err != nil {
		return 0, err
	}
	seconds = time.Since(begun).Seconds()
	last, err := c.LogIndex(ctx)
	say("scale: %d died, the last was out after %.1f s; %d entries in the servers' log", len(g.Members), seconds, last-first)
	_, missing := ghosts(ctx, c)
	return seconds, errors.Join(err, missing)
}
