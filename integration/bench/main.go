// Command bench measures the buildpack beside the naive way, in the same run
// on the same cell, and writes build/bench.json. The naive way is what the
// project grew from: a service.json on disk, default checks, and
// `sleep 5 && consul connect envoy`.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/consul-mesh/mesh-buildpack/integration/cell"
	"github.com/consul-mesh/mesh-buildpack/integration/foundation"
)

var runs = flag.Int("runs", 5, "how often each way is measured")

func main() {
	flag.Parse()
	cell.Main(foundation.Prepare, run)
}

// result is one entry of build/bench.json. Naive and Floor are left out where
// there is nothing to compare with.
type result struct {
	Name  string  `json:"name"`
	Unit  string  `json:"unit"`
	Ours  float64 `json:"ours"`
	Naive float64 `json:"naive,omitempty"`
	Floor float64 `json:"floor,omitempty"`
}

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := bench(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 1
	}
	return 0
}

func bench(ctx context.Context) error {
	f, err := foundation.New(nil)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.StartServers(ctx); err != nil {
		return err
	}
	firstRequest, err := measureFirstRequest(ctx, f)
	if err != nil {
		return fmt.Errorf("first-request: %w", err)
	}
	supply, err := supplyResults(ctx, f)
	if err != nil {
		return fmt.Errorf("supply: %w", err)
	}
	results := append(supply, firstRequest)
	fmt.Printf("\n%-16s %6s %10s %10s %10s\n", "measure", "unit", "ours", "naive", "floor")
	for _, r := range results {
		fmt.Printf("%-16s %6s %10.2f %10.2f %10.2f\n", r.Name, r.Unit, r.Ours, r.Naive, r.Floor)
	}
	text, err := json.MarshalIndent(results, "", "  ")
	if err != nil {
		return err
	}
	path := filepath.Join(f.Binaries.Build(), "bench.json")
	if err := os.WriteFile(path, append(text, '\n'), 0o644); err != nil {
		return err
	}
	fmt.Println("\nwritten to build/bench.json")
	return nil
}

// measureFirstRequest starts a service and a caller at the same moment, with
// the servers up, and takes the time from the start of the first of their
// containers to the caller's first 200 through the mesh. The ways alternate,
// so that a noisy machine is noisy for both.
func measureFirstRequest(ctx context.Context, f *foundation.Foundation) (result, error) {
	ours, err := oursPair(ctx, f)
	if err != nil {
		return result{}, err
	}
	naive, err := naivePair(ctx, f)
	if err != nil {
		return result{}, err
	}
	var oursTimes, naiveTimes []time.Duration
	for i := range *runs {
		for _, way := range []struct {
			name  string
			pair  []staged
			times *[]time.Duration
		}{{"ours", ours, &oursTimes}, {"naive", naive, &naiveTimes}} {
			took, err := startPair(ctx, f, way.pair)
			if err != nil {
				return result{}, fmt.Errorf("%s: %w", way.name, err)
			}
			*way.times = append(*way.times, took)
			fmt.Printf("first-request, run %d of %d, %-5s %6.2f s\n", i+1, *runs, way.name, took.Seconds())
		}
	}
	return result{Name: "first-request", Unit: "s", Ours: median(oursTimes), Naive: median(naiveTimes)}, nil
}

func median(times []time.Duration) float64 {
	slices.Sort(times)
	middle := len(times) / 2
	if len(times)%2 == 0 {
		return (times[middle-1] + times[middle]).Seconds() / 2
	}
	return times[middle].Seconds()
}

// staged is an app with its droplet.
type staged struct {
	app     cell.App
	droplet *cell.Droplet
}

// startPair starts a service and its caller, waits for the first 200, and
// takes both away again.
func startPair(ctx context.Context, f *foundation.Foundation, pair []staged) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, 90*time.Second)
	defer cancel()
	var running []*cell.RunningApp
	begun := time.Now()
	for _, s := range pair {
		app, err := f.Start(ctx, s.app, s.droplet)
		if err != nil {
			return 0, err
		}
		running = append(running, app)
	}
	var answered time.Time
	err := foundation.Eventually(ctx, "the caller logs its first 200", func(context.Context) error {
		for _, line := range running[1].Logs() { // former runs' lines are there too
			if line.Text == "first 200" && line.Time.After(begun) {
				answered = line.Time
				return nil
			}
		}
		return errors.New("no such line")
	})
	if err != nil {
		for _, app := range running {
			for _, line := range app.Logs() {
				fmt.Fprintln(os.Stderr, line)
			}
		}
		return 0, err
	}
	if started := running[0].Instance(0).StartedAt(); started.After(begun) {
		begun = started
	}
	for _, app := range running {
		if err := app.Delete(ctx); err != nil {
			return 0, err
		}
	}
	return answered.Sub(begun), foundation.Eventually(ctx, "the catalog is empty", f.CatalogEmpty)
}
