package registry

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/consul-mesh/mesh-buildpack/src/droplet"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/agent"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/consul"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/envoy"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/instance"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/wait"
)

// Node is an instance as a node of Consul's: what it is, whom it asks, and its
// services.
type Node struct {
	Inst     instance.Instance
	Log      wait.Log
	Config   droplet.Config
	Ports    instance.AgentPorts // of its agent, if it has one
	Consul   *consul.Client
	Access   *consul.Access
	XDS      *envoy.XDS // nil: Envoy asks the agent itself
	Services []*Registration
	From     net.Addr // where it asks the servers from; nil: the system chooses

	joined     atomic.Pointer[time.Time] // when the agent of now knew a leader
	orphanOnce sync.Once
	orphan     bool // the agent was one, and was told to leave
}

// NoteJoined notes that the agent has just met a leader.
func (n *Node) NoteJoined() {
	now := time.Now()
	n.joined.Store(&now)
}

// HasAgent is the one place that tells the modes apart: everything else is done by the
// registry that this decides for.
func HasAgent(config droplet.Config) bool { return config.Servers == nil }

// Parts are those of the mesh of an instance, each a process of its own.
func Parts(config droplet.Config) []string {
	if HasAgent(config) {
		return []string{instance.AgentPart, instance.ProxyPart}
	}
	return []string{instance.ProxyPart}
}

// GoodbyeBudget is what deregistering takes at most as a rule.
func GoodbyeBudget(config droplet.Config) time.Duration {
	if HasAgent(config) {
		return instance.DeregisterBudget
	}
	return instance.ServersBudget
}

// NewNode looks whether an instance has what it needs to be a node, and reads its
// services.
func NewNode(inst instance.Instance, config droplet.Config, log wait.Log) (n *Node, err error) {
	n = &Node{Inst: inst, Config: config, Log: log}
	programs := []string{"envoy"}
	if HasAgent(config) {
		programs = append(programs, "consul")
		if n.Ports, err = inst.AgentPorts(); err != nil {
			return nil, err
		}
	}
	if err := instance.CheckPrograms(inst, programs...); err != nil {
		return nil, err
	}
	n.Consul = &consul.Client{Base: "http://" + wait.Loopback(n.Ports.HTTP)}
	n.Services, err = Registrations(inst, config)
	return n, err
}

// New reads the bound service, and prepares what stands between the instance
// and Consul and Envoy.
func New(ctx context.Context, n *Node) (_ Registry, err error) {
	if err := n.identify(); err != nil {
		return nil, err
	}
	if HasAgent(n.Config) {
		if n.Access.Enabled() {
			var protocols http.Protocols
			protocols.SetUnencryptedHTTP2(true)
			n.XDS, err = envoy.NewXDS(ctx, n.Access, &http.Transport{Protocols: &protocols}, wait.Loopback(n.Ports.GRPC))
		}
		return ViaAgent{n}, err
	}
	if creds := n.Access.Current(); creds != nil && creds.Namespace+creds.Partition != "" {
		return nil, fmt.Errorf("the bound service %q has a namespace or a partition, which need an agent\nhint: leave out mode = \"agentless\" in mesh.hcl, or bind a service for Consul's default ones", creds.Binding)
	}
	v := newViaServers(n)
	n.XDS, err = envoy.NewXDS(ctx, n.Access, v.servers.XDS(), serverCluster)
	return v, err
}

// identify reads the bound service.
func (n *Node) identify() error {
	if err := instance.ForbidCores(); err != nil {
		return err
	}
	dir, err := n.Inst.PrivateDir()
	if err != nil {
		return err
	}
	creds, unknown, err := n.Inst.Credentials(n.Config)
	if err != nil {
		return err
	}
	n.Access = consul.NewAccess(dir, creds, unknown, n.Log)
	n.Access.KeepsToken = HasAgent(n.Config)
	n.Access.Consul, n.Consul.Access = n.Consul, n.Access
	return nil
}

// TellOrphan has an orphaned agent leave, once: the second time it would not wait
// for its leave. It returns false where there is none.
func (n *Node) TellOrphan() bool {
	n.orphanOnce.Do(func() { n.orphan = agent.TellOrphaned(n.Inst) })
	return n.orphan
}

// Syncing is how long the agent may still do so.
func (n *Node) Syncing() time.Duration {
	joined := n.joined.Load()
	if joined == nil {
		return 0
	}
	return max(0, time.Until(joined.Add(instance.FirstSync)))
}

// health is what the catalog has of the checks of this node and its services, by
// their ids. consistency is empty for Consul's default, or "?consistent".
func (n *Node) health(ctx context.Context, consistency string) (map[string]consul.Check, error) {
	ctx, cancel := context.WithTimeout(ctx, instance.CallTimeout)
	defer cancel()
	var list []consul.Check
	err := n.Consul.List(ctx, n.Access.ServiceToken(), "/v1/health/node/"+url.PathEscape(n.Inst.NodeName())+consistency, &list)
	there := map[string]consul.Check{}
	for _, check := range list {
		there[check.CheckID] = check
	}
	return there, err
}

// retryJoin are the servers' addresses, the bound service's where it has some.
func (n *Node) retryJoin() ([]string, error) {
	if creds := n.Access.Current(); creds != nil && creds.RetryJoin != nil {
		return creds.RetryJoin, nil
	}
	return n.Inst.RetryJoin()
}

// ServerCount is how many servers tell callers what changes: one where nobody says.
// That of callers with agents of their own is the same, as the instances of a service
// may be of both modes.
func (n *Node) ServerCount(ctx context.Context) int {
	var addresses []string
	if err := n.Consul.List(ctx, n.Access.ServiceToken(), "/v1/status/peers", &addresses); err != nil {
		return 1
	}
	return max(1, len(addresses))
}

// NotePromotion says once that the droplet was staged for another place, and
// mesh.hcl looks at that.
func (n *Node) NotePromotion() {
	here := droplet.Place{App: n.Inst.App, Space: n.Inst.Space, Organization: n.Inst.Organization, Route: n.Inst.Route}
	if staged := n.Config.Staged; staged != nil && *staged != here {
		n.Log("the droplet was staged for %s in %s/%s with the route %q and runs as %s in %s/%s with %q: what mesh.hcl took from app.* is that of the first, restage to change it",
			staged.App, staged.Organization, staged.Space, staged.Route, here.App, here.Organization, here.Space, here.Route)
	}
}

// envoySidecar is what the Envoy of one service has to know of it, and of the others of
// the instance.
func (n *Node) envoySidecar(r *Registration) envoy.Sidecar {
	sidecar := r.EnvoySidecar()
	sidecar.Nth = slices.Index(n.Services, r)
	sidecar.Taken = map[int]bool{n.Ports.HTTP: true, n.Ports.GRPC: true, n.Ports.Gossip: true}
	for _, other := range n.Services {
		for _, port := range other.ports() {
			sidecar.Taken[port] = true
		}
	}
	return sidecar
}
