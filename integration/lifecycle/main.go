// Command lifecycle is the one program that a cell puts into its containers:
// the counterpart of Cloud Foundry's buildpackapplifecycle. What it does depends
// on the name by which it is called, or on its first argument: init, builder,
// launcher, shell or healthcheck.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/consul-mesh/mesh-buildpack/integration/container"
)

func main() {
	programs := map[string]func(args []string) int{
		"init":        func([]string) int { return container.Init() },
		"builder":     builder,
		"launcher":    launcher,
		"shell":       shell,
		"healthcheck": healthcheck,
	}
	name, args := filepath.Base(os.Args[0]), os.Args[1:]
	run := programs[name]
	if run == nil && len(args) > 0 {
		run, args = programs[args[0]], args[1:]
	}
	if run == nil {
		fmt.Fprintf(os.Stderr, "%s: neither its name nor its first argument is init, builder, launcher, shell or healthcheck\n", name)
		os.Exit(2)
	}
	os.Exit(run(args))
}
