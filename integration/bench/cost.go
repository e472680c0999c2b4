package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/consul-mesh/mesh-buildpack/integration/cell"
	"github.com/consul-mesh/mesh-buildpack/integration/foundation"
)

// policies counts the network policies that HotROD is pushed with.
func policies(context.Context, *bench) ([]result, error) {
	apps := foundation.HotRODUpstreams
	most := len(apps) // one for the servers each
	for _, upstreams := range apps {
		most += len(upstreams)
	}
	r := result{Name: "policies-hotrod-agentless", Unit: "policies", Ours: float64(len(foundation.AgentlessPolicies(apps)))}
	return []result{r.beside(float64(len(foundation.MeshPolicies(apps)))).aimedAt(goal{atMost: float64(most)})}, nil
}

// idleInstances is how many instances do nothing but be there: fewer with
// agents, which take three times the memory and gossip with each other.
var idleInstances = map[way]int{ours: 10, agentless: 100}

// idleStep is how many of them start at a time: all at once none would be ready
// in time.
const idleStep = 10

// idleWrites counts the entries of the servers' log while instances, each with
// a check of its app, have nothing to do. What the servers write for themselves
// is in it.
func idleWrites(ctx context.Context, b *bench) ([]result, error) {
	if err := b.stopCallers(ctx); err != nil {
		return nil, err
	}
	if err := b.sweep(ctx); err != nil {
		return nil, err
	}
	rates := map[way]float64{}
	for _, w := range []way{ours, agentless} {
		app, err := b.start(ctx, w, idleService, "./echo", idleStep)
		if err != nil {
			return nil, err
		}
		writes, err := b.writesBeside(ctx, w, app)
		if err := errors.Join(err, b.gone(ctx, w, app)); err != nil {
			return nil, fmt.Errorf("%s: %w", w, err)
		}
		rates[w] = writes / idle.Seconds() / float64(idleInstances[w])
		say("idle-writes, %s: %.0f in %v with %d instances", w, writes, *idle, idleInstances[w])
	}
	r := result{Name: "idle-writes-agentless", Unit: "1/s/inst.", Ours: rates[agentless]}
	r = r.beside(rates[ours])
	met := r.Ours <= 0.1
	r.Goal, r.Met = "≤ 0.1", &met
	return []result{r}, nil
}

// writesBeside is how many entries the servers write while an app is idle.
func (b *bench) writesBeside(ctx context.Context, w way, app *cell.RunningApp) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*patience+*idle)
	defer cancel()
	for n := idleStep; n <= idleInstances[w]; n += idleStep {
		if err := errors.Join(app.Scale(ctx, n), app.WaitRunning(ctx)); err != nil {
			return 0, err
		}
	}
	if err := b.allPass(ctx, w, idleService, idleInstances[w]); err != nil {
		return 0, err
	}
	<-time.After(10 * time.Second) // agents go on synchronising after their start
	before, err := b.applied(ctx)
	if err != nil {
		return 0, err
	}
	<-time.After(*idle)
	after, err := b.applied(ctx)
	return after - before, err
}

// applied is the number of the last entry of the servers' log.
func (b *bench) applied(ctx context.Context) (float64, error) {
	var self struct {
		Stats struct{ Raft map[string]string }
	}
	if err := b.f.Consul(ctx, http.MethodGet, "/v1/agent/self", nil, &self); err != nil {
		return 0, err
	}
	return strconv.ParseFloat(self.Stats.Raft["applied_index"], 64)
}
