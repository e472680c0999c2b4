package registry

import (
	"cmp"
	"context"
	"net/url"
	"sync"
	"time"

	"github.com/consul-mesh/mesh-buildpack/src/droplet"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/consul"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/envoy"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/instance"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/wait"
)

// viaServers asks the Consul servers themselves. The instance is a node of the
// catalog that no gossip knows of: its checks are run here and written when
// they change, and the janitor takes it out when it has died (janitor.go).
type viaServers struct {
	*Node
	servers *consul.Servers

	writing oneAtATime // held while something about this node is written
	doubt   doubt      // whether such a write may still come

	mutex   sync.Mutex
	states  map[string]checkState // by the checks' ids; guarded by mutex
	entered bool                  // the catalog may have this node; guarded by mutex
	known   bool                  // the catalog has this node, by its last answer; guarded by mutex
	shown   bool                  // the catalog has the address of this node; guarded by mutex
	session string                // by which this instance holds its key; guarded by mutex
	hasKey  bool                  // this instance holds its key; guarded by mutex
	renewed time.Time             // when the session was last; guarded by mutex
	back    time.Time             // when the session was renewed after it was overdue; guarded by mutex
	noted   string                // what the janitor waits for; guarded by mutex

	predecessor string // node of the last janitor; of watchSiblings alone
}

// nowhere is the address of a node none of whose sidecars was ever in rotation
// (RFC 5737). It is to callers what notYet is where there is an agent; the
// servers need not make the configuration of the instance's own Envoy anew when
// it changes. Where nodes have a token of their own it is notYet here too.
const nowhere = "192.0.2.1"

func newViaServers(n *Node) *viaServers {
	v := &viaServers{Node: n, servers: consul.NewServers(n.Config.Servers, n.Access), states: map[string]checkState{}}
	v.servers.Dialer.LocalAddr = n.From
	n.Consul.HTTP.Transport = v.servers.API()
	return v
}

func (v *viaServers) Steps(ctx context.Context) ([]wait.Step, error) {
	go v.stayAlive(ctx)
	return []wait.Step{{
		Name: "servers answer, leader known",
		Condition: func(ctx context.Context) error {
			_, err := v.Consul.Leader(ctx)
			return err
		},
	}}, nil
}

// Register makes the sidecar known first, with all its checks: the servers begin
// to make its Envoy's configuration then. The service comes last, when there is
// a sign of life: its siblings look for one.
func (v *viaServers) Register(ctx context.Context, r *Registration) error {
	return v.writing.do(ctx, func() error { return v.enterAll(ctx, r) })
}

