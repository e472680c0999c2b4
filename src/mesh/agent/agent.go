// Package agent is `mesh agent`: it lays what differs between instances over
// agent.json and runs the Consul agent, again and again where it ends.
package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/consul-mesh/mesh-buildpack/src/droplet"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/instance"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/wait"
)

// Run runs the Consul agent of the instance until ctx ends, which is the
// platform's SIGTERM: the agent gets it too, and with leave_on_terminate leaves
// the mesh by itself. An agent that ends for another reason is started again on
// its data, and the instance goes on; the proxy registers its services anew. An
// agent outlives this process where that is killed, for the proxy to say goodbye.
func Run(ctx context.Context, inst instance.Instance, log wait.Log) error {
	if err := inst.RequirePlatform(); err != nil {
		return err
	}
	if mine, err := inst.TakePart(ctx, instance.AgentPart, log); !mine {
		return err
	}
	if err := instance.CheckPrograms(inst, "consul"); err != nil {
		return err
	}
	if err := checkAgentPorts(ctx, inst); err != nil {
		return err
	}
	if err := instance.ForbidCores(); err != nil {
		return err
	}
	files, err := writeOverlay(inst)
	var binding *instance.BindingError
	if errors.As(err, &binding) {
		// The proxy says so as well: its end is soon the end of this process.
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(instance.StopBudget):
		}
	}
	if err != nil {
		return err
	}
	defer inst.RemovePrivate()
	output, err := inst.NewJournal(instance.ConsulJournal, os.Stdout)
	if err != nil {
		return fmt.Errorf("failed to keep the agent's log: %w", err)
	}
	steady := false
	left := instance.QuickEnds // how often it may still end quickly
	for {
		started := time.Now()
		err := runAgent(ctx, inst, files, output)
		output.Flush()
		ran := time.Since(started)
		left--
		if ran >= instance.SteadyAfter {
			steady, left = true, instance.QuickEnds
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case left < 0, !steady && !wasKilled(err):
			return fmt.Errorf("the Consul agent ended after %.1f s: %w\nhint: %s", ran.Seconds(), err,
				append(instance.MemoryProblems(), "its lines above say why")[0])
		}
		log("the Consul agent ended (%v), it is started again on its data", err)
		if err := forgetServices(inst); err != nil {
			return err
		}
	}
}

// wasKilled says that a program did not end by itself.
func wasKilled(err error) bool {
	var exit *exec.ExitError
	return errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signaled()
}

// runAgent runs Consul until it ends, and never returns a nil error.
func runAgent(ctx context.Context, i instance.Instance, files []string, output io.Writer) error {
	cmd := exec.CommandContext(ctx, i.Program("consul"), "agent")
	for _, file := range files {
		cmd.Args = append(cmd.Args, "-config-file", file)
	}
	cmd.Env = i.SmallEnv()
	cmd.Stdout, cmd.Stderr = output, output
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = instance.StopBudget // then one that hangs is killed
	if err := cmd.Run(); err != nil {
		return err
	}
	return errors.New("exit status 0")
}

// forgetServices takes the services of this buildpack out of the agent's data. It
// would load them before it has joined, with watches that fail and back off for
// seconds, and with every check critical until it has run: registering them when it
// has joined does no harm to the traffic. What the app has registered there by itself,
// which nobody would register again, stays.
func forgetServices(i instance.Instance) error {
	dir, err := i.PrivateDir()
	if err != nil {
		return err
	}
	config, err := i.Config()
	if err != nil {
		return err
	}
	own := map[string]bool{}
	for _, service := range config.Services {
		own[service.ID], own[droplet.SidecarID(service.ID)] = true, true
	}
	for _, folder := range []string{"services", "checks"} {
		paths, err := filepath.Glob(filepath.Join(dir, instance.DataFolder, folder, "*"))
		if err != nil {
			return err
		}
		for _, path := range paths {
			if info, err := os.Stat(path); err != nil || info.IsDir() || !own[serviceOf(path)] {
				continue
			}
			state := filepath.Join(filepath.Dir(path), "state", filepath.Base(path)) // of a check that is told, by the same name
			for _, path := range []string{path, state} {
				if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
					return fmt.Errorf("failed to clear the agent's data: %w", err)
				}
			}
		}
	}
	return nil
}

// serviceOf is the service that a file of the agent's data is about (Consul 1.22,
// agent/agent.go, persistedService and persistedCheck). One that cannot be read the
// agent leaves out by itself.
func serviceOf(path string) (id string) {
	var data struct {
		Service struct{ ID string }
		Check   struct{ ServiceID string }
	}
	if text, err := os.ReadFile(path); err == nil {
		_ = json.Unmarshal(text, &data)
	}
	return data.Service.ID + data.Check.ServiceID
}

func agentPidFile(i instance.Instance) string { return filepath.Join(i.RunDir, "consul.pid") }

// Kill ends an agent that hangs. Whoever started it starts it again.
func Kill(i instance.Instance) error {
	pid, err := agentPid(i)
	if err != nil {
		return err
	}
	return syscall.Kill(pid, syscall.SIGKILL)
}

func agentPid(i instance.Instance) (int, error) {
	text, err := os.ReadFile(agentPidFile(i))
	if err != nil {
		return 0, err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0, err
	}
	// The number may be another process's by now.
	program, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	if err == nil && program != i.Program("consul") {
		err = fmt.Errorf("process %d is not the agent, but %s", pid, program)
	}
	return pid, err
}

// TellOrphaned has an agent leave whose `mesh agent` was killed: the platform
// does not know of it. It returns false where there is none.
func TellOrphaned(i instance.Instance) bool {
	pid, err := agentPid(i)
	if err != nil {
		return false
	}
	parent, _ := instance.ParentOf(pid)
	if program, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", parent)); err == nil && program == i.Program("mesh") {
		return false // which gets the platform's SIGTERM, and passes it on
	}
	return syscall.Kill(pid, syscall.SIGTERM) == nil
}

// AwaitEnd waits for the end of the agent, or that of ctx.
func AwaitEnd(ctx context.Context, i instance.Instance) {
	_ = wait.Poll(ctx, func(context.Context) error {
		if _, err := agentPid(i); err == nil {
			return errors.New("the agent is still there")
		}
		return nil
	})
}

// checkAgentPorts tries the ports that agent.json names, so that a taken one
// is said in one sentence rather than between Consul's lines.
func checkAgentPorts(ctx context.Context, inst instance.Instance) error {
	ports, err := inst.AgentPorts()
	if err != nil {
		return err
	}
	for _, l := range []struct {
		what, host string
		port       int
	}{
		{"gossip", inst.Address.String(), ports.Gossip},
		{"http", "127.0.0.1", ports.HTTP},
		{"grpc", "127.0.0.1", ports.GRPC},
	} {
		if err := instance.CheckPort(ctx, l.host, l.port); err != nil {
			return fmt.Errorf("the Consul agent's %s port %d cannot be used: %w", l.what, l.port, err)
		}
	}
	return nil
}
