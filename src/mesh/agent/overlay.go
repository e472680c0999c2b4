package agent

import (
	"fmt"
	"path/filepath"

	"github.com/consul-mesh/mesh-buildpack/src/droplet"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/instance"
)

// overlay is laid over agent.json: all that differs between instances, and all
// that is secret.
type overlay struct {
	NodeName string            `json:"node_name"`
	NodeID   string            `json:"node_id"`
	BindAddr string            `json:"bind_addr"`
	DataDir  string            `json:"data_dir"`
	PidFile  string            `json:"pid_file"`
	NodeMeta map[string]string `json:"node_meta"`
	HTTP     httpConfig        `json:"http_config"`
	*security
}

// writeOverlay returns the agent's configuration files in their order.
func writeOverlay(inst instance.Instance) ([]string, error) {
	if err := inst.MakeRunDir(); err != nil {
		return nil, err
	}
	dir, err := inst.PrivateDir()
	if err != nil {
		return nil, err
	}
	config, err := inst.Config()
	if err != nil {
		return nil, err
	}
	bound, _, err := inst.Credentials(config)
	if err != nil {
		return nil, err
	}
	var agent map[string]any
	if err := instance.ReadJSON(inst.Path(droplet.AgentFile), &agent); err != nil {
		return nil, err
	}
	security, err := newSecurity(bound, dir, agent)
	if err != nil {
		return nil, err
	}
	err = instance.WriteJSON(filepath.Join(dir, instance.OverlayFile), overlay{
		NodeName: inst.NodeName(),
		NodeID:   inst.NodeID(),
		BindAddr: inst.Address.String(),
		DataDir:  filepath.Join(dir, instance.DataFolder),
		PidFile:  agentPidFile(inst),
		NodeMeta: inst.NodeMeta(),
		HTTP:     httpConfig{blockedEndpoints},
		security: security,
	})
	if err != nil {
		return nil, fmt.Errorf("failed to write the agent's overlay: %w", err)
	}
	staged, err := agentFile(inst, dir, agent, bound)
	return []string{staged, filepath.Join(dir, instance.OverlayFile)}, err
}
