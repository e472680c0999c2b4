package meshfile

import (
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/consul-mesh/mesh-buildpack/src/droplet"
)

// Without an agent the sidecar asks the servers itself. What only an agent
// does is refused, so that nothing is dropped silently.

// Agentless says that the app runs no Consul agent.
func (m *Mesh) Agentless() bool { return m.Consul.Mode == modeAgentless }

const modeAgentless = "agentless"

// agentAttributes of the block consul are about an agent.
var agentAttributes = []string{
	"version", "source", "sha256", "retry_join", "retry_interval", "retry_max", "datacenter", "log_level", "config", "memory",
}

// agentChecks are the kinds of checks that an agent runs, and a sidecar does
// not.
var agentChecks = []string{"udp", "h2ping", "ttl", "alias"}

// agentCheckAttributes are what an agent makes of a check's results.
var agentCheckAttributes = []string{"failures_before_warning", "deregister_critical_service_after", "status"}

func (v *validator) agentless(m *Mesh) {
	if !m.Agentless() {
		v.agent(m)
		return
	}
	c := m.Consul
	given := content(c.Body, typeOfConsul).Attributes
	const summary = "For an agent only"
	for _, name := range agentAttributes {
		switch {
		case given[name] == nil:
		case name == "retry_join":
			v.fail(at(c.Body, name), summary, `mode = "agentless" runs no agent. Name the servers by addresses.`)
		case name == "datacenter":
			v.fail(at(c.Body, name), summary, `With mode = "agentless" it is that of the servers in addresses. Leave it out; the bound service's datacenter says for which the servers' certificates have to be.`)
		default:
			v.fail(at(c.Body, name), summary, `%s is about an agent, and mode = "agentless" runs none.`, name)
		}
	}
	if place := givenAt(c.Ports.Body, "serf_lan"); place.Filename != "" {
		v.fail(place, summary, `serf_lan is for gossip, and mode = "agentless" has none.`)
	}
	v.addresses(c.Body, "addresses", c.Addresses, serverProblem)
	for _, s := range m.Services {
		if content(s.Body, typeOfService).Attributes["enable_tag_override"] != nil {
			v.fail(at(s.Body, "enable_tag_override"), summary, `It keeps an agent from writing the tags back that others have changed. With mode = "agentless" nobody does.`)
		}
		if w := s.Weights; w != nil && content(w.Body, typeOfWeights).Attributes["warning"] != nil {
			v.fail(at(w.Body, "warning"), summary, `With mode = "agentless" a check passes or is critical, and never warns.`)
		}
		for _, check := range slices.Concat(s.Checks, s.Sidecar.Checks) {
			given := content(check.Body, typeOfCheck).Attributes
			for _, kind := range agentChecks {
				if given[kind] != nil {
					v.fail(at(check.Body, kind), summary, `An agent runs %s checks. With mode = "agentless" there are http, tcp and grpc.`, kind)
				}
			}
			for _, name := range agentCheckAttributes {
				if given[name] != nil {
					v.fail(at(check.Body, name), summary, `%s is for an agent. With mode = "agentless" a check is critical until it has passed, and then as its last runs were.`, name)
				}
			}
			if (check.GRPC != nil || check.TCP != nil) && check.TLS {
				v.fail(at(check.Body, "tls"), summary, "An agent runs grpc and tcp checks over TLS. Use http with tls, or tcp without: the port accepts connections then.")
			}
		}
		if s.Sidecar.Expose != nil && s.Sidecar.Expose.Checks {
			v.fail(at(s.Sidecar.Expose.Body, "checks"), summary, "Checks are run beside the app here, and need no exposed path. Name the paths that others need.")
		}
	}
	for _, key := range slices.Sorted(maps.Keys(m.Envoy.Bootstrap)) {
		if slices.Contains(droplet.ConsulOnlyKeys, strings.ToLower(key)) {
			v.fail(at(m.Envoy.Body, "bootstrap"), summary, "%s is read by Consul's own program, which mode = \"agentless\" does not bring.", key)
		}
	}
}

// agent refuses what goes without an agent alone.
func (v *validator) agent(m *Mesh) {
	const summary = "For agentless alone"
	if content(m.Consul.Body, typeOfConsul).Attributes["addresses"] != nil {
		v.fail(at(m.Consul.Body, "addresses"), summary, `An agent joins by retry_join. Say mode = "agentless", or retry_join.`)
	}
	for _, s := range m.Services {
		for _, check := range slices.Concat(s.Checks, s.Sidecar.Checks) {
			interval := check.Interval.Duration
			if interval >= leastInterval && interval < agentInterval { // less is refused in both modes
				v.fail(at(check.Body, "interval"), summary, `An agent runs no check more often than every %s. Leave it out, or say mode = "agentless".`, agentInterval)
			}
		}
	}
}

// agentInterval is the least between two runs of a check that an agent keeps to
// (Consul 1.22, agent/checks).
const agentInterval = time.Second

// serverProblem says what is wrong with the address of a server that the sidecar
// itself asks, empty where nothing is: it is a host alone.
func serverProblem(address string) string {
	_, _, err := net.SplitHostPort(address)
	switch {
	case ip(address).IsValid() || validHost.MatchString(address):
		return ""
	case strings.Contains(address, "provider="):
		return `An agent finds servers by provider=…, and mode = "agentless" runs none. Name the servers, or a name that resolves to all of them.`
	case strings.ContainsAny(address, "/@"):
		return fmt.Sprintf("%q: a server is a name or an IP address alone. It is asked over TLS where the bound service has a ca.", address)
	case err == nil:
		return fmt.Sprintf("%q: a server has no port here. It is said once for all of them, such as ports { http = 8501 }.", address)
	}
	return fmt.Sprintf("%q: a server is a name or an IP address alone.", address)
}
