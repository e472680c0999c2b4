// Command buildpack is the staging program behind bin/supply and bin/finalize.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/consul-mesh/mesh-buildpack/src/staging"
)

const usage = `usage: buildpack supply BUILD_DIR CACHE_DIR DEPS_DIR DEPS_IDX
       buildpack finalize BUILD_DIR CACHE_DIR DEPS_DIR DEPS_IDX PROFILE_DIR

Stages an app for the Consul mesh. Cloud Foundry runs it through bin/supply and
bin/finalize; the buildpack's folder is the one above the program's own.
`

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintf(os.Stderr, "mesh buildpack: %v\n", err)
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) error {
	steps := map[string]func(context.Context, string, []string, io.Writer) error{
		"supply":   staging.Supply,
		"finalize": staging.Finalize,
	}
	if len(args) > 0 && (args[0] == "--help" || args[0] == "-h" || args[0] == "help") {
		_, err := io.WriteString(out, usage)
		return err
	}
	if len(args) == 0 || steps[args[0]] == nil {
		return fmt.Errorf("want one of supply, finalize\n%s", usage)
	}
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("failed to find the buildpack's folder: %w", err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	return steps[args[0]](ctx, filepath.Dir(filepath.Dir(program)), args[1:], out)
}
