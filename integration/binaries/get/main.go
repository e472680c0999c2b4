// Command get has package binaries get what tests, demo and benchmark run, and
// shows how far it is: go test keeps the output of a package to its end.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/consul-mesh/mesh-buildpack/integration/binaries"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	set, err := binaries.Prepare(ctx, os.Stdout)
	if err == nil {
		err = set.PrepareFirstRelease(ctx, os.Stdout)
	}
	if err == nil {
		err = set.GetModules(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "binaries:", err)
		os.Exit(1)
	}
}
