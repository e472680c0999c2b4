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

// rollingReplace replaces three instances one by one, as the platform does,
// while a caller sends requests, and counts the lost ones until callers have
// all three new ones. Naive apps count as running before they are in the mesh,
// which is part of the way.
func rollingReplace(ctx context.Context, b *bench) ([]result, error) {
	var results []result
	for _, ending := range endings {
		lost := map[way]map[load.Kind]load.Result{}
		for _, w := range []way{ours, naive} {
			lost[w] = map[load.Kind]load.Result{}
			for _, kinds := range [][]load.Kind{{load.HTTP}, {load.TCPNew, load.TCPLong}} {
				counted, err := b.replaceAll(ctx, w, ending, kinds)
				if err != nil {
					return results, fmt.Errorf("%s, app that would %s: %w", w, ending, err)
				}
				for i, kind := range kinds {
					lost[w][kind] = counted[i]
					say("rolling-replace, %s, %s, app does %s: %v", w, kind, ending, counted[i])
				}
			}
		}
		for _, kind := range []load.Kind{load.HTTP, load.TCPNew, load.TCPLong} {
			r := result{Name: fmt.Sprintf("rolling-replace-%s-lost-%s", kind, ending), Unit: "requests", Ours: float64(lost[ours][kind].Lost)}
			r = r.against(at(float64(lost[naive][kind].Lost)), nil)
			results = append(results, r.aimedAt(goal{none: kind != load.TCPLong}))
		}
	}
	return results, nil
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
		for i := range 3 {
			if err := app.Replace(ctx, i); err != nil {
				return err
			}
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
