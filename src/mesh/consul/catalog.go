package consul

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"github.com/consul-mesh/mesh-buildpack/src/credentials"
	"github.com/consul-mesh/mesh-buildpack/src/droplet"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/instance"
)

// What Consul knows of this instance and of its upstreams.

// States of a check, as Consul names them, and what it has no name for: the
// catalog does not have the check.
const (
	Passing  = "passing"
	Critical = "critical"
	Missing  = "missing"
)

// CheckStatus is a check of a service or of its sidecar, as the agent has it, or
// without agents the catalog.
type CheckStatus struct {
	ID     string `json:"id"`
	Name   string `json:"name"`
	Status string `json:"status"` // passing, warning, critical or missing
	Output string `json:"output,omitempty"`
}

// Check is a check in the catalog. Nobody but this instance runs it.
type Check struct {
	Node, CheckID, Name, Notes, Status, Output, ServiceID string
}

// AgentChecks lists the checks of a service and its sidecar by name.
func (c *Client) AgentChecks(ctx context.Context, id string) ([]CheckStatus, error) {
	var answer map[string]struct {
		CheckStatus
		ServiceID string
	}
	err := c.call(ctx, asService, http.MethodGet, "/v1/agent/checks", nil, &answer)
	var all []CheckStatus
	for _, key := range slices.Sorted(maps.Keys(answer)) {
		if check := answer[key]; check.ServiceID == id || check.ServiceID == droplet.SidecarID(id) {
			check.ID = key
			all = append(all, check.CheckStatus)
		}
	}
	return all, err
}

// Unknown are those of a node's services that the servers do not have as has wants
// them. Any of them may answer, but only the leader that it has not; and where ACLs
// hide something it is an error.
func (c *Client) Unknown(ctx context.Context, token credentials.Secret, node string, ids []string, has func(id string, port int) bool) ([]string, error) {
	for _, consistency := range []string{"?stale", ""} {
		var answer struct {
			Services []struct {
				ID   string
				Port int
			}
		}
		if err := c.List(ctx, token, "/v1/catalog/node-services/"+url.PathEscape(node)+consistency, &answer); err != nil {
			return nil, err
		}
		ports := map[string]int{}
		for _, service := range answer.Services {
			ports[service.ID] = service.Port
		}
		ids = slices.DeleteFunc(slices.Clone(ids), func(id string) bool {
			port, found := ports[id]
			return found && has(id, port)
		})
		if len(ids) == 0 {
			break
		}
	}
	return ids, nil
}

// Upstream is a service that the app calls, as its sidecar is registered.
type Upstream struct {
	Name, Local      string
	Datacenter, Peer string
	Query            bool // it is a prepared query
}

// SidecarInstance is a sidecar of a service in the catalog.
type SidecarInstance struct {
	Address         string // with its port
	Direct, Passing bool
}

// destination is a service that calls to an upstream end at.
type destination struct {
	Service, datacenter, peer string
	Local                     bool // it is in this datacenter, and no peer's
	direct                    bool // and its sidecars are called without a gateway
}

// Destinations are those of an upstream: its name is one of a discovery chain,
// which resolvers, splitters and routers lead elsewhere.
func (c *Client) Destinations(ctx context.Context, u Upstream) ([]destination, error) {
	switch {
	case u.Query:
		return nil, errors.New("a prepared query decides")
	case u.Peer != "":
		return []destination{{Service: u.Name, peer: u.Peer}}, nil
	}
	query := url.Values{}
	if u.Datacenter != "" {
		query.Set("compile-dc", u.Datacenter)
	}
	var answer struct {
		Chain struct {
			Datacenter string
			Targets    map[string]struct {
				Service, Datacenter, Peer string
				MeshGateway               struct{ Mode string }
			}
		}
	}
	if err := c.call(ctx, asService, http.MethodGet, "/v1/discovery-chain/"+url.PathEscape(u.Name)+"?"+query.Encode(), nil, &answer); err != nil {
		return nil, err
	}
	all := map[destination]bool{}
	for _, target := range answer.Chain.Targets {
		one := destination{Service: target.Service, datacenter: target.Datacenter, peer: target.Peer}
		one.Local = u.Datacenter == "" && one.peer == "" && one.datacenter == answer.Chain.Datacenter
		one.direct = one.Local && slices.Contains([]string{"", "none"}, target.MeshGateway.Mode)
		all[one] = true
	}
	return slices.Collect(maps.Keys(all)), nil
}

