package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/consul-mesh/mesh-buildpack/integration/foundation"
)

// measure is what -only can name. It gives one result or several.
type measure struct {
	name string
	take func(context.Context, *bench) ([]result, error)
}

// measures are made in this order. mesh-memory looks at what has been running
// since rolling-replace.
var measures = []measure{
	{"supply", supply},
	{"first-request", firstRequest},
	{"first-request-20", firstRequest20},
	{"task", task},
	{"rolling-replace", rollingReplace},
	{"stop", stopOne},
	{"crash", crash},
	{"hang", hang},
	{"crash-instance", crashInstance},
	{"mesh-memory", meshMemory},
	{"memory-limit", memoryLimit},
	{"droplet", dropletAdded},
	{"droplet-packed", dropletPacked},
	{"start-in-all", startInAll},
	{"policies", policies},
	{"idle-writes", idleWrites},
	{"idle-connections", idleConnections},
	{"idle-requests", idleRequests},
	{"burial-requests", burialRequests},
	{"scale", scale},
	{"slow-writes", slowWrites},
}

func chosen() ([]measure, error) {
	if *only == "" {
		return measures, nil
	}
	var some []measure
	for name := range strings.SplitSeq(*only, ",") {
		i := slices.IndexFunc(measures, func(m measure) bool { return m.name == name })
		if i < 0 {
			var names []string
			for _, m := range measures {
				names = append(names, m.name)
			}
			return nil, fmt.Errorf("there is no measure %q\nhint: there are %s", name, strings.Join(names, ", "))
		}
		some = append(some, measures[i])
	}
	return some, nil
}

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := takeAll(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 1
	}
	return 0
}

// takeAll makes every measure that was asked for. One that fails, or misses its
// goal, does not keep the others from being made and shown, but is an error in the
// end.
func takeAll(ctx context.Context) error {
	started := time.Now()
	wanted, err := chosen()
	if err != nil {
		return err
	}
	f, err := foundation.New(nil)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.StartServers(ctx); err != nil {
		return err
	}
	b := newBench(f)
	var results []result
	var failures []error
	for _, m := range wanted {
		begun := time.Now()
		taken, err := m.take(ctx, b)
		if err != nil {
			failures = append(failures, fmt.Errorf("%s: %w", m.name, err))
			fmt.Fprintf(os.Stderr, "%s failed: %v\n", m.name, err)
		}
		results = append(results, taken...)
		fmt.Printf("%s took %.0f s\n", m.name, time.Since(begun).Seconds())
		if ctx.Err() != nil {
			break
		}
	}
	show(results)
	failures = append(failures, write(f.Binaries.Build(), results), missed(results))
	fmt.Printf("bench took %.0f min\n", time.Since(started).Minutes())
	return errors.Join(failures...)
}
