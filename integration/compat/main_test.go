// Package compat holds the tests that 0.1.0, which users have, and this version
// run side by side as instances of one service: an app's file, its bound service,
// its policies and its name stay as they are, and only the droplet changes.
//
// The short form is part of `make test`: a way there, in one mesh without agents
// that is closed and in one with agents that is open. `make chaos` has CHAOS=long,
// which goes every way, there and back, and stays between the versions for long
// enough that either looks after the other.
package compat

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/consul-mesh/mesh-buildpack/integration/binaries"
	"github.com/consul-mesh/mesh-buildpack/integration/cell"
	"github.com/consul-mesh/mesh-buildpack/integration/foundation"
)

var (
	long = os.Getenv("CHAOS") == "long"
	// Two meshes on one cell, and the buildpack of 0.1.0.
	open, closed *foundation.Foundation
	firstRelease cell.Buildpack
)

func TestMain(m *testing.M) { cell.Main(prepare, func() int { return run(m) }) }

func prepare() error {
	if err := foundation.Prepare(); err != nil {
		return err
	}
	set, err := binaries.Find()
	if err != nil {
		return err
	}
	return set.PrepareFirstRelease(context.Background(), os.Stderr)
}

func run(m *testing.M) int {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if err := start(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "failed to start the control planes:", err)
		return 1
	}
	defer open.Close()
	return m.Run()
}

func start(ctx context.Context) (err error) {
	if open, err = foundation.New(nil); err != nil {
		return err
	}
	if firstRelease, err = open.FirstRelease(); err != nil {
		return err
	}
	if closed, err = open.Closed(); err != nil {
		return err
	}
	return errors.Join(open.StartServers(ctx), closed.StartServers(ctx))
}
