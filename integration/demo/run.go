package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/consul-mesh/mesh-buildpack/integration/cell"
	"github.com/consul-mesh/mesh-buildpack/integration/foundation"
)

// deadline bounds the demo without -keep. Warm it takes well under a minute.
const deadline = 5 * time.Minute

func run() int {
	interrupted, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(interrupted, deadline)
	defer cancel()
	begun := time.Now()

	var log io.Writer
	if *verbose {
		log = os.Stderr
	}
	f, err := foundation.New(log)
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo: failed to start the cell:", err)
		return 1
	}
	d := &demo{f}
	defer d.Close()
	f.Agentless = *agentless
	if *secure {
		if f.Secure, err = foundation.NewSecure(); err != nil {
			fmt.Fprintln(os.Stderr, "demo: failed to make credentials:", err)
			return 1
		}
	}
	for _, s := range d.steps() {
		if err := d.step(ctx, s); err != nil {
			d.fail(s, err)
			return 1
		}
	}
	fmt.Printf("\nAll of it in %.1f s.\n", time.Since(begun).Seconds())
	if *keep {
		if err := d.serve(interrupted); err != nil {
			fmt.Fprintln(os.Stderr, "demo:", err)
			return 1
		}
	}
	return 0
}

// step is a part of the demo: what it does, for which apps, and what it saw.
type step struct {
	name string
	apps []string // whose log explains a failure
	run  func(context.Context) (saw string, err error)
}

// step runs one step and prints its name, time and what it saw.
func (d *demo) step(ctx context.Context, s step) error {
	fmt.Printf("%-46s", s.name+" ...")
	begun := time.Now()
	saw, err := s.run(ctx)
	if err != nil {
		fmt.Println(" FAILED")
		return err
	}
	fmt.Printf(" %5.1f s\n", time.Since(begun).Seconds())
	if saw != "" {
		fmt.Printf("    %s\n", saw)
	}
	return nil
}

// logLines is how much of each app's log a failure shows.
const logLines = 25

func (d *demo) fail(s step, err error) {
	fmt.Fprintf(os.Stderr, "\ndemo: step %q failed: %v\n", s.name, err)
	for _, app := range s.apps {
		lines := d.Logs(app)
		if len(lines) == 0 {
			continue
		}
		fmt.Fprintf(os.Stderr, "\nthe last lines of %s:\n", app)
		for _, line := range lines[max(0, len(lines)-logLines):] {
			fmt.Fprintln(os.Stderr, " ", line)
		}
	}
}

// serve lets a browser on the machine see the system until it is interrupted.
func (d *demo) serve(ctx context.Context) error {
	listener, err := cell.HostListener(0)
	if err != nil {
		return err
	}
	var closing atomic.Bool
	context.AfterFunc(ctx, func() { closing.Store(true); listener.Close() })
	port := listener.Addr().String()
	fmt.Printf(`
The system is running. Open
    http://frontend.localhost%[1]s/              HotROD
    http://consul-server.localhost%[1]s/ui/      Consul
and press Ctrl-C to end it.
`, port[len("127.0.0.1"):])
	if err := d.ServeRouter(listener); err != nil && !closing.Load() {
		return err
	}
	return nil
}
