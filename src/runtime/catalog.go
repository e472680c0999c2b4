package runtime

import (
	"context"
	"errors"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"github.com/consul-mesh/mesh-buildpack/src/credentials"
	"github.com/consul-mesh/mesh-buildpack/src/droplet"
)

// What Consul knows of this instance and of its upstreams.

// States of a check, as Consul names them, and what it has no name for: the
// catalog does not have the check.
const (
	passing  = "passing"
	critical = "critical"
	missing  = "missing"
)

// checks lists the checks of a service and its sidecar by name.
func (c *consul) checks(ctx context.Context, id string) ([]CheckStatus, error) {
	var answer map[string]struct {
		CheckStatus
		ServiceID string
	}
	err := c.call(ctx, http.MethodGet, "/v1/agent/checks", nil, &answer)
	var all []CheckStatus
	for _, key := range slices.Sorted(maps.Keys(answer)) {
		if check := answer[key]; check.ServiceID == id || check.ServiceID == droplet.SidecarID(id) {
			check.ID = key
			all = append(all, check.CheckStatus)
		}
	}
	return all, err
}

// health is what the catalog has of the checks of this node and its services, by
// their ids. consistency is empty for Consul's default, or "?consistent".
func (p *proxy) health(ctx context.Context, consistency string) (map[string]catalogCheck, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var list []catalogCheck
	err := p.consul.list(ctx, p.access.serviceToken(), "/v1/health/node/"+url.PathEscape(p.inst.NodeName())+consistency, &list)
	there := map[string]catalogCheck{}
	for _, check := range list {
		there[check.CheckID] = check
	}
	return there, err
}

// unknown are those of a node's services that the servers do not have as has wants
// them. Any of them may answer, but only the leader that it has not; and where ACLs
// hide something it is an error.
func (c *consul) unknown(ctx context.Context, token credentials.Secret, node string, ids []string, has func(id string, port int) bool) ([]string, error) {
	for _, consistency := range []string{"?stale", ""} {
		var answer struct {
			Services []struct {
				ID   string
				Port int
			}
		}
		if err := c.list(ctx, token, "/v1/catalog/node-services/"+url.PathEscape(node)+consistency, &answer); err != nil {
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

// upstream is a service that the app calls, as its sidecar is registered.
type upstream struct {
	name, local      string
	datacenter, peer string
	query            bool // it is a prepared query
}

// upstreams are those of the sidecar.
func (r *registration) upstreams() []upstream {
	proxy := object(r.sidecarDefinition()["proxy"])
	var all []upstream
	for _, u := range objects(proxy["upstreams"]) {
		text := func(key string) string { value, _ := u[key].(string); return value }
		one := upstream{
			name: text("destinationname"), datacenter: text("datacenter"), peer: text("destinationpeer"),
			query: text("destinationtype") == "prepared_query", local: text("localbindsocketpath"),
		}
		if one.local == "" {
			one.local = net.JoinHostPort(text("localbindaddress"), strconv.Itoa(number(u["localbindport"])))
		}
		all = append(all, one)
	}
	return all
}

// sidecarInstance is a sidecar of a service in the catalog.
type sidecarInstance struct {
	address         string // with its port
	direct, passing bool
}

// destination is a service that calls to an upstream end at.
type destination struct {
	service, datacenter, peer string
	local                     bool // it is in this datacenter, and no peer's
	direct                    bool // and its sidecars are called without a gateway
}

// destinations are those of an upstream: its name is one of a discovery chain,
// which resolvers, splitters and routers lead elsewhere.
func (c *consul) destinations(ctx context.Context, u upstream) ([]destination, error) {
	switch {
	case u.query:
		return nil, errors.New("a prepared query decides")
	case u.peer != "":
		return []destination{{service: u.name, peer: u.peer}}, nil
	}
	query := url.Values{}
	if u.datacenter != "" {
		query.Set("compile-dc", u.datacenter)
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
	if err := c.call(ctx, http.MethodGet, "/v1/discovery-chain/"+url.PathEscape(u.name)+"?"+query.Encode(), nil, &answer); err != nil {
		return nil, err
	}
	all := map[destination]bool{}
	for _, target := range answer.Chain.Targets {
		one := destination{service: target.Service, datacenter: target.Datacenter, peer: target.Peer}
		one.local = u.datacenter == "" && one.peer == "" && one.datacenter == answer.Chain.Datacenter
		one.direct = one.local && slices.Contains([]string{"", "none"}, target.MeshGateway.Mode)
		all[one] = true
	}
	return slices.Collect(maps.Keys(all)), nil
}

// instances lists those of a destination.
func (c *consul) instances(ctx context.Context, d destination) ([]sidecarInstance, error) {
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
	if err := c.call(ctx, http.MethodGet, "/v1/health/connect/"+url.PathEscape(d.service)+"?"+query.Encode(), nil, &answer); err != nil {
		return nil, err
	}
	var all []sidecarInstance
	for _, entry := range answer {
		address := entry.Service.Address
		if address == "" {
			address = entry.Node.Address
		}
		one := sidecarInstance{net.JoinHostPort(address, strconv.Itoa(entry.Service.Port)), d.direct, true}
		for _, check := range entry.Checks {
			one.passing = one.passing && check.Status != critical
		}
		all = append(all, one)
	}
	return all, nil
}

// denied says whether intentions keep a service from calling another. Where
// they look at requests, it says no.
func (c *consul) denied(ctx context.Context, source, destination string) (bool, error) {
	names := "?source=" + url.QueryEscape(source) + "&destination=" + url.QueryEscape(destination)
	var answer struct{ Allowed bool }
	if err := c.call(ctx, http.MethodGet, "/v1/connect/intentions/check"+names, nil, &answer); err != nil || answer.Allowed {
		return false, err
	}
	var intention struct{ Permissions []struct{} }
	err := c.call(ctx, http.MethodGet, "/v1/connect/intentions/exact"+names, nil, &intention)
	var status *statusError
	if errors.As(err, &status) && status.status == http.StatusNotFound {
		err = nil // there is no such one, the default denies
	}
	return len(intention.Permissions) == 0, err
}
