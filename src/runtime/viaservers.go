package runtime

import (
	"cmp"
	"context"
	"fmt"
	"net/url"
	"sync"
	"time"

	"github.com/consul-mesh/mesh-buildpack/src/droplet"
)

// viaServers asks the Consul servers themselves. The instance is a node of the
// catalog that no gossip knows of: its checks are run here and written when
// they change, and its siblings take it out when it has died (siblings.go).
type viaServers struct {
	*proxy
	servers *servers

	writing oneAtATime // held by who writes about this node
	doubt   doubt      // about those writes

	mutex   sync.Mutex
	states  map[string]checkState // by the checks' ids; guarded by mutex
	node    bool                  // the catalog may have the node; guarded by mutex
	known   bool                  // it has, by the last word about it; guarded by mutex
	shown   bool                  // and where it is; guarded by mutex
	session string                // that the sign of life is given with; guarded by mutex
	alive   bool                  // it has been given; guarded by mutex
	renewed time.Time             // the session, last; guarded by mutex
	back    time.Time             // when that was done after it was overdue; guarded by mutex
}

// nowhere is the address of a node none of whose sidecars was ever in rotation
// (RFC 5737). It is to callers what notYet is where there is an agent; the
// servers need not make the configuration of the instance's own Envoy anew when
// it changes. Where nodes have a token of their own it is notYet here too.
const nowhere = "192.0.2.1"

func newViaServers(p *proxy) *viaServers {
	v := &viaServers{proxy: p, servers: p.newServers(p.config.Servers), states: map[string]checkState{}}
	p.consul.http.Transport = v.servers.api()
	return v
}

func (v *viaServers) stages(ctx context.Context) ([]stage, error) {
	go v.stayAlive(ctx)
	return []stage{{
		name: "servers answer, leader known",
		hint: fmt.Sprintf("is there a network policy to the Consul servers on %d and %d tcp? Are addresses and ports in mesh.hcl theirs?",
			v.servers.http, v.servers.grpc),
		condition: func(ctx context.Context) error {
			_, err := v.consul.leader(ctx)
			return err
		},
	}}, nil
}

// register makes the sidecar known first, with all its checks: the servers begin
// to make its Envoy's configuration then. The service comes last, when there is
// a sign of life: its siblings look for one.
func (v *viaServers) register(ctx context.Context, r *registration) error {
	return v.writing.do(ctx, func() error { return v.enterAll(ctx, r) })
}

// enterAll is register. v.writing is held.
func (v *viaServers) enterAll(ctx context.Context, r *registration) error {
	v.mutex.Lock()
	known := v.known
	v.mutex.Unlock()
	if !known {
		if err := v.enterNode(ctx); err != nil {
			return err
		}
	}
	if !r.registered.Load() {
		// With the node's entry, servers that follow know of the login before it.
		v.xds.begin(droplet.SidecarID(r.ID), introduction(r, v.inst.NodeName()))
	}
	service, sidecar := v.catalog(r)
	if err := v.enterService(ctx, v.entry(r, sidecar)); err != nil {
		return err
	}
	if err := v.giveSign(ctx); err != nil {
		return err
	}
	return v.enterService(ctx, v.entry(r, service))
}

// show tells where a sidecar is, once, together with its checks: callers who saw it
// before they pass might go on for a second without it. It is the node's address
// that is told, and where nodes have a token of their own the sidecar's port.
// v.writing is held.
func (v *viaServers) show(ctx context.Context, r *registration) error {
	v.mutex.Lock()
	shown := v.shown
	v.shown = true
	v.mutex.Unlock()
	apart := v.apart()
	if r.shown.Swap(true) || shown && !apart {
		return nil
	}
	entry := v.nodeEntry()
	if apart {
		_, sidecar := v.catalog(r)
		entry = v.entry(r, sidecar)
	} else {
		entry.Checks = v.catalogChecks(r)
	}
	err := v.enterService(ctx, entry)
	if err != nil {
		r.shown.Store(false)
		v.mutex.Lock()
		v.shown = shown
		v.mutex.Unlock()
	}
	return err
}

