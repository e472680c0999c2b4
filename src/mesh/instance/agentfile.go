package instance

import (
	"github.com/consul-mesh/mesh-buildpack/src/droplet"
)

// RetryJoin lists the addresses of servers that the agent tries.
func (i Instance) RetryJoin() ([]string, error) {
	var agent struct {
		RetryJoin []string `json:"retry_join"`
	}
	err := ReadJSON(i.Path(droplet.AgentFile), &agent)
	return agent.RetryJoin, err
}

// AgentPorts are the ports that agent.json gives the agent, and where it is.
type AgentPorts struct {
	Datacenter string `json:"-"`

	HTTP   int `json:"http"`
	GRPC   int `json:"grpc"`
	Gossip int `json:"serf_lan"`
}

// AgentPorts reads them.
func (i Instance) AgentPorts() (AgentPorts, error) {
	var agent struct {
		Datacenter string     `json:"datacenter"`
		Ports      AgentPorts `json:"ports"`
	}
	err := ReadJSON(i.Path(droplet.AgentFile), &agent)
	agent.Ports.Datacenter = agent.Datacenter
	return agent.Ports, err
}
