package runtime

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
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

// bootstrap has Consul write Envoy's bootstrap configuration: it knows what
// the operator's proxy-defaults add to it.
func (p *proxy) bootstrap(ctx context.Context, r *registration) (string, error) {
	// The version of the Envoy in the droplet was judged at staging.
	args := []string{"connect", "envoy", "-bootstrap",
		"-sidecar-for", r.ID,
		"-admin-bind", address(r.AdminPort),
		"-ignore-envoy-compatibility"}
	var text []byte
	run := func(args ...string) (err error) {
		cmd := exec.CommandContext(ctx, p.inst.program("consul"), args...)
		cmd.Env = append(p.inst.smallEnv(), "CONSUL_HTTP_ADDR="+address(p.ports.HTTP))
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		if text, err = cmd.Output(); err != nil {
			return fmt.Errorf("%w: %s", err, strings.TrimSpace(stderr.String()))
		}
		return nil
	}
	var err error
	if p.xds == nil {
		err = run(append(args, "-grpc-addr", address(p.ports.GRPC))...)
	} else {
		err = p.access.withTokenFile(func(file string) error {
			return run(append(args, "-grpc-addr", "unix://"+p.xds.socket, "-token-file", file)...)
		})
		// Consul writes the token down for Envoy, which does not need it.
		text = bytes.ReplaceAll(text, []byte(p.access.serviceToken()), nil)
	}
	if err != nil {
		return "", err
	}
	path := filepath.Join(p.inst.RunDir, "bootstrap-"+r.ID+".json")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		return "", &finalError{err}
	}
	return path, nil
}

// startEnvoy starts the sidecar of a service. The calling goroutine must stay
// on its thread: the kernel kills Envoy when that thread ends.
func (i Instance) startEnvoy(config droplet.Envoy, r *registration, bootstrap string) (*envoy, error) {
	e := &envoy{
		service: r,
		admin:   "http://" + address(r.AdminPort),
		exited:  make(chan struct{}),
	}
	args := []string{
		"--config-path", bootstrap,
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