// enterAll is register. v.writing is held.
func (v *viaServers) enterAll(ctx context.Context, r *Registration) error {
	v.mutex.Lock()
	known := v.known
	v.mutex.Unlock()
	if !known {
		if err := v.enterNode(ctx); err != nil {
			return err
		}
	}
	if v.isTask() {
		return v.enterTask(ctx, r)
	}
	if !r.Registered.Load() {
		// With the node's entry, servers that follow know of the login before it.
		v.XDS.Begin(droplet.SidecarID(r.ID), envoy.Introduction(r.EnvoySidecar(), v.Inst.NodeName()))
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
func (v *viaServers) show(ctx context.Context, r *Registration) error {
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
func (v *viaServers) publish(ctx context.Context, r *Registration) error {
	err := v.writeChecks(ctx, r)
	if err == nil {
		_ = v.writeChecks(ctx, r) // the first has said it
	}
	return err
}

// writeChecks writes how all checks of a service are. v.writing is held.
func (v *viaServers) writeChecks(ctx context.Context, r *Registration) error {
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

// HandOver has the app's checks run here from now on. Callers learn something
// only when the sidecar passes too, which is the next entry.
func (v *viaServers) HandOver(ctx context.Context, r *Registration) error {
	checks := v.probed(r)
	if len(checks) == 0 {
		return nil
	}
	for _, check := range checks {
		if check.apps {
			v.set(check.CheckID, consul.Passing, "")
		}
	}
	return v.writing.do(ctx, func() error { return v.writeChecks(ctx, r) })
}

// Say writes the sidecar's state when it changes; nothing expires.
func (v *viaServers) Say(ctx context.Context, r *Registration, status, output string) error {
	if !v.set(droplet.ReadyCheckID(r.ID), status, output) {
		return nil
	}
	err := v.writing.do(ctx, func() error {
		if status == consul.Passing {
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

// Bootstrap leads Envoy to what stands before the servers.
func (v *viaServers) Bootstrap(ctx context.Context, r *Registration) ([]byte, error) {
	sidecar := v.envoySidecar(r)
	config, err := envoy.BootstrapConfig(ctx, v.Consul, v.Access.ServiceToken(), sidecar, v.Log)
	if err != nil {
		return nil, err
	}
	for _, key := range droplet.ConsulOnlyKeys {
		if config[key] != nil {
			v.Log("%s: %s in the sidecar's config or in proxy-defaults has no effect: only Consul's own program reads it, which an agent brings", r.ID, key)
		}
	}
	return envoy.WriteBootstrap(sidecar, envoy.Origin{
		Name: serverCluster, Cluster: envoy.Http2(envoy.Cluster(serverCluster, "STATIC", envoy.Pipe(v.XDS.Socket))),
		Metadata:   envoy.Msg{"node_name": v.Inst.NodeName()},
		Datacenter: func() string { return v.datacenter(ctx) },
	}, config)
}

// deregister is for the sidecar first: it is what callers use.
func (v *viaServers) deregister(ctx context.Context, r *Registration) error {
	return v.writing.do(ctx, func() error {
		for _, id := range []string{droplet.SidecarID(r.ID), r.ID} {
			body := map[string]string{"Node": v.Inst.NodeName(), "ServiceID": id}
			if err := v.write(ctx, "/v1/catalog/deregister", body); err != nil {
				return err
			}
		}
		return nil
	})
}

// TakeTokens has nothing to do: the catalog keeps no tokens.
func (v *viaServers) TakeTokens(context.Context) error { return nil }

// TakeCA has nothing to do: the next connection is verified by what is then in use.
func (v *viaServers) TakeCA(context.Context, string) error { return nil }

// Logout leaves it to Leave: the login is needed until the node is gone.
func (v *viaServers) Logout() {}

// Leave takes the node away, and logs out.
func (v *viaServers) Leave(context.Context) {
	budget := instance.Within(v.Config.Lifecycle, v.leaveBudget())
	defer v.Access.Logout(instance.Within(v.Config.Lifecycle, instance.LogoutBudget))
	ctx, cancel := context.WithTimeout(context.Background(), budget)
	defer cancel()
	v.mutex.Lock()
	entered := v.entered
	v.mutex.Unlock()
	if !entered {
		return
	}
	err := wait.Poll(ctx, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, budget/2) // then another server is asked
		defer cancel()
		return v.writing.do(ctx, func() error { return v.removeNode(ctx, v.Inst.NodeName()) })
	})
	switch {
	case err != nil:
		v.Log("failed to leave the catalog, the other instances do it in 20 s: %v", err)
	case v.isTask():
		v.sweepTasks(ctx)
	}
}

// LeaveOrphaned takes an instance out of the catalog whose proxy was killed, and
// could not do so itself, and says so. An agent leaves when the platform ends the
// instance, and the services with it; without one it would stay until others saw its
// session end.
func LeaveOrphaned(ctx context.Context, inst instance.Instance, config droplet.Config, log wait.Log) {
	if HasAgent(config) {
		return
	}
	if err := leaveOrphaned(ctx, inst, config); err != nil {
		log("the proxy was killed, and this instance is in the catalog until others see it, in 20 s: %v", err)
		return
	}
	log("the proxy was killed, and this instance taken out of the catalog")
}

func leaveOrphaned(ctx context.Context, inst instance.Instance, config droplet.Config) error {
	ctx, cancel := context.WithTimeout(ctx, instance.OrphanBudget)
	defer cancel()
	n := &Node{Inst: inst, Config: config, Consul: &consul.Client{}, Log: func(string, ...any) {}}
	if err := n.identify(); err != nil {
		return err
	}
	v := newViaServers(n)
	if err := wait.Poll(ctx, n.Access.Obtain); err != nil {
		return err
	}
	defer n.Access.Logout(instance.LogoutBudget)
	return wait.Poll(ctx, func(ctx context.Context) error { return v.removeNode(ctx, inst.NodeName()) })
}

// removeNode takes a node out of the catalog, with all that it has: services,
// checks, sessions, and so the key that is held by one.
func (v *viaServers) removeNode(ctx context.Context, node string) error {
	return v.put(ctx, v.Access.AgentToken(), "/v1/catalog/deregister", map[string]string{"Node": node}, nil)
}

// Keep keeps the instance alive in the catalog, and takes dead ones out of it.
func (v *viaServers) Keep(ctx context.Context) {
	if v.isTask() {
		v.stayAlive(ctx)
		return
	}
	var group sync.WaitGroup
	for _, r := range v.Services {
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
	creds := v.Access.Current()
	if creds == nil || creds.DefaultPolicy == "allow" {
		return
	}
	for _, r := range v.Services {
		query := url.Values{"source": {nobody}, "destination": {r.Name}}
		var check struct{ Allowed bool }
		again := wait.Backoff{First: instance.AgainFirst, Most: instance.ListAgain}
		err := v.list(ctx, "/v1/connect/intentions/check?"+query.Encode(), &check)
		for err != nil && consul.Passes(err) && again.Pause(ctx) == nil {
			err = v.list(ctx, "/v1/connect/intentions/check?"+query.Encode(), &check)
		}
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			v.Log("%s: who may call it cannot be told: %v", r.ID, err)
		case check.Allowed:
			v.Log("%s: every service of the mesh may call it. If no intention is meant to say so: without an agent it is not default_policy of the bound service %q that decides, "+
				"but acl.default_policy or default_intention_policy of the Consul servers; one of them has to be deny", r.ID, creds.Binding)
		}
	}
}

// registerAll makes known again what the catalog has had.
func (v *viaServers) registerAll(ctx context.Context) error {
	for _, r := range v.Services {
		if !r.Registered.Load() {
			continue
		}
		if err := v.Register(ctx, r); err != nil {
			return err
		}
	}
	return nil
}

// CheckStatuses are as the catalog has them, which is what callers go by.
func (v *viaServers) CheckStatuses(ctx context.Context, r *Registration) ([]consul.CheckStatus, error) {
	there, err := v.health(ctx, "")
	if err != nil {
		return nil, err
	}
	var all []consul.CheckStatus
	for _, check := range v.catalogChecks(r) {
		found := there[check.CheckID]
		all = append(all, consul.CheckStatus{ID: check.CheckID, Name: check.Name, Status: cmp.Or(found.Status, consul.Missing), Output: found.Output})
	}
	return all, nil
}

// Notes are those of the credentials, and what the janitor waits for.
func (v *viaServers) Notes() []string {
	notes := v.Access.Notes()
	v.mutex.Lock()
	defer v.mutex.Unlock()
	if v.noted != "" {
		notes = append(notes, v.noted)
	}
	return notes
}

// Problems tries to reach the servers.
func (v *viaServers) Problems(ctx context.Context, seen string) []string {
	hosts, err := consul.Resolve(ctx, v.servers.Names)
	if err != nil {
		return []string{err.Error()}
	}
	problems := portProblems(ctx, hosts, serverPort{v.servers.HTTP, "tcp"}, serverPort{v.servers.GRPC, "tcp"})
	if len(problems) == 0 {
		problems = []string{"the servers can be reached, and say: " + seen}
	}
	return problems
}
