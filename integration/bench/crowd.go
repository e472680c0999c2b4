package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/consul-mesh/mesh-buildpack/integration/crowd"
)

// Many instances without agents are no containers, but run the same code
// (integration/crowd), beside servers of their own.

const (
	// startEvery is between two starts, in all processes of instances together.
	startEvery = 40 * time.Millisecond
	// crowdPatience is for all to come into rotation.
	crowdPatience = 2 * time.Minute
	// crowdSettling is how long after that they are idle.
	crowdSettling = 15 * time.Second
)

// newCrowd starts the servers of a crowd, which done ends.
func (b *bench) newCrowd(ctx context.Context) (c *crowd.Crowd, done func(), err error) {
	dir, err := os.MkdirTemp("", "crowd")
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if c, err = crowd.New(ctx, b.f.Binaries.Consul(), dir); err != nil {
		return nil, nil, errors.Join(err, os.RemoveAll(dir))
	}
	return c, func() {
		c.Close()
		_ = os.RemoveAll(dir) // which ends with the bench
	}, nil
}

// startCrowd starts instances in processes side by side, by their services, and waits
// until all are in rotation, or have ended.
func startCrowd(ctx context.Context, c *crowd.Crowd, of ...map[string]int) (groups []*crowd.Group, err error) {
	for _, services := range of {
		g, err := c.Start(services, startEvery*time.Duration(len(of)))
		if err != nil {
			return groups, err
		}
		groups = append(groups, g)
	}
	ctx, cancel := context.WithTimeout(ctx, crowdPatience)
	defer cancel()
	return groups, c.AwaitPassed(ctx)
}

// saidOf prints what was said of members, and counts it.
func saidOf(what string, lines []crowd.Line) float64 {
	for _, line := range lines {
		say("%s: %s %s: %s", what, line.At.Format("15:04:05.000"), line.Node, line.Text)
	}
	return float64(len(lines))
}

// failedStarts prints which starts have failed, and counts them.
func failedStarts(what string, c *crowd.Crowd) float64 {
	failed := c.Failed()
	for _, m := range failed {
		say("%s: %s: %v", what, m.Node, m.Ended)
		for _, line := range c.SaidBy(m.Node) {
			say("  %s %s", line.At.Format("15:04:05.000"), line.Text)
		}
	}
	return float64(len(failed))
}

// ghosts are nodes in the catalog that no instance is that lives.
func ghosts(ctx context.Context, c *crowd.Crowd) (all []string, err error) {
	there, err := c.Nodes(ctx)
	for _, m := range c.Living() {
		if m.Ended != nil {
			continue
		}
		if err == nil && !there[m.Node] {
			err = fmt.Errorf("%s lives, and is not in the catalog", m.Node)
		}
		delete(there, m.Node)
	}
	for node := range there {
		all = append(all, node)
	}
	return all, err
}
