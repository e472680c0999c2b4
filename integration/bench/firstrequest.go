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
// containers to the caller's first 200 through the mesh. Nothing else is in the
// mesh at first, and then as much as in one that is in use.
func firstRequest(ctx context.Context, b *bench) ([]result, error) {
	if err := b.stopCallers(ctx); err != nil {
		return nil, err
	}
	alone, err := b.alternate(ctx, "first-request-alone", *runs, []way{ours, agentless}, b.startPair)
	if err != nil {
		return nil, err
	}
	if err := b.startNeighbours(ctx); err != nil {
		return nil, err
	}
	times, err := b.alternate(ctx, "first-request", *runs, everyWay, b.startPair)
	if err := errors.Join(err, b.stopNeighbours(ctx)); err != nil {
		return nil, err
	}
	with := starts("first-request", times)
	lonely := starts("first-request-alone", alone)
	return []result{
		with.aimedAt(goal{ofNaive: 1.0 / 12, ofFloor: 1.1}),
		with.agentless(times[agentless]).aimedAt(goal{ofAgent: 1}),
		lonely, lonely.agentless(alone[agentless]),
	}, nil
}

// everyWay is all ways of starting, in the order in which they are measured.
var everyWay = []way{ours, agentless, floor, naive}

// alternate takes a time for several ways of starting, several times, and gives
// the medians in seconds. The ways alternate, so that a noisy machine is noisy
// for all.
func (b *bench) alternate(ctx context.Context, name string, runs int, ways []way, take func(context.Context, way) (time.Duration, error)) (map[way]float64, error) {
	times := map[way][]float64{}
	for i := range runs {
		for _, w := range ways {
			took, err := take(ctx, w)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", w, err)
			}
			times[w] = append(times[w], took.Seconds())
			say("%s, run %d of %d, %s: %.2f s", name, i+1, runs, w, took.Seconds())
		}
	}
	medians := map[way]float64{}
	for _, w := range ways {
		medians[w] = median(times[w])
	}
	return medians, nil
}

// starts is the result of ours, beside the ways that were measured too.
func starts(name string, times map[way]float64) result {
	beside := func(w way) *float64 {
		if time, ok := times[w]; ok {
			return &time
		}
		return nil
	}
	return result{Name: name, Unit: "s", Ours: times[ours]}.against(beside(naive), beside(floor))
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
	if err := warmMemory(2 * perInstance); err != nil {
		return 0, err
	}
	begun := time.Now()
	service, err := b.startUnchecked(ctx, w, tcpService, "./echo", 1)
	if err != nil {
		return 0, err
	}
	calls, err := b.startUnchecked(ctx, w, caller, "./echo -first http://"+w.address()+"/", 1)
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
	if err := errors.Join(service.Stop(ctx), calls.Stop(ctx)); err != nil {
		return 0, err
	}
	if !w.buildpack() {
		err = b.sweep(ctx)
	}
	return took, errors.Join(err, foundation.Eventually(ctx, "the catalog has nothing of them", func(ctx context.Context) error {
		left, err := b.leftOver(ctx)
		if len(left) > 0 {
			err = fmt.Errorf("it has the nodes %v", left)
		}
		return err
	}))
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
	name := fmt.Sprintf("first-request-%d", many)
	times, err := b.alternate(ctx, name, min(*runs, manyRuns), everyWay, b.startMany)
	if err != nil {
		return nil, err
	}
	with := starts(name, times)
	return []result{with.aimedAt(goal{ofNaive: 1.0 / 5}), with.agentless(times[agentless])}, nil
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
	if err := warmMemory(many * perInstance); err != nil {
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
