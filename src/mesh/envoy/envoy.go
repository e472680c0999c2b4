// Package envoy runs the Envoy of a service: its bootstrap, its process, its admin
// API, and the relay between it and who tells it what to do.
package envoy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/consul-mesh/mesh-buildpack/src/droplet"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/instance"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/wait"
)

// Sidecar is what an Envoy is for: a service, as its registration has it.
type Sidecar struct {
	ID        string // of the service
	Name      string // of the service
	Protocol  string // empty where the registration says none
	Port      int    // for callers
	AdminPort int
	Config    map[string]any // proxy.config of the registration

	Nth   int          // among the services of the instance, from 0
	Taken map[int]bool // ports of the instance that are not free for what proxy-defaults want
}

// Envoy is the sidecar proxy of one service.
type Envoy struct {
	Sidecar
	Admin   string                // base URL of its admin API
	HTTP    http.Client           // asks that
	Signal  func(os.Signal) error // sends one to its process
	Exited  chan struct{}         // closed when the process has ended
	Reason  error                 // why it has, never nil then
	journal func() []string       // its warnings and errors, oldest first

	requests    int       // that callers have sent, at the last look; of Idle alone
	lastRequest time.Time // when that was seen to have changed; of Idle alone
}

// Start starts the sidecar of a service with its bootstrap configuration. The calling goroutine must stay
// on its thread: the kernel kills Envoy when that thread ends.
func Start(inst instance.Instance, config droplet.Envoy, s Sidecar, bootstrap []byte) (*Envoy, error) {
	path := filepath.Join(inst.RunDir, "bootstrap-"+s.ID+".json")
	if err := os.WriteFile(path, bootstrap, 0o600); err != nil {
		return nil, fmt.Errorf("failed to write Envoy's bootstrap: %w", err)
	}
	e := &Envoy{
		Sidecar: s,
		Admin:   "http://" + wait.Loopback(s.AdminPort),
		Exited:  make(chan struct{}),
		journal: func() []string { return inst.JournalOf(instance.EnvoyJournal(s.ID)) },
	}
	args := []string{
		"--config-path", path,
		// With hot restart on, Envoy asks the kernel to be killed with its
		// parent, and shares memory with a namesake in another container.
		"--disable-hot-restart",
		"--concurrency", strconv.Itoa(config.Concurrency),
		"--log-level", config.LogLevel,
		"--log-format", "[%l][%n] %v",
	}
	process := exec.Command(inst.Program("envoy"), append(args, config.ExtraArgs...)...)
	process.Env = inst.SmallEnv()
	output, err := inst.NewJournal(instance.EnvoyJournal(s.ID), os.Stderr)
	if err != nil {
		return nil, fmt.Errorf("failed to keep Envoy's log: %w", err)
	}
	process.Stdout, process.Stderr = os.Stdout, output
	process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := process.Start(); err != nil {
		return nil, fmt.Errorf("failed to start Envoy: %w", err)
	}
	e.Signal = process.Process.Signal
	go func() {
		if e.Reason = process.Wait(); e.Reason == nil {
			e.Reason = errors.New("exit status 0")
		}
		output.Flush()
		close(e.Exited)
	}()
	return e, nil
}

// Runs is a wait.FinalError where the process has ended.
func (e *Envoy) Runs() error {
	select {
	case <-e.Exited:
		return wait.Final(fmt.Errorf("envoy ended: %w", e.Reason))
	default:
		return nil
	}
}

// End stops Envoy and waits for it, killing it when ctx ends.
func (e *Envoy) End(ctx context.Context) {
	// A process that has ended already cannot be signalled, which is fine.
	_ = e.Signal(syscall.SIGTERM)
	select {
	case <-e.Exited:
	case <-ctx.Done():
		_ = e.Signal(syscall.SIGKILL)
		<-e.Exited
	}
}
