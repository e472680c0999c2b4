package runtime

import (
	"encoding/json"
	"fmt"
	"path/filepath"

	"github.com/consul-mesh/mesh-buildpack/src/droplet"
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
func writeOverlay(inst Instance) ([]string, error) {
	if err := inst.makeRunDir(); err != nil {
		return nil, err
	}
	dir, err := inst.privateDir()
	if err != nil {
		return nil, err
	}
	config, err := inst.config()
	if err != nil {
		return nil, err
	}
	bound, _, err := inst.credentials(config)
	if err != nil {
		return nil, err
	}
	var agent map[string]any
	if err := readJSON(inst.path(droplet.AgentFile), &agent); err != nil {
		return nil, err
	}
	security, err := newSecurity(bound, dir, agent)
	if err != nil {
		return nil, err
	}
	err = writeJSON(filepath.Join(dir, overlayFile), overlay{
		NodeName: inst.NodeName(),
		NodeID:   inst.NodeID(),
		BindAddr: inst.Address.String(),
		DataDir:  filepath.Join(dir, dataFolder),
		PidFile:  inst.agentPidFile(),
		NodeMeta: map[string]string{metaApp: inst.App, metaProcess: inst.Process, "cf-index": inst.Index},
		HTTP:     httpConfig{blockedEndpoints},
		security: security,
	})
	if err != nil {
		return nil, fmt.Errorf("failed to write the agent's overlay: %w", err)
	}
	staged, err := inst.agentFile(dir, agent, bound)
	return []string{staged, filepath.Join(dir, overlayFile)}, err
}

// writeJSON writes a file that is ours alone.
func writeJSON(path string, value any) error {
	text, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return replaceFile(path, text)
}