// Instances lists those of a destination.
func (c *Client) Instances(ctx context.Context, d destination) ([]SidecarInstance, error) {
	query := url.Values{}
	if d.datacenter != "" {
		query.Set("dc", d.datacenter)
	}
	if d.peer != "" {
		query.Set("peer", d.peer)
	}
	var answer []struct {
		Node    struct{ Address string }
		Service struct {
			Address string
			Port    int
		}
		Checks []struct{ Status string }
	}
	if err := c.call(ctx, asService, http.MethodGet, "/v1/health/connect/"+url.PathEscape(d.Service)+"?"+query.Encode(), nil, &answer); err != nil {
		return nil, err
	}
	var all []SidecarInstance
	for _, entry := range answer {
		address := entry.Service.Address
		if address == "" {
			address = entry.Node.Address
		}
		one := SidecarInstance{net.JoinHostPort(address, strconv.Itoa(entry.Service.Port)), d.direct, true}
		for _, check := range entry.Checks {
			one.Passing = one.Passing && check.Status != Critical
		}
		all = append(all, one)
	}
	return all, nil
}

// Denied says whether intentions keep a service from calling another. Where
// they look at requests, it says no.
func (c *Client) Denied(ctx context.Context, source, destination string) (bool, error) {
	names := "?source=" + url.QueryEscape(source) + "&destination=" + url.QueryEscape(destination)
	var answer struct{ Allowed bool }
	if err := c.call(ctx, asService, http.MethodGet, "/v1/connect/intentions/check"+names, nil, &answer); err != nil || answer.Allowed {
		return false, err
	}
	var intention struct{ Permissions []struct{} }
	err := c.call(ctx, asService, http.MethodGet, "/v1/connect/intentions/exact"+names, nil, &intention)
	var status *StatusError
	if errors.As(err, &status) && status.Status == http.StatusNotFound {
		err = nil // there is no such one, the default denies
	}
	return len(intention.Permissions) == 0, err
}

// CatalogNode is a node as the catalog lists it.
type CatalogNode struct {
	Node string
	Meta map[string]string
}

// MetaAgentless is the node metadata of an instance without an agent.
const MetaAgentless = "cf-agentless"

// NodesAt lists the nodes of apps of this buildpack that have an address.
func (c *Client) NodesAt(ctx context.Context, address string) (nodes []CatalogNode, err error) {
	query := url.Values{"filter": {fmt.Sprintf("Address == %q", address)}}
	if err := c.call(ctx, asNode, http.MethodGet, "/v1/catalog/nodes?"+query.Encode(), nil, &nodes); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(nodes, func(node CatalogNode) bool {
		_, ours := node.Meta[instance.MetaApp]
		return !ours
	}), nil
}

// Lives says that a node of this buildpack shows a sign of life: the gossip has it, or
// it has a session. Where ACLs hide that, nobody can say that it is dead.
func (c *Client) Lives(ctx context.Context, node CatalogNode) (bool, error) {
	if node.Meta[MetaAgentless] == "" {
		var checks []Check
		err := c.List(ctx, c.Access.AgentToken(), "/v1/health/node/"+url.PathEscape(node.Node)+"?filter="+url.QueryEscape(`CheckID == "serfHealth"`), &checks)
		if errors.Is(err, ErrHidden) {
			return true, nil
		}
		return len(checks) > 0 && checks[0].Status == Passing, err
	}
	ended, err := c.Ended(ctx, node.Node)
	return !ended, err
}

// Ended says that a node has no session. Where the answer is not whole it has not
// ended.
func (c *Client) Ended(ctx context.Context, node string) (bool, error) {
	var sessions []struct{}
	err := c.List(ctx, c.Access.ServiceToken(), "/v1/session/node/"+url.PathEscape(node), &sessions)
	var refused *StatusError
	if errors.Is(err, ErrHidden) || errors.As(err, &refused) && refused.Status == http.StatusForbidden {
		return false, nil
	}
	return err == nil && len(sessions) == 0, err
}

// SweepNode takes a node out of the catalog if it is there, whatever its agent
// thinks.
func (c *Client) SweepNode(ctx context.Context, name string) error {
	var node *struct{}
	err := c.call(ctx, asNode, http.MethodGet, "/v1/catalog/node/"+url.PathEscape(name), nil, &node)
	if err != nil || node == nil {
		return err
	}
	return c.call(ctx, asNode, http.MethodPut, "/v1/catalog/deregister", map[string]string{"Node": name}, nil)
}

// KnownServers are the addresses of the servers that the agent knows, and whether it
// sees one of them alive. Where ACLs keep it from seeing them there are none.
func (c *Client) KnownServers(ctx context.Context) (all []string, alive bool, err error) {
	var members []member
	err = c.call(ctx, asSelf, http.MethodGet, "/v1/agent/members", nil, &members)
	for _, m := range members {
		if m.Tags["role"] == "consul" {
			all = append(all, m.Addr)
			alive = alive || m.Status == memberAlive
		}
	}
	return all, alive, err
}
