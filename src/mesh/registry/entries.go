package registry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"time"

	"github.com/consul-mesh/mesh-buildpack/src/credentials"
	"github.com/consul-mesh/mesh-buildpack/src/droplet"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/consul"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/instance"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/wait"
)

// catalogEntry is the body of /v1/catalog/register. All of it is one entry in
// the servers' log, so nobody sees a part. (/v1/txn takes more at a time, but
// drops upstreams and configuration of a proxy: Consul 1.22,
// agent/txn_endpoint.go.)
type catalogEntry struct {
	Node     string
	ID       string            `json:",omitempty"`
	Address  string            `json:",omitempty"`
	NodeMeta map[string]string `json:",omitempty"`
	Service  map[string]any    `json:",omitempty"`
	Checks   []consul.Check    `json:",omitempty"`
}

// checkState is how a check is, and why.
type checkState struct {
	status, output string
	unsaid         bool // it may be that the servers have not heard of it
}

// sidecarKind is that of the service of a sidecar.
const sidecarKind = "connect-proxy"

// nodeEntry is that of the node as it is meant to be. Every entry is one with more
// in it: where the node has been taken away meanwhile, Consul makes it anew of what
// there is in the entry, and callers' Envoys refuse a service whole that has an
// endpoint without an address.
func (v *viaServers) nodeEntry() catalogEntry {
	meta := v.Inst.NodeMeta()
	meta[consul.MetaAgentless] = "true"
	if v.isTask() {
		meta[instance.MetaTask] = v.Config.Services[0].ID
	}
	if v.Config.Servers != nil {
		maps.Copy(meta, v.Config.Servers.NodeMeta)
	}
	return catalogEntry{Node: v.Inst.NodeName(), ID: v.Inst.NodeID(), Address: v.ownAddress(), NodeMeta: meta}
}

// ownAddress is where the catalog shall have the node.
func (v *viaServers) ownAddress() string {
	v.mutex.Lock()
	defer v.mutex.Unlock()
	if !v.isTask() && (v.shown || v.apart()) {
		return v.Inst.Address.String()
	}
	return nowhere
}

// apart says that nodes and services have tokens of their own, so that nobody can
// write both in one entry.
func (v *viaServers) apart() bool { return v.Access.AgentToken() != v.Access.ServiceToken() }

// entry is that of a service or a sidecar with its checks, as they are.
func (v *viaServers) entry(r *Registration, service map[string]any) catalogEntry {
	entry := v.nodeEntry()
	entry.Service = service
	for _, check := range v.catalogChecks(r) {
		if check.ServiceID == service["ID"] {
			entry.Checks = append(entry.Checks, check)
		}
	}
	return entry
}

// catalog gives a service and its sidecar as the catalog is to have them now.
func (v *viaServers) catalog(r *Registration) (map[string]any, map[string]any) {
	service, sidecar := r.catalog()
	if service.Address == "" { // for who asks for the service itself
		service.Address = v.Inst.Address.String()
	}
	if v.apart() && !v.isTask() && !r.shown.Load() {
		putOff(&sidecar)
	}
	return inCatalog(service), inCatalog(sidecar)
}

// inCatalog is a service or a sidecar as /v1/catalog/register takes it, where the name
// has another key than for an agent.
func inCatalog[T droplet.Endpoint | droplet.Sidecar](endpoint T) map[string]any {
	body := droplet.API(endpoint)
	body["Service"] = body["Name"]
	delete(body, "Name")
	return body
}

// catalog gives a service and its sidecar as the catalog has them, with what an
// agent would have filled in.
func (r *Registration) catalog() (service droplet.Endpoint, sidecar droplet.Sidecar) {
	service, sidecar = r.definition.Endpoint, *r.sidecar()
	sidecar.Kind, sidecar.ID, sidecar.Name = sidecarKind, droplet.SidecarID(r.ID), droplet.SidecarID(r.Name)
	if sidecar.Tags == nil {
		sidecar.Tags = service.Tags
	}
	if sidecar.Meta == nil {
		sidecar.Meta = service.Meta
	}
	proxy := &sidecar.Proxy
	proxy.DestinationServiceName, proxy.DestinationServiceID = r.Name, r.ID
	if service.SocketPath == "" {
		proxy.LocalServiceAddress, proxy.LocalServicePort = cmp.Or(proxy.LocalServiceAddress, "127.0.0.1"), service.Port
	}
	for _, endpoint := range []*droplet.Endpoint{&service, &sidecar.Endpoint} {
		endpoint.Checks = nil // which are beside it in the entry
		if endpoint.Weights == nil {
			endpoint.Weights = &droplet.Weights{Passing: 1, Warning: 1}
		}
	}
	return service, sidecar
}

// catalogChecks are all checks of a service and its sidecar, as they are.
func (v *viaServers) catalogChecks(r *Registration) []consul.Check {
	v.mutex.Lock()
	defer v.mutex.Unlock()
	var all []consul.Check
	add := func(check droplet.Check, state checkState, service string) {
		all = append(all, consul.Check{
			Node: v.Inst.NodeName(), CheckID: check.CheckID, Name: check.Name, Notes: check.Notes,
			Status: state.status, Output: state.output, ServiceID: service,
		})
	}
	worst := checkState{status: consul.Passing}
	for _, check := range r.definition.Checks {
		state := v.stateOf(check.CheckID)
		if state.status == consul.Critical {
			worst.status = consul.Critical
		}
		add(check, state, r.ID)
	}
	for _, check := range r.sidecar().Checks {
		state := v.stateOf(check.CheckID)
		if check.AliasService == r.ID {
			state = worst
		}
		add(check, state, droplet.SidecarID(r.ID))
	}
	return all
}

