package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/consul-mesh/mesh-buildpack/integration/cell"
	"github.com/consul-mesh/mesh-buildpack/integration/foundation"
	"github.com/consul-mesh/mesh-buildpack/integration/load"
)

// stopped is what was seen of the stop of one instance, all from SIGTERM.
type stopped struct {
	unknown time.Duration // until no caller's Envoy has it
	deaf    time.Duration // until its Envoy or its app did not listen
	down    time.Duration // until the container was gone
}

// stopOne stops an instance of a service, with nothing to do and under load,
// for each kind of app, and looks from the callers and from inside.
func stopOne(ctx context.Context, b *bench) ([]result, error) {
	unknown, margin, down := map[way][]float64{}, map[way][]float64{}, map[string]map[way][]float64{}
	for _, ending := range endings {
		for _, busy := range []bool{false, true} {
			ways := []way{ours, agentless}
			if busy && ending == "exit" {
				ways = append(ways, naive) // what the app does makes no difference
			}
			for _, w := range ways {
				s, err := b.stopUnder(ctx, w, ending, busy)
				if err != nil {
					return nil, fmt.Errorf("%s, app that would %s: %w", w, ending, err)
				}
				say("stop, %s, app does %s, load %v: out of every caller's Envoy after %.0f ms, served for %.0f ms, down after %.1f s",
					w, ending, busy, milliseconds(s.unknown), milliseconds(s.deaf), s.down.Seconds())
				unknown[w] = append(unknown[w], milliseconds(s.unknown))
				margin[w] = append(margin[w], milliseconds(s.deaf-s.unknown))
				kind := situation(ending, busy)
				if down[kind] == nil {
					down[kind] = map[way][]float64{}
				}
				down[kind][w] = append(down[kind][w], s.down.Seconds())
			}
		}
	}
	var results []result
	worst := func(name, unit string, values map[way][]float64, g goal) {
		r := result{Name: name, Unit: unit, Ours: slices.Max(values[ours])}
		without := r.agentless(slices.Max(values[agentless]))
		if len(values[naive]) > 0 {
			r = r.against(at(slices.Max(values[naive])), nil)
		}
		results = append(results, r.aimedAt(g), without.aimedAt(g))
	}
	worst("out-of-rotation", "ms", unknown, goal{atMost: 400})
	// The least margin: negative is traffic for what does not listen any more.
	least := result{Name: "served-after-out-of-rotation", Unit: "ms", Ours: slices.Min(margin[ours])}
	for _, r := range []result{least.against(at(slices.Min(margin[naive])), nil), least.agentless(slices.Min(margin[agentless]))} {
		met := r.Ours >= 0
		r.Goal, r.Met, r.Ratio = "≥ 0", &met, nil
		results = append(results, r)
	}
	worst("container-down-idle", "s", down["idle"], goal{atMost: 5})
	worst("container-down-busy", "s", down["busy"], goal{atMost: 9})
	worst("container-down-ignore", "s", down["ignore"], goal{atMost: 9})
	return results, nil
}

// situation sorts the stops of containers: an app that ignores SIGTERM decides
// by itself.
func situation(ending string, busy bool) string {
	switch {
	case ending == "ignore":
		return "ignore"
	case busy:
		return "busy"
	}
	return "idle"
}

func (b *bench) stopUnder(ctx context.Context, w way, ending string, busy bool) (stopped, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*patience)
	defer cancel()
	app, err := b.serve(ctx, w, webService, "./echo -on-term "+ending, 2)
	if err != nil {
		return stopped{}, err
	}
	if busy {
		l := b.load(w, load.HTTP, rollingRate)
		defer l.Stop()
		<-time.After(time.Second)
	}
	s, err := b.watchStop(ctx, w, app.Instance(0))
	return s, errors.Join(err, b.gone(ctx, w, app))
}

// watchStop stops an instance, asking its callers' Envoys and itself all the
// while.
func (b *bench) watchStop(ctx context.Context, w way, i *cell.Instance) (stopped, error) {
	var s stopped
	var failures [3]error
	begun := time.Now()
	done := make(chan struct{}, 2)
	go func() {
		defer func() { done <- struct{}{} }()
		failures[0] = foundation.Eventually(ctx, "no caller's Envoy has the instance", func(ctx context.Context) error {
			for _, c := range b.callers[w].Instances() {
				endpoints, err := foundation.Endpoints(ctx, c, w.name(webService))
				if err != nil {
					return err
				}
				if flags, known := endpoints[foundation.SidecarOf(i)]; known && flags == "healthy" {
					return errors.New("a caller's Envoy has it")
				}
			}
			return nil
		})
		s.unknown = time.Since(begun)
	}()
	go func() {
		defer func() { done <- struct{}{} }()
		failures[1] = foundation.Eventually(ctx, "the instance does not listen", func(ctx context.Context) error {
			for _, port := range []string{"8080", "21000"} {
				conn, err := i.Dial(ctx, "tcp", i.Address()+":"+port)
				if err != nil {
					return nil
				}
				conn.Close()
			}
			return errors.New("it listens")
		})
		s.deaf = time.Since(begun)
	}()
	s.down, failures[2] = i.Stop(ctx)
	<-done
	<-done
	return s, errors.Join(failures[:]...)
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
