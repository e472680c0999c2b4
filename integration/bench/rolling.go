package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/consul-mesh/mesh-buildpack/integration/load"
)

// The load of a rolling replace, and of a crash.
const (
	rollingRate = 200
	crashRate   = 150
)

// endings are what an app may do on SIGTERM (fixtures/echo).
var endings = []string{"finish", "exit", "ignore"}

// rollingReplace replaces three instances by a rolling deployment while a caller sends requests, and counts the lost ones until callers have
// all three new ones. Naive apps count as running before they are in the mesh,
// which is part of the way.
//
// What the naive app does on SIGTERM makes no difference, so it is measured
// with one that exits, and all of ours are compared with that. Agentless is
// measured with that one too.
func rollingReplace(ctx context.Context, b *bench) ([]result, error) {
	var results []result
	compared, err := b.replaceKinds(ctx, naive, "exit")
	if err != nil {
		return nil, err
	}
	agent := map[load.Kind]float64{} // with an app that exits, the kind that is compared
	for _, ending := range endings {
		lost, err := b.replaceKinds(ctx, ours, ending)
		if err != nil {
			return results, err
		}
		for _, kind := range []load.Kind{load.HTTP, load.TCPNew, load.TCPLong} {
			r := result{Name: fmt.Sprintf("rolling-replace-%s-lost-%s", kind, ending), Unit: "requests", Ours: lost[kind]}
			results = append(results, r.against(at(compared[kind]), nil).aimedAt(goal{none: kind != load.TCPLong}))
		}
		if ending == "exit" {
			agent = lost
		}
	}
	lost, err := b.replaceKinds(ctx, agentless, "exit")
	if err != nil {
		return results, err
	}
	for _, kind := range []load.Kind{load.HTTP, load.TCPNew, load.TCPLong} {
		r := result{Name: fmt.Sprintf("rolling-replace-%s-lost-agentless", kind), Unit: "requests", Ours: lost[kind]}
		results = append(results, r.beside(agent[kind]).aimedAt(goal{none: kind != load.TCPLong}))
	}
	return results, nil
}

// replaceKinds returns how many requests of each kind were lost.
func (b *bench) replaceKinds(ctx context.Context, w way, ending string) (map[load.Kind]float64, error) {
	lost := map[load.Kind]float64{}
	for _, kinds := range [][]load.Kind{{load.HTTP}, {load.TCPNew, load.TCPLong}} {
		counted, err := b.replaceAll(ctx, w, ending, kinds)
		if err != nil {
			return nil, fmt.Errorf("%s, app does %s: %w", w, ending, err)
		}
		for i, kind := range kinds {
			lost[kind] = float64(counted[i].Lost)
			say("rolling-replace, %s, %s, app does %s: %v", w, kind, ending, counted[i])
		}
	}
	return lost, nil
}

// replaceAll does it once. The kinds are of one service, and sent at the same
// time.
func (b *bench) replaceAll(ctx context.Context, w way, ending string, kinds []load.Kind) ([]load.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*patience)
	defer cancel()
	role, command := webService, "./echo -on-term "+ending
	if kinds[0] != load.HTTP {
		role, command = tcpService, command+" -tcp"
	}
	app, err := b.serve(ctx, w, role, command, 3)
	if err != nil {
		return nil, err
	}
	var loads []*load.Load
	for _, kind := range kinds {
		loads = append(loads, b.load(w, kind, rollingRate/len(kinds)))
	}
	<-time.After(time.Second)
	err = func() error {
		if err := app.Deploy(ctx, app.Droplet()); err != nil {
			return err
		}
		if err := b.inRotation(ctx, w, role, app); err != nil {
			return err
		}
		<-time.After(time.Second)
		return nil
	}()
	var counted []load.Result
	for _, l := range loads {
		counted = append(counted, l.Stop())
	}
	return counted, errors.Join(err, b.gone(ctx, w, app))
}

// load sends requests from a way's first caller to the service of the kind.
func (b *bench) load(w way, kind load.Kind, rate int) *load.Load {
	return load.Start(load.Plan{
		Kind: kind, Target: target(kind), Rate: rate,
		Dial: b.callers[w].Instance(0).Dial,
	})
}

func target(kind load.Kind) string {
	if kind == load.HTTP {
		return fmt.Sprintf("http://127.0.0.1:%d/slow?ms=10", webPort)
	}
	return fmt.Sprintf("127.0.0.1:%d", tcpPort)
}