// publish writes how all checks of a service are, twice, because the servers
// that follow, to whom most Envoys listen, hear that an entry counts with the
// next one, and without one 50 to 100 ms later (hashicorp/raft, CommitTimeout).
// v.writing is held.
func (v *viaServers) publish(ctx context.Context, r *registration) error {
	err := v.writeChecks(ctx, r)
	if err == nil {
		_ = v.writeChecks(ctx, r) // the first has said it
	}
	return err
}

// writeChecks writes how all checks of a service are. v.writing is held.
func (v *viaServers) writeChecks(ctx context.Context, r *registration) error {
	v.mutex.Lock()
	known := v.known
	v.mutex.Unlock()
	if !known {
		return v.enterAll(ctx, r)
	}
	entry := v.nodeEntry()
	entry.Checks = v.catalogChecks(r)
	return v.enterService(ctx, entry)
}

// handOver has the app's checks run here from now on. Callers learn something
// only when the sidecar passes too, which is the next entry.
func (v *viaServers) handOver(ctx context.Context, r *registration) error {
	checks := v.probed(r)
	if len(checks) == 0 {
		return nil
	}
	for _, check := range checks {
		if check.apps {
			v.set(check.id, passing, "")
		}
	}
	return v.writing.do(ctx, func() error { return v.writeChecks(ctx, r) })
}

// say writes the sidecar's state when it changes; nothing expires.
func (v *viaServers) say(ctx context.Context, r *registration, status, output string) error {
	if !v.set(droplet.ReadyCheckID(r.ID), status, output) {
		return nil
	}
	err := v.writing.do(ctx, func() error {
		if status == passing {
			if err := v.show(ctx, r); err != nil {
				return err
			}
		}
		return v.publish(ctx, r)
	})
	if err == nil {
		err = v.settle(ctx)
	}
	if err != nil {
		v.unsay(droplet.ReadyCheckID(r.ID), r.shown.Load())
	}
	return err
}

// serverCluster is the cluster that Envoy gets its configuration from.
const serverCluster = "consul-server"

// bootstrap leads Envoy to what stands before the servers.
func (v *viaServers) bootstrap(ctx context.Context, r *registration) ([]byte, error) {
	config, err := v.bootstrapConfig(ctx, r)
	if err != nil {
		return nil, err
	}
	for _, key := range consulKeys {
		if config[key] != nil {
			v.log("%s: %s in the sidecar's config or in proxy-defaults has no effect: only Consul's own program reads it, which an agent brings", r.ID, key)
		}
	}
	return writeBootstrap(r, origin{
		name: serverCluster, cluster: http2(cluster(serverCluster, "STATIC", pipe(v.xds.socket))),
		metadata:   msg{"node_name": v.inst.NodeName()},
		datacenter: func() string { return v.datacenter(ctx) },
	}, config)
}

// datacenter is that of the servers, empty where they do not say.
func (v *viaServers) datacenter(ctx context.Context) string {
	var there struct{ Node struct{ Datacenter string } }
	if err := v.list(ctx, "/v1/catalog/node/"+url.PathEscape(v.inst.NodeName()), &there); err != nil {
		v.log("metrics go without the label consul.source.datacenter: %v", err)
	}
	return there.Node.Datacenter
}

// deregister is for the sidecar first: it is what callers use.
func (v *viaServers) deregister(ctx context.Context, r *registration) error {
	ctx, cancel := context.WithTimeout(ctx, serversBudget/2) // then another server is asked
	defer cancel()
	return v.writing.do(ctx, func() error {
		for _, id := range []string{droplet.SidecarID(r.ID), r.ID} {
			body := map[string]string{"Node": v.inst.NodeName(), "ServiceID": id}
			if err := v.write(ctx, "/v1/catalog/deregister", body); err != nil {
				return err
			}
		}
		return nil
	})
}

// leave takes the node away, and logs out.
func (v *viaServers) leave(context.Context, bool) {
	defer v.access.logout(logoutBudget)
	ctx, cancel := context.WithTimeout(context.Background(), leaveBudget)
	defer cancel()
	v.mutex.Lock()
	node := v.node
	v.mutex.Unlock()
	if !node {
		return
	}
	err := poll(ctx, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, leaveBudget/2) // then another server is asked
		defer cancel()
		return v.writing.do(ctx, func() error { return v.removeNode(ctx, v.inst.NodeName()) })
	})
	if err != nil {
		v.log("failed to leave the catalog, the other instances do it in 20 s: %v", err)
	}
}

