package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"time"

	"github.com/consul-mesh/mesh-buildpack/integration/cell"
	"github.com/consul-mesh/mesh-buildpack/integration/foundation"
)

// firstRequest starts a service and a caller at the same moment, with the
// servers up, and takes the time from the start of the first of their
// containers to the caller's first 200 through the mesh.
func firstRequest(ctx context.Context, b *bench) ([]result, error) {
	if err := b.stopCallers(ctx); err != nil {
		return nil, err
	}
	with, without, err := b.alternate(ctx, "first-request", *runs, b.startPair)
	if err != nil {
		return nil, err
	}
	return []result{
		with.aimedAt(goal{ofNaive: 1.0 / 12, ofFloor: 1.1}),
		without.aimedAt(goal{ofAgent: 1}),
	}, nil
}

// alternate takes a time for every way of starting, several times, and gives the
// medians in seconds, with agents and without. The ways alternate, so that a
// noisy machine is noisy for all.
func (b *bench) alternate(ctx context.Context, name string, runs int, take func(context.Context, way) (time.Duration, error)) (with, without result, err error) {
	times := map[way][]float64{}
	for i := range runs {
		for _, w := range []way{ours, agentless, floor, naive} {
			took, err := take(ctx, w)
			if err != nil {
				return with, without, fmt.Errorf("%s: %w", w, err)
			}
			times[w] = append(times[w], took.Seconds())
			say("%s, run %d of %d, %s: %.2f s", name, i+1, runs, w, took.Seconds())
		}
	}
	with = result{Name: name, Unit: "s", Ours: median(times[ours])}
	without = result{Name: name + "-agentless", Unit: "s", Ours: median(times[agentless])}
	return with.against(at(median(times[naive])), at(median(times[floor]))), without.beside(with.Ours), nil
}

// startPair starts a service and its caller, waits for the first 200, and
// takes both away again.
func (b *bench) startPair(ctx context.Context, w way) (time.Duration, error) {
	for _, role := range []string{tcpService, caller} { // staging is not measured
		if _, err := b.stage(ctx, w, role); err != nil {
			return 0, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := touchMemory(2 * perInstance); err != nil {
		return 0, err
	}
	begun := time.Now()
	service, err := b.startUnchecked(ctx, w, tcpService, "./echo", 1)
	if err != nil {
		return 0, err
	}
	calls, err := b.startUnchecked(ctx, w, caller, fmt.Sprintf("./echo -first http://127.0.0.1:%d/", tcpPort), 1)
	if err != nil {
		return 0, err
	}
	var answered time.Time
	err = foundation.Eventually(ctx, "the caller logs its first 200", func(context.Context) error {
		for _, line := range calls.Logs() { // former runs' lines are there too
			if line.Text == "first 200" && line.Time.After(begun) {
				answered = line.Time
				return nil
			}
		}
		return errors.New("no such line")
	})
	if err != nil {
		for _, app := range []*cell.RunningApp{service, calls} {
			lines := app.Logs()
			for _, line := range lines[max(0, len(lines)-30):] {
				fmt.Fprintln(os.Stderr, line)
			}
		}
		return 0, err
	}
	took := answered.Sub(service.Instance(0).StartedAt())
	if err := errors.Join(service.Delete(ctx), calls.Delete(ctx)); err != nil {
		return 0, err
	}
	if !w.buildpack() {
		err = b.sweep(ctx)
	}
	return took, errors.Join(err, foundation.Eventually(ctx, "the catalog is empty", b.f.CatalogEmpty))
}

// perInstance is more than an instance writes to while it starts, in bytes.
const perInstance = 128 << 20

// many is how many instances start at once.
const many = 20

// lookPause is between two looks at the caller's Envoy, which take processor time
// that the instances need.
const lookPause = 40 * time.Millisecond

// manyRuns is how often each way starts many at most: a run takes half a minute.
const manyRuns = 3

// firstRequest20 has a caller up and nothing else, starts many instances of a
// service at once, and takes the time until each of them has answered the caller.
func firstRequest20(ctx context.Context, b *bench) ([]result, error) {
	with, without, err := b.alternate(ctx, fmt.Sprintf("first-request-%d", many), min(*runs, manyRuns), b.startMany)
	if err != nil {
		return nil, err
	}
	return []result{with.aimedAt(goal{ofNaive: 1.0 / 5}), without}, nil
}

func (b *bench) startMany(ctx context.Context, w way) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*patience)
	defer cancel()
	// What the other ways run would gossip along, and take processor time.
	if err := b.stopCallers(ctx); err != nil {
		return 0, err
	}
	calls, err := b.caller(ctx, w)
	if err != nil {
		return 0, err
	}
	if _, err := b.stage(ctx, w, tcpService); err != nil {
		return 0, err
	}
	if err := touchMemory(many * perInstance); err != nil {
		return 0, err
	}
	begun := time.Now()
	service, err := b.startUnchecked(ctx, w, tcpService, "./echo", many)
	if err != nil {
		return 0, err
	}
	// A connection for each request, so that the Envoy chooses each time.
	client := &http.Client{Timeout: time.Second, Transport: &http.Transport{DialContext: calls.Instance(0).Dial, DisableKeepAlives: true}}
	answered := map[string]bool{}
	// The Envoy goes from one instance to the next: as many requests as it has
	// instances reach all of them.
	err = foundation.Eventually(ctx, "all instances have answered", func(ctx context.Context) error {
		time.Sleep(lookPause)
		known, err := foundation.Endpoints(ctx, calls.Instance(0), w.name(tcpService))
		maps.DeleteFunc(known, func(_, flags string) bool { return flags != "healthy" })
		if err != nil || len(known) < many {
			return errors.Join(err, fmt.Errorf("the caller may call %d of %d", len(known), many))
		}
		for range many {
			var index string
			if index, err = whoAnswers(client); err == nil {
				answered[index] = true
			}
		}
		if len(answered) < many {
			return fmt.Errorf("%d have answered, the last error is %v", len(answered), err)
		}
		return nil
	})
	took := time.Since(begun)
	return took, errors.Join(err, b.gone(ctx, w, service))
}

// whoAnswers is the index of the instance that the caller's request reaches.
func whoAnswers(client *http.Client) (index string, err error) {
	response, err := client.Get(fmt.Sprintf("http://127.0.0.1:%d/", tcpPort))
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	var who struct{ Index string }
	err = json.NewDecoder(response.Body).Decode(&who)
	return who.Index, err
}
