package render

import (
	"maps"

	"github.com/consul-mesh/mesh-buildpack/src/droplet"
	"github.com/consul-mesh/mesh-buildpack/src/meshfile"
)

// agentConfig is Consul's agent configuration (Consul: agent configuration
// reference), with what mesh.hcl adds to it.
func agentConfig(mesh *meshfile.Mesh) map[string]any {
	config := map[string]any{}
	maps.Copy(config, mesh.Consul.Config)
	maps.Copy(config, map[string]any{
		"datacenter":     mesh.Consul.Datacenter,
		"data_dir":       "/home/vcap/" + droplet.RunDir + "/consul",
		"server":         false,
		"retry_join":     mesh.Consul.RetryJoin,
		"retry_interval": mesh.Consul.RetryInterval.String(),
		"client_addr":    loopback,
		"ports": map[string]int{
			"http": mesh.Consul.Ports.HTTP, "https": -1, "grpc": mesh.Consul.Ports.GRPC, "grpc_tls": -1,
			"dns": -1, "serf_lan": mesh.Consul.Ports.SerfLAN,
		},
		// These two keep the catalog clean: containers do not come back, and
		// Cloud Foundry gives their addresses to others, while Consul would
		// keep a failed node for 72 hours.
		"leave_on_terminate":          true,
		"advertise_reconnect_timeout": "10s",
		"disable_update_check":        true,
		"log_level":                   mesh.Consul.LogLevel,
	})
	if mesh.Consul.RetryMax > 0 {
		config["retry_max"] = mesh.Consul.RetryMax
	}
	if len(mesh.Consul.NodeMeta) > 0 {
		config["node_meta"] = mesh.Consul.NodeMeta
	}
	return config
}