// leaveOrphaned takes an instance out of the catalog whose proxy was killed, and
// could not do so itself. An agent leaves when the platform ends the instance,
// and the services with it; without one it would stay until others saw its session
// end.
func (i Instance) leaveOrphaned(ctx context.Context, config droplet.Config) error {
	ctx, cancel := context.WithTimeout(ctx, orphanBudget)
	defer cancel()
	p := &proxy{inst: i, config: config, consul: &consul{}}
	if err := p.identify(func(string, ...any) {}); err != nil {
		return err
	}
	v := newViaServers(p)
	if err := poll(ctx, p.access.obtain); err != nil {
		return err
	}
	defer p.access.logout(logoutBudget)
	return poll(ctx, func(ctx context.Context) error { return v.removeNode(ctx, i.NodeName()) })
}

// The last words to the servers.
const (
	leaveBudget  = 500 * time.Millisecond
	logoutBudget = 300 * time.Millisecond
	orphanBudget = 2 * time.Second
)

// removeNode takes a node out of the catalog, with all that it has: services,
// checks, sessions, and so the key that is held by one.
func (v *viaServers) removeNode(ctx context.Context, node string) error {
	return v.put(ctx, v.access.agentToken(), "/v1/catalog/deregister", map[string]string{"Node": node}, nil)
}

// keep keeps the instance alive in the catalog, and takes dead ones out of it.
func (v *viaServers) keep(ctx context.Context) {
	var group sync.WaitGroup
	for _, r := range v.services {
		for _, check := range v.probed(r) {
			group.Go(func() { v.run(ctx, r, check) })
		}
	}
	group.Go(func() { v.stayAlive(ctx) })
	group.Go(func() { v.watchSiblings(ctx) })
	group.Go(func() { v.noteOpen(ctx) })
	group.Wait()
}

// nobody is the name of a caller that no intention knows of.
const nobody = "consul-mesh-buildpack-nobody"

// noteOpen says once where callers without an intention are let in although the
// bound service denies it: without an agent the servers decide.
func (v *viaServers) noteOpen(ctx context.Context) {
	creds := v.access.current()
	if creds == nil || creds.DefaultPolicy == "allow" {
		return
	}
	for _, r := range v.services {
		query := url.Values{"source": {nobody}, "destination": {r.name}}
		var check struct{ Allowed bool }
		err := whilePasses(ctx, func(ctx context.Context) error {
			return v.list(ctx, "/v1/connect/intentions/check?"+query.Encode(), &check)
		})
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			v.log("%s: who may call it cannot be told: %v", r.ID, err)
		case check.Allowed:
			v.log("%s: every service of the mesh may call it. If no intention is meant to say so: without an agent it is not default_policy of the bound service %q that decides, "+
				"but acl.default_policy or default_intention_policy of the Consul servers; one of them has to be deny", r.ID, creds.Binding)
		}
	}
}

// registerAll makes known again what the catalog has had.
func (v *viaServers) registerAll(ctx context.Context) error {
	for _, r := range v.services {
		if !r.registered.Load() {
			continue
		}
		if err := v.register(ctx, r); err != nil {
			return err
		}
	}
	return nil
}

// checks are as the catalog has them, which is what callers go by.
func (v *viaServers) checks(ctx context.Context, r *registration) ([]CheckStatus, error) {
	there, err := v.health(ctx, "")
	if err != nil {
		return nil, err
	}
	var all []CheckStatus
	for _, check := range v.catalogChecks(r) {
		found := there[check.CheckID]
		all = append(all, CheckStatus{ID: check.CheckID, Name: check.Name, Status: cmp.Or(found.Status, missing), Output: found.Output})
	}
	return all, nil
}

// problems tries to reach the servers.
func (v *viaServers) problems(ctx context.Context, s Status) []string {
	hosts, err := resolve(ctx, v.servers.names)
	if err != nil {
		return []string{err.Error()}
	}
	problems := portProblems(ctx, hosts, serverPort{v.servers.http, "tcp"}, serverPort{v.servers.grpc, "tcp"})
	if len(problems) == 0 {
		problems = []string{"the servers can be reached, and say: " + s.Agent.Seen}
	}
	return problems
}
