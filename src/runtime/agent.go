package runtime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/consul-mesh/mesh-buildpack/src/droplet"
)

// Exec replaces the running program, as syscall.Exec does.
type Exec func(program string, args, env []string) error

// Agent becomes the Consul agent: its pid gets the platform's SIGTERM, and
// with leave_on_terminate it leaves the mesh by itself.
func Agent(ctx context.Context, inst Instance, exec Exec) error {
	if err := inst.requirePlatform(); err != nil {
		return err
	}
	if err := checkPrograms(inst, "consul"); err != nil {
		return err
	}
	if err := checkAgentPorts(ctx, inst); err != nil {
		return err
	}
	overlay, err := writeOverlay(inst)
	if err != nil {
		return err
	}
	consul := inst.program("consul")
	args := []string{"consul", "agent", "-config-file", inst.path(droplet.AgentFile), "-config-file", overlay}
	if err := exec(consul, args, inst.smallEnv()); err != nil {
		return fmt.Errorf("failed to start Consul: %w", err)
	}
	return nil
}

// overlay is laid over agent.json: all that differs between instances.
type overlay struct {
	NodeName string            `json:"node_name"`
	NodeID   string            `json:"node_id"`
	BindAddr string            `json:"bind_addr"`
	DataDir  string            `json:"data_dir"`
	NodeMeta map[string]string `json:"node_meta"`
}

func writeOverlay(inst Instance) (string, error) {
	if err := inst.makeRunDir(); err != nil {
		return "", err
	}
	text, err := json.Marshal(overlay{
		NodeName: inst.NodeName(),
		NodeID:   inst.NodeID(),
		BindAddr: inst.Address.String(),
		DataDir:  filepath.Join(inst.RunDir, "consul"),
		NodeMeta: map[string]string{"cf-app": inst.App, "cf-process": inst.Process, "cf-index": inst.Index},
	})
	if err != nil {
		return "", fmt.Errorf("failed to render the agent's overlay: %w", err)
	}
	path := filepath.Join(inst.RunDir, "agent.json")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		return "", fmt.Errorf("failed to write the agent's overlay: %w", err)
	}
	return path, nil
}

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

// agentPorts are the ports that agent.json gives the agent.
type agentPorts struct {
	HTTP   int `json:"http"`
	GRPC   int `json:"grpc"`
	Gossip int `json:"serf_lan"`
}

func (i Instance) agentPorts() (agentPorts, error) {
	var agent struct {
		Ports agentPorts `json:"ports"`
	}
	err := readJSON(i.path(droplet.AgentFile), &agent)
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