// stateOf is how a check is. The mutex is held.
func (v *viaServers) stateOf(id string) checkState {
	if state := v.states[id]; state.status != "" {
		return state
	}
	return checkState{status: consul.Critical}
}

// unsay notes that it may be that the servers have not heard how a check is. Before
// callers know where the sidecar is, it is as if nothing had been seen yet.
func (v *viaServers) unsay(id string, shown bool) {
	v.mutex.Lock()
	defer v.mutex.Unlock()
	if state := v.states[id]; shown {
		state.unsaid = true
		v.states[id] = state
	} else {
		delete(v.states, id)
	}
}

// set notes how a check is, and returns whether that is news.
func (v *viaServers) set(id, status, output string) bool {
	v.mutex.Lock()
	defer v.mutex.Unlock()
	if before := v.states[id]; before.status == status && !before.unsaid {
		return false
	}
	v.states[id] = checkState{status: status, output: output}
	return true
}

// enter makes an entry with a token. v.writing is held.
func (v *viaServers) enter(ctx context.Context, token credentials.Secret, entry catalogEntry) error {
	err := v.put(ctx, token, "/v1/catalog/register", entry, nil)
	v.doubt.note(err)
	v.mutex.Lock()
	defer v.mutex.Unlock()
	v.known = err == nil
	return err
}

// enterNode makes the entry of the node alone.
func (v *viaServers) enterNode(ctx context.Context) error {
	v.mutex.Lock()
	v.entered = true
	v.mutex.Unlock()
	return v.enter(ctx, v.Access.AgentToken(), v.nodeEntry())
}

// enterService makes an entry of what is a service's. The token of services may say
// no more of a node than what the catalog has: where it does not have the node any
// more, that is entered first.
func (v *viaServers) enterService(ctx context.Context, entry catalogEntry) error {
	err := v.enter(ctx, v.Access.ServiceToken(), entry)
	var status *consul.StatusError
	if !v.apart() || !errors.As(err, &status) || status.Status != http.StatusForbidden {
		return err
	}
	there, lookErr := v.nodeAddress(ctx)
	if lookErr != nil || there == entry.Address {
		return err
	}
	if err := v.enterNode(ctx); err != nil {
		return fmt.Errorf("failed to make the node known again: %w", err)
	}
	return v.enter(ctx, v.Access.ServiceToken(), entry)
}

// nodeAddress is where the catalog has the node, empty where it has none.
func (v *viaServers) nodeAddress(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, instance.CallTimeout)
	defer cancel()
	var there struct{ Node struct{ Address string } }
	_, err := v.Consul.Read(ctx, v.Access.AgentToken(), "/v1/catalog/node/"+url.PathEscape(v.Inst.NodeName()), &there)
	return there.Node.Address, err
}

// put makes a call that changes something. It waits as long as the server that was
// asked is there, up to HoldTime: who gives up and says it again has said it twice,
// and the two may come in any order.
func (v *viaServers) put(ctx context.Context, token credentials.Secret, path string, body, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, instance.HoldTime)
	defer cancel()
	waiting, giveUp := context.WithCancel(ctx)
	defer giveUp()
	// Only a server that says nothing to another question either is given up: one that
	// has no leader holds what it is asked.
	var asked consul.Asked
	asking := time.AfterFunc(instance.CallTimeout, func() {
		for waiting.Err() == nil {
			ask, cancel := context.WithTimeout(waiting, instance.ConnectTimeout)
			err := v.stillAnswers(ask, &asked)
			cancel()
			if err != nil && waiting.Err() == nil {
				giveUp()
			}
			_ = wait.Pause(waiting, instance.ConnectTimeout)
		}
	})
	defer asking.Stop()
	err := v.Consul.CallWith(asked.Note(waiting), token, http.MethodPut, path, body, answer)
	if err != nil && waiting.Err() != nil && ctx.Err() == nil {
		err = fmt.Errorf("%s: the server that was asked does not answer any more: %w", path, err)
	}
	return err
}

// stillAnswers returns nil where the server that was asked is there.
func (v *viaServers) stillAnswers(ctx context.Context, asked *consul.Asked) error {
	if servers, ok := v.Consul.HTTP.Transport.(*consul.ToServer); ok {
		return servers.StillAnswers(ctx, asked)
	}
	_, err := v.Consul.Leader(ctx)
	return err
}

// write is for what a service's own token may do.
func (v *viaServers) write(ctx context.Context, path string, body any) error {
	return v.put(ctx, v.Access.ServiceToken(), path, body, nil)
}

// list reads all of something that a service's own token may read.
func (v *viaServers) list(ctx context.Context, path string, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, instance.CallTimeout)
	defer cancel()
	return v.Consul.List(ctx, v.Access.ServiceToken(), path, answer)
}
