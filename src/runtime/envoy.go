package runtime

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

	"github.com/consul-mesh/mesh-buildpack/src/droplet"
)

// envoy is the sidecar proxy of one service.
type envoy struct {
	service *registration
	admin   string // base URL of its admin API
	http    http.Client
	process *exec.Cmd
	exited  chan struct{} // closed when the process has ended
	reason  error         // why it has, never nil then
}

// startEnvoy starts the sidecar of a service with its bootstrap configuration. The calling goroutine must stay
// on its thread: the kernel kills Envoy when that thread ends.
func (i Instance) startEnvoy(config droplet.Envoy, r *registration, bootstrap []byte) (*envoy, error) {
	path := filepath.Join(i.RunDir, "bootstrap-"+r.ID+".json")
	if err := os.WriteFile(path, bootstrap, 0o600); err != nil {
		return nil, fmt.Errorf("failed to write Envoy's bootstrap: %w", err)
	}
	e := &envoy{
		service: r,
		admin:   "http://" + address(r.AdminPort),
		exited:  make(chan struct{}),
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
	e.process = exec.Command(i.program("envoy"), append(args, config.ExtraArgs...)...)
	e.process.Env = i.smallEnv()
	output, err := i.newJournal(envoyJournal(r.ID), os.Stderr)
	if err != nil {
		return nil, fmt.Errorf("failed to keep Envoy's log: %w", err)
	}
	e.process.Stdout, e.process.Stderr = os.Stdout, output
	e.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := e.process.Start(); err != nil {
		return nil, fmt.Errorf("failed to start Envoy: %w", err)
	}
	go func() {
		if e.reason = e.process.Wait(); e.reason == nil {
			e.reason = errors.New("exit status 0")
		}
		close(e.exited)
	}()
	return e, nil
}

// alive is a finalError where the process has ended.
func (e *envoy) alive() error {
	select {
	case <-e.exited:
		return &finalError{fmt.Errorf("envoy ended: %w", e.reason)}
	default:
		return nil
	}
}

// end stops Envoy and waits for it, killing it when ctx ends.
func (e *envoy) end(ctx context.Context) {
	// A process that has ended already cannot be signalled, which is fine.
	_ = e.process.Process.Signal(syscall.SIGTERM)
	select {
	case <-e.exited:
	case <-ctx.Done():
		_ = e.process.Process.Kill()
		<-e.exited
	}
}
