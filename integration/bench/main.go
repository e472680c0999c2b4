// Command bench measures the buildpack beside the naive way, in the same run
// on the same cell, and writes build/bench.json. The naive way is what the
// project grew from: a service.json on disk, default checks, and
// `sleep 5 && consul connect envoy`. Starting has a third way, the floor: a
// script written by hand that makes only the calls that are needed, in the best
// order. Apps without agents are measured beside those of this project that have
// them.
//
// Each measure is a function in a file of its own and a line in the table of
// measures.go.
package main

import (
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/consul-mesh/mesh-buildpack/integration/cell"
	"github.com/consul-mesh/mesh-buildpack/integration/crowd"
	"github.com/consul-mesh/mesh-buildpack/integration/foundation"
)

var (
	runs = flag.Int("runs", 10, "how often each way is measured, where one run is not enough")
	idle = flag.Duration("idle", 5*time.Minute, "how long idle instances are watched")
	only = flag.String("only", "", "measures to make, by their names, with commas between; all by default")
)

func main() {
	crowd.Main()
	flag.Parse()
	if _, err := chosen(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}
	cell.Main(foundation.Prepare, run)
}
