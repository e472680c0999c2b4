package agent

import (
	"fmt"
	"path/filepath"

	"github.com/google/uuid"

	"github.com/consul-mesh/mesh-buildpack/src/credentials"
	"github.com/consul-mesh/mesh-buildpack/src/droplet"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/instance"
)

// blockedEndpoints of the agent's HTTP API are for operators, who have the
// servers for it. Whatever token a process of the app has, it cannot move,
// end or listen to its agent through them.
var blockedEndpoints = []string{
	"/v1/acl/bootstrap", "/v1/agent/force-leave", "/v1/agent/join", "/v1/agent/leave", "/v1/agent/maintenance",
	"/v1/agent/monitor", "/v1/operator", "/v1/snapshot", "/debug/pprof",
}

// httpConfig is of the agent's HTTP API.
type httpConfig struct {
	BlockEndpoints []string `json:"block_endpoints"`
}

// security is what the overlay says of a bound service.
type security struct {
	Datacenter      string       `json:"datacenter,omitempty"`
	RetryJoin       []string     `json:"retry_join,omitempty"`
	Partition       string       `json:"partition,omitempty"`
	Encrypt         string       `json:"encrypt,omitempty"`
	IntentionPolicy string       `json:"default_intention_policy"`
	ACL             *aclConfig   `json:"acl,omitempty"`
	TLS             *tlsConfig   `json:"tls,omitempty"`
	AutoEncrypt     *autoEncrypt `json:"auto_encrypt,omitempty"`
}

type aclConfig struct {
	Enabled       bool        `json:"enabled"`
	DefaultPolicy string      `json:"default_policy"`
	DownPolicy    string      `json:"down_policy"`
	Tokens        agentTokens `json:"tokens"`
}

// agentTokens are the agent's own. Local ("agent_recovery") is made at start
// and known to this agent only: with it the proxy sees all members and exchanges
// the agent's token, which the token itself need not be allowed to.
type agentTokens struct {
	Agent string `json:"agent,omitempty"`
	Local string `json:"agent_recovery"`
}

type tlsConfig struct {
	Defaults    tlsDefaults `json:"defaults"`
	InternalRPC tlsRPC      `json:"internal_rpc"`
}

type tlsDefaults struct {
	CAFile         string `json:"ca_file"`
	VerifyOutgoing bool   `json:"verify_outgoing"`
}

type tlsRPC struct {
	VerifyServerHostname bool `json:"verify_server_hostname"`
}

type autoEncrypt struct {
	TLS bool `json:"tls"`
}

// newSecurity is nil without credentials. It writes the CA into dir.
func newSecurity(c *credentials.Credentials, dir string, agent map[string]any) (*security, error) {
	if c == nil {
		return nil, nil
	}
	s := &security{
		Datacenter: c.Datacenter, RetryJoin: c.RetryJoin, Partition: c.Partition,
		Encrypt: string(c.GossipKey), IntentionPolicy: c.DefaultPolicy,
	}
	if policy, ok := agent["default_intention_policy"].(string); ok {
		s.IntentionPolicy = policy // mesh.hcl says otherwise
	}
	if c.UseACL() {
		s.ACL = &aclConfig{
			Enabled: true, DefaultPolicy: c.DefaultPolicy, DownPolicy: "extend-cache",
			Tokens: agentTokens{Agent: string(c.AgentToken), Local: uuid.NewString()},
		}
	}
	if c.CA != "" {
		path := filepath.Join(dir, instance.CAFile)
		if err := instance.ReplaceFile(path, []byte(c.CA)); err != nil {
			return nil, fmt.Errorf("failed to write the CA: %w", err)
		}
		s.TLS = &tlsConfig{tlsDefaults{path, true}, tlsRPC{c.VerifyServerName}}
	}
	if c.AutoEncrypt {
		s.AutoEncrypt = &autoEncrypt{true}
	}
	return s, nil
}

// agentFile is the agent's configuration from staging. Consul joins the lists
// of its files, so that addresses of the bound service take the place of those
// in mesh.hcl only where these are gone.
func agentFile(i instance.Instance, dir string, agent map[string]any, c *credentials.Credentials) (string, error) {
	if c == nil || c.RetryJoin == nil {
		return i.Path(droplet.AgentFile), nil
	}
	delete(agent, "retry_join")
	path := filepath.Join(dir, "staged.json")
	if err := instance.WriteJSON(path, agent); err != nil {
		return "", fmt.Errorf("failed to write the agent's configuration: %w", err)
	}
	return path, nil
}
