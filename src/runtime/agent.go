package runtime

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/consul-mesh/mesh-buildpack/src/droplet"
)

// An agent that has run for steadyAfter is worth starting again, and one that
// was killed. One that ends by itself before it was ever steady would most likely
// do so again. Of those started again, that many may end quickly in a row.
const (
	steadyAfter = 5 * time.Second
	quickEnds   = 3
)

// Agent runs the Consul agent of the instance until ctx ends, which is the
// platform's SIGTERM: the agent gets it too, and with leave_on_terminate leaves
// the mesh by itself. An agent that ends for another reason is started again on
// its data, and the instance goes on; the proxy registers its services anew. An
// agent outlives this process where that is killed, for the proxy to say goodbye.
func Agent(ctx context.Context, inst Instance, log Log) error {
	if err := inst.requirePlatform(); err != nil {
		return err
	}
	if err := checkPrograms(inst, "consul"); err != nil {
		return err
	}
	if err := checkAgentPorts(ctx, inst); err != nil {
		return err
	}
	if err := forbidCores(); err != nil {
		return err
	}
	files, err := writeOverlay(inst)
	var binding *bindingError
	if errors.As(err, &binding) {
		// The proxy says so as well: its end is soon the end of this process.
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(stopBudget):
		}
	}
	if err != nil {
		return err
	}
	defer inst.removePrivate()
	output, err := inst.newJournal(consulJournal, os.Stdout)
	if err != nil {
		return fmt.Errorf("failed to keep the agent's log: %w", err)
	}
	steady := false
	left := quickEnds // how often it may still end quickly
	for {
		started := time.Now()
		err := inst.runAgent(ctx, files, output)
		ran := time.Since(started)
		left--
		if ran >= steadyAfter {
			steady, left = true, quickEnds
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case left < 0, !steady && !wasKilled(err):
			return fmt.Errorf("the Consul agent ended after %.1f s: %w\nhint: %s", ran.Seconds(), err,
				append(memoryProblems(), "its lines above say why")[0])
		}
		log("the Consul agent ended (%v), it is started again on its data", err)
		if err := inst.forgetServices(); err != nil {
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
func (i Instance) runAgent(ctx context.Context, files []string, output io.Writer) error {
	cmd := exec.CommandContext(ctx, i.program("consul"), "agent")
	for _, file := range files {
		cmd.Args = append(cmd.Args, "-config-file", file)
	}
	cmd.Env = i.smallEnv()
	cmd.Stdout, cmd.Stderr = output, output
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopBudget // then one that hangs is killed
	if err := cmd.Run(); err != nil {
		return err
	}
	return errors.New("exit status 0")
}

// forgetServices takes the services out of the agent's data. It would load
// them before it has joined, with watches that fail and back off for seconds,
// and with every check critical until it has run: registering them when it has
// joined does no harm to the traffic.
func (i Instance) forgetServices() error {
	dir, err := i.privateDir()
	if err != nil {
		return err
	}
	for _, folder := range []string{"services", "checks"} {
		if err := os.RemoveAll(filepath.Join(dir, dataFolder, folder)); err != nil {
			return fmt.Errorf("failed to clear the agent's data: %w", err)
		}
	}
	return nil
}

func (i Instance) agentPidFile() string { return filepath.Join(i.RunDir, "consul.pid") }

// killAgent ends an agent that hangs. Whoever started it starts it again.
func (i Instance) killAgent() error {
	pid, err := i.agentPid()
	if err != nil {
		return err
	}
	return syscall.Kill(pid, syscall.SIGKILL)
}

func (i Instance) agentPid() (int, error) {
	text, err := os.ReadFile(i.agentPidFile())
	if err != nil {
		return 0, err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0, err
	}
	// The number may be another process's by now.
	program, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	if err == nil && program != i.program("consul") {
		err = fmt.Errorf("process %d is not the agent, but %s", pid, program)
	}
	return pid, err
}

// tellOrphanedAgent has an agent leave whose `mesh agent` was killed: the platform
// does not know of it. It returns false where there is none.
func (i Instance) tellOrphanedAgent() bool {
	pid, err := i.agentPid()
	if err != nil {
		return false
	}
	parent, _ := parentOf(pid)
	if program, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", parent)); err == nil && program == i.program("mesh") {
		return false // which gets the platform's SIGTERM, and passes it on
	}
	return syscall.Kill(pid, syscall.SIGTERM) == nil
}

// awaitAgentEnd waits for the end of the agent, or that of ctx.
func (i Instance) awaitAgentEnd(ctx context.Context) {
	_ = poll(ctx, func(context.Context) error {
		if _, err := i.agentPid(); err == nil {
			return errors.New("the agent is still there")
		}
		return nil
	})
}

// Node metadata: the app's name, which tells nodes of this buildpack from
// others, and the type of its process.
const (
	metaApp     = "cf-app"
	metaProcess = "cf-process"
)

// checkPrograms says plainly that a program is not there, or not to be run.
func checkPrograms(inst Instance, names ...string) error {
	for _, name := range names {
		info, err := os.Stat(inst.program(name))
		switch {
		case err != nil:
			return fmt.Errorf("failed to find %s in the droplet: %w\nhint: restage the app", name, err)
		case info.Mode()&0o111 == 0:
			return fmt.Errorf("%s is not executable\nhint: restage the app", inst.program(name))
		}
	}
	return nil
}

// checkAgentPorts tries the ports that agent.json names, so that a taken one
// is said in one sentence rather than between Consul's lines.
func checkAgentPorts(ctx context.Context, inst Instance) error {
	ports, err := inst.agentPorts()
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
		if err := checkPort(ctx, l.host, l.port); err != nil {
			return fmt.Errorf("the Consul agent's %s port %d cannot be used: %w", l.what, l.port, err)
		}
	}
	return nil
}

// retryJoin lists the addresses of servers that the agent tries.
func (i Instance) retryJoin() ([]string, error) {
	var agent struct {
		RetryJoin []string `json:"retry_join"`
	}
	err := readJSON(i.path(droplet.AgentFile), &agent)
	return agent.RetryJoin, err
}

// agentPorts are the ports that agent.json gives the agent, and where it is.
type agentPorts struct {
	Datacenter string `json:"-"`

	HTTP   int `json:"http"`
	GRPC   int `json:"grpc"`
	Gossip int `json:"serf_lan"`
}

func (i Instance) agentPorts() (agentPorts, error) {
	var agent struct {
		Datacenter string     `json:"datacenter"`
		Ports      agentPorts `json:"ports"`
	}
	err := readJSON(i.path(droplet.AgentFile), &agent)
	agent.Ports.Datacenter = agent.Datacenter
	return agent.Ports, err
}

// checkPort tries to listen and stops again at once.
func checkPort(ctx context.Context, host string, port int) error {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(port)))
	if errors.Is(err, syscall.EADDRINUSE) {
		return errors.New("another process of the app listens there\n" +
			"hint: `cf ssh` and `ss -ltnp` show which; the ports of the mesh are listed in docs/mesh-hcl.md")
	}
	if err != nil {
		return err
	}
	return listener.Close()
}
