package registry

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/consul-mesh/mesh-buildpack/src/mesh/consul"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/wait"
)

// serverRPC is the port of Consul's servers for requests of agents.
const serverRPC = 8300

// KnownProblem explains the last line that has a known error, empty where none
// has.
func KnownProblem(lines []string) string {
	for _, line := range slices.Backward(lines) {
		for _, known := range knownErrors {
			if strings.Contains(line, known.text) {
				return known.problem
			}
		}
	}
	return ""
}

// LastJoinError is why the agent could not join a server the last time, empty where
// it has not said so.
func LastJoinError(lines []string) string {
	for _, line := range slices.Backward(lines) {
		if at := strings.Index(line, "Failed to join "); at >= 0 {
			return line[at:]
		}
	}
	return ""
}

// knownErrors are what Consul and Envoy print where waiting does not help:
// memberlist, Consul's merge delegate and its xDS server, Envoy's listeners.
var knownErrors = []struct{ text, problem string }{
	{"No installed keys could decrypt", "the gossip key is not that of the servers: bind the service that has theirs"},
	{"encrypted and encryption is not configured", "the servers encrypt gossip and this agent has no key: bind the service that has it"},
	{"Encryption is configured but remote state is not encrypted", "this agent encrypts gossip and the servers do not: the bound service is another control plane's"},
	{"wrong datacenter", "the servers are of another datacenter: consul { datacenter = … } in mesh.hcl must name theirs"},
	{"Address already in use", "another process of the app listens on a port of mesh.hcl: choose another for it, the lines above name it"},
	{"lacks permission 'mesh:write'", "these servers take an envoy_…_json key, Lua or WASM only from a token with mesh = \"write\", which is wide: meshctl acl prints the rule, or leave the key out of mesh.hcl"},
	{"is too old and is not supported by Consul", "Envoy is too old for this Consul: leave out version and source of envoy in mesh.hcl, or take one that docs/operators.md lists"},
}

// serverProblems tries to reach the servers as the agent does.
func (n *Node) serverProblems(ctx context.Context) []string {
	join, err := n.retryJoin()
	if err != nil {
		return []string{err.Error()}
	}
	lookup, cancel := context.WithTimeout(ctx, wait.DialTimeout)
	defer cancel()
	hosts, err := consul.Resolve(lookup, join)
	if err != nil {
		return []string{err.Error()}
	}
	return portProblems(ctx, hosts, serverPort{n.Ports.Gossip, "tcp and udp"}, serverPort{serverRPC, "tcp"})
}

// serverPort is one that policies have to allow.
type serverPort struct {
	port      int
	protocols string
}

// portProblems says on which ports no server can be reached. They are tried side by
// side: each may take all the time that there is.
func portProblems(ctx context.Context, hosts []string, ports ...serverPort) (problems []string) {
	failed := make([]error, len(ports))
	var group sync.WaitGroup
	for i, p := range ports {
		group.Go(func() { failed[i] = wait.DialAny(ctx, hosts, p.port) })
	}
	group.Wait()
	for i, p := range ports {
		if failed[i] != nil {
			problems = append(problems, fmt.Sprintf("no server can be reached on %d (%v): ", p.port, failed[i])+
				MissingPolicy("this app", "the servers", fmt.Sprintf("%d %s", p.port, p.protocols)))
		}
	}
	return problems
}
