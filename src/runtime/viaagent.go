package runtime

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/consul-mesh/mesh-buildpack/src/droplet"
)

// viaAgent asks the Consul agent of the instance.
type viaAgent struct{ *proxy }

func (v viaAgent) stages(ctx context.Context) ([]stage, error) {
	preflight, err := v.newPreflight()
	if err != nil {
		return nil, err
	}
	go preflight.run(ctx)
	for _, r := range v.services {
		go v.keepRegistered(ctx, r)
	}
	return []stage{{
		name:      "agent up",
		hint:      "the log of " + droplet.AgentSidecar + " says why the Consul agent does not answer on " + address(v.ports.HTTP),
		condition: preflight.explainAgent(v.inst, v.answers),
	}, {
		name: "joined, leader known",
		hint: "is there a network policy to the Consul servers on 8300 tcp and 8301 tcp and udp, and back on 8301? " +
			"Are retry_join and datacenter in mesh.hcl those of the servers?",
		condition: preflight.explainJoin(v.hasJoined),
	}}, nil
}

// answers returns nil once the agent answers. Before it listens, a request costs
// many times what a connection costs, and it is asked often then.
func (v viaAgent) answers(ctx context.Context) error {
	if err := dial(ctx, address(v.ports.HTTP)); err != nil {
		return err
	}
	return v.consul.alive(ctx)
}

// hasJoined returns nil once the agent knows a server that knows a leader.
func (v viaAgent) hasJoined(ctx context.Context) error {
	err := v.consul.joined(ctx)
	var alone *notJoinedError
	if !errors.As(err, &alone) {
		return err
	}
	if why := lastJoinError(v.inst.journalOf(consulJournal)); why != "" {
		err = &notJoinedError{fmt.Errorf("%w: %s", alone.error, why)}
	}
	return err
}

func (v viaAgent) register(ctx context.Context, r *registration) error {
	return r.writing.do(ctx, func() error { return v.tell(ctx, r, r.body(r.state())) })
}

// tell tells the agent of a service, and waits for its answer as long as one may
// take: who gives up and says it again has said it twice, and the two may come in any
// order. r.writing is held.
func (v viaAgent) tell(ctx context.Context, r *registration, body map[string]any) error {
	ctx, cancel := context.WithTimeout(ctx, holdTime)
	defer cancel()
	err := v.consul.register(ctx, body)
	r.doubt.note(err)
	return err
}

// settle returns nil where nothing that the agent was told is in doubt, or it is seen
// to have the service as it was told last in spite of that.
func (v viaAgent) settle(ctx context.Context, r *registration) error {
	if !r.doubt.lasts() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, holdTime)
	defer cancel()
	begun := time.Now()
	wrong, err := v.differs(ctx, r)
	if err != nil {
		return err
	}
	if wrong != "" {
		v.log("%s: the agent has %s, it is told again", r.ID, wrong)
		if err := r.writing.do(ctx, func() error { return v.tell(ctx, r, r.bodyAgain(r.states(ctx))) }); err != nil {
			return err
		}
		return fmt.Errorf("the agent had %s", wrong)
	}
	r.doubt.settled(begun)
	return nil
}

// differs says what the agent has otherwise than it was told last.
func (v viaAgent) differs(ctx context.Context, r *registration) (string, error) {
	port, err := v.consul.servicePort(ctx, droplet.SidecarID(r.ID))
	if err != nil {
		return "", err
	}
	if r.shown.Load() && port == notYet {
		return fmt.Sprintf("the sidecar at the port %d, where nobody listens", port), nil
	}
	checks, err := v.checks(ctx, r)
	for _, check := range checks {
		if check.Status == missing {
			return fmt.Sprintf("no check %q", check.Name), err
		}
	}
	return "", err
}

// handOver registers the app's checks, for the agent to run.
func (v viaAgent) handOver(ctx context.Context, r *registration) error {
	for _, check := range r.checks {
		if err := v.consul.registerCheck(ctx, check); err != nil {
			return fmt.Errorf("check %q: %w", check["name"], err)
		}
	}
	return nil
}

func (v viaAgent) say(ctx context.Context, r *registration, status, output string) error {
	err := r.writing.do(ctx, func() error {
		if status == passing && !r.shown.Load() {
			if err := v.tell(ctx, r, r.body(status)); err != nil {
				return err
			}
			r.shown.Store(true)
		}
		return v.consul.updateTTL(ctx, droplet.ReadyCheckID(r.ID), status, output)
	})
	if err != nil || status != passing {
		return err
	}
	return v.settle(ctx, r)
}

func (v viaAgent) deregister(ctx context.Context, r *registration) error {
	// The sidecar first: it is what callers use, and without its service the
	// agent would complain about it.
	return r.writing.do(ctx, func() error {
		for _, id := range []string{droplet.SidecarID(r.ID), r.ID} {
			if err := v.consul.deregister(ctx, id); err != nil {
				return err
			}
		}
		return nil
	})
}

// serfHealth is the check of a node that the gossip decides.
const serfHealth = "serfHealth"

// checks lists those that the agent has, those that it should have, and the
// gossip's where that is against it.
func (v viaAgent) checks(ctx context.Context, r *registration) ([]CheckStatus, error) {
	all, err := v.consul.checks(ctx, r.ID)
	if err != nil || !r.registered.Load() {
		return all, err
	}
	there, _ := v.health(ctx, "") // where the token may not see the node, the agent's word has to do
	if check, found := there[serfHealth]; found && check.Status != passing {
		all = append(all, CheckStatus{check.CheckID, check.Name, check.Status, check.Output})
	}
	expect := func(id any, name any) {
		if !slices.ContainsFunc(all, func(c CheckStatus) bool { return c.ID == id }) {
			all = append(all, CheckStatus{ID: fmt.Sprint(id), Name: fmt.Sprint(name), Status: missing})
		}
	}
	for _, check := range objects(r.sidecarDefinition()["checks"]) {
		expect(check["CheckID"], check["name"])
	}
	if r.works.Load() {
		for _, check := range r.checks {
			expect(check["ID"], check["name"])
		}
	}
	return all, nil
}

// leave takes care of the node: it leaves the catalog with the agent, unless
// that has only just joined.
func (v viaAgent) leave(ctx context.Context, early bool) {
	ending, cancel := context.WithTimeout(context.Background(), stopBudget/2)
	defer cancel()
	if v.tellOrphan() {
		v.inst.awaitAgentEnd(ending)
	}
	if early {
		v.awaitFirstSync(ctx)
	} else {
		v.sweepNode()
	}
}

// agentCluster is the cluster that Envoy gets its configuration from.
const agentCluster = "local_agent"

// bootstrap leads Envoy to the agent, or to what puts a token on its streams.
func (v viaAgent) bootstrap(ctx context.Context, r *registration) ([]byte, error) {
	config, err := v.bootstrapConfig(ctx, r)
	if err != nil {
		return nil, err
	}
	for _, key := range consulKeys {
		if config[key] != nil {
			return v.consulBootstrap(ctx, r)
		}
	}
	target := socketAddress("127.0.0.1", v.ports.GRPC)
	if v.xds != nil {
		target = pipe(v.xds.socket)
	}
	return writeBootstrap(r, origin{
		name: agentCluster, cluster: http2(cluster(agentCluster, "STATIC", target)),
		datacenter: func() string { return v.ports.Datacenter },
	}, config)
}

// consulBootstrap has Consul write it, where it says something that only Consul
// knows.
func (v viaAgent) consulBootstrap(ctx context.Context, r *registration) ([]byte, error) {
	// The version of the Envoy in the droplet was judged at staging.
	args := []string{"connect", "envoy", "-bootstrap",
		"-sidecar-for", r.ID,
		"-admin-bind", address(r.AdminPort),
		"-ignore-envoy-compatibility"}
	var text []byte
	run := func(args ...string) (err error) {
		cmd := exec.CommandContext(ctx, v.inst.program("consul"), args...)
		cmd.Env = append(v.inst.smallEnv(), "CONSUL_HTTP_ADDR="+address(v.ports.HTTP))
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		if text, err = cmd.Output(); err != nil {
			return fmt.Errorf("%w: %s", err, strings.TrimSpace(stderr.String()))
		}
		return nil
	}
	var err error
	if v.xds == nil {
		err = run(append(args, "-grpc-addr", address(v.ports.GRPC))...)
	} else {
		err = v.access.withTokenFile(func(file string) error {
			return run(append(args, "-grpc-addr", "unix://"+v.xds.socket, "-token-file", file)...)
		})
		// Consul writes the token down for Envoy, which does not need it.
		text = bytes.ReplaceAll(text, []byte(v.access.serviceToken()), nil)
	}
	return text, err
}

// hungAfter is how long the agent may take to answer. With the beat it makes
// the time until a hung one is ended.
const hungAfter = 1500 * time.Millisecond

// keep keeps the instance in rotation when its agent ends: `mesh agent`
// starts it again, and here its services are registered anew. Callers keep
// sending requests meanwhile, because the catalog does not hear of it before
// the agent's peers give it up, after more than five seconds.
func (v viaAgent) keep(ctx context.Context) {
	var group sync.WaitGroup
	for _, r := range v.services {
		group.Go(func() { v.keepRegistered(ctx, r) })
	}
	group.Go(func() { v.endHungAgent(ctx) })
	group.Go(func() { v.followLeave(ctx) })
	group.Go(func() { v.watchCatalog(ctx) })
	group.Wait()
}

// keepRegistered tells an agent again that has lost a service, from when it was
// told first.
func (v viaAgent) keepRegistered(ctx context.Context, r *registration) {
	for !r.registered.Load() && pause(ctx, beat) == nil {
	}
	defer r.away.Store(false) // who goes on after ctx looks for itself
	for ctx.Err() == nil {
		err := v.consul.awaitGone(ctx, droplet.SidecarID(r.ID))
		if ctx.Err() != nil {
			return
		}
		begun := time.Now()
		v.log("%s: the agent no longer has it, it is told again as soon as it is there: %v", r.ID, err)
		r.away.Store(true)
		if err := v.registerAgain(ctx, r); err != nil {
			if ctx.Err() == nil {
				v.log("%s: failed to register again: %v", r.ID, err)
			}
			_ = pause(ctx, watchInterval)
			continue
		}
		r.away.Store(false)
		v.noteJoined()
		v.log("%s: registered again (%.3f s)", r.ID, time.Since(begun).Seconds())
	}
}

// registerAgain tells an agent what it knew of a service, and how its checks are
// now.
func (v viaAgent) registerAgain(ctx context.Context, r *registration) error {
	return pollUnbounded(ctx, func(ctx context.Context) error {
		asking, cancel := context.WithTimeout(ctx, attemptTimeout)
		defer cancel()
		if err := v.stays(asking); err != nil {
			return err
		}
		states := r.states(ctx)
		return r.writing.do(ctx, func() error { return v.tell(ctx, r, r.bodyAgain(states)) })
	})
}

// stays returns nil where the agent has joined, and is not on its way out.
func (v viaAgent) stays(ctx context.Context) error {
	leaving, err := v.consul.leaving(ctx, v.inst.NodeName())
	if err == nil && leaving {
		err = errors.New("the agent is leaving the mesh")
	}
	if err != nil {
		return err
	}
	return v.consul.joined(ctx)
}

// followLeave takes the services out of the catalog when the agent leaves the
// mesh by itself. The servers drop its node at once, but as long as it runs it
// may put that back, with the services that it has.
func (v viaAgent) followLeave(ctx context.Context) {
	followed := false
	for pause(ctx, beat) == nil {
		look, cancel := context.WithTimeout(ctx, callTimeout)
		leaving, err := v.consul.leaving(look, v.inst.NodeName())
		cancel()
		if err != nil || ctx.Err() != nil {
			continue
		}
		if leaving && !followed {
			v.log("the Consul agent is leaving the mesh, and so is this instance")
			v.proxy.deregister()
			v.sweepNode()
		}
		followed = leaving
	}
}

// catalogLook is how often an instance looks whether the catalog still has it.
const catalogLook = 5 * time.Second

// watchCatalog registers again what the servers have dropped: they reap a node
// that could not be heard for ten seconds, and its agent, which believes that
// all is in order, would notice a minute after it is heard again. What the agent
// itself has otherwise than it was told, it is told again.
func (v viaAgent) watchCatalog(ctx context.Context) {
	said := false
	for pause(ctx, catalogLook) == nil {
		for _, r := range v.services {
			if r.doubt.isDue() && !r.away.Load() {
				_ = v.settle(ctx, r) // the next look tries again
			}
		}
		v.remember(ctx)
		missing, err := v.missing(ctx)
		if len(missing) > 0 && pause(ctx, time.Second) == nil {
			missing, err = v.missing(ctx) // what was just registered may still be on its way
		}
		if errors.Is(err, errHidden) && !said {
			v.log("whether the servers still have this instance cannot be seen, its token needs node:read for it: %v", err)
			said = true
		}
		if err != nil || v.stays(ctx) != nil {
			continue
		}
		for _, r := range missing {
			v.log("%s: the servers no longer have it, it is registered again", r.ID)
			// The agent tells them only of what is new to itself.
			if err := v.deregister(ctx, r); err != nil {
				v.log("%s: %v", r.ID, err)
			}
		}
	}
}

// missing are the services that the agent has, and the servers have not, or have
// where callers do not find them any more.
func (v viaAgent) missing(ctx context.Context) (all []*registration, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	byID := map[string]*registration{}
	for _, r := range v.services {
		if !r.away.Load() {
			byID[droplet.SidecarID(r.ID)] = r
		}
	}
	has := func(id string, port int) bool { return !byID[id].shown.Load() || port != notYet }
	ids, err := v.consul.unknown(ctx, v.access.serviceToken(), v.inst.NodeName(), slices.Sorted(maps.Keys(byID)), has)
	for _, id := range ids {
		all = append(all, byID[id])
	}
	return all, err
}

// remember keeps the states of checks that the agent alone runs, for when it has
// forgotten them.
func (v viaAgent) remember(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	for _, r := range v.services {
		if r.away.Load() || !slices.ContainsFunc(r.ownChecks(), isAgents) {
			continue
		}
		checks, err := v.consul.checks(ctx, r.ID)
		if err != nil {
			continue
		}
		states := map[string]string{}
		for _, check := range checks {
			states[check.ID] = check.Status
		}
		r.remembered.Store(&states)
	}
}

// endHungAgent ends an agent that no longer answers.
func (v viaAgent) endHungAgent(ctx context.Context) {
	ticker := time.NewTicker(beat)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		look, cancel := context.WithTimeout(ctx, hungAfter)
		err := v.consul.alive(look)
		cancel()
		if ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
			continue // an agent that refuses the connection has ended already
		}
		v.log("the Consul agent has not answered for %.1f s and is ended", hungAfter.Seconds())
		if err := v.inst.killAgent(); err != nil {
			v.log("failed to end the Consul agent: %v", err)
		}
	}
}

// firstSync is how long after its first server an agent may still
// synchronise its node for the first times: each of the servers that it
// meets makes it do so after a random part of 3 s, two of them in a row
// (Consul 1.22, agent/ae, in a cluster of up to 128 nodes).
const firstSync = 6200 * time.Millisecond

// syncing is how long the agent may still do so.
func (p *proxy) syncing() time.Duration {
	joined := p.joined.Load()
	if joined == nil {
		return 0
	}
	return max(0, time.Until(joined.Add(firstSync)))
}

// sweepNode keeps the node out of the catalog where the instance stops right
// after its start: an agent that is leaving still does its first
// synchronisations, and puts the bare node back for up to a minute. It goes on
// for as long as the agent answers.
func (v viaAgent) sweepNode() {
	if v.syncing() == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), stopBudget/2)
	defer cancel()
	for v.consul.sweepNode(ctx, v.inst.NodeName()) == nil {
		<-time.After(sweepPause)
	}
}

// sweepPause is short, because what comes after the last sweep stays.
const sweepPause = 25 * time.Millisecond

// awaitFirstSync waits until the agent has done its first synchronisations,
// unless ctx ends. A process that ends by itself before that would leave what
// sweepNode is for.
func (v viaAgent) awaitFirstSync(ctx context.Context) {
	select {
	case <-time.After(v.syncing()):
	case <-ctx.Done():
		v.sweepNode()
	}
}

// problems are those of an agent that knows no leader.
func (v viaAgent) problems(ctx context.Context, s Status) []string {
	if err := v.consul.alive(ctx); err != nil {
		return []string{fmt.Sprintf("the Consul agent does not answer on %s: the log of %s says why", address(v.ports.HTTP), droplet.AgentSidecar)}
	}
	// What the servers have said is better than any guess.
	if problem := knownProblem(v.inst.journalOf(consulJournal)); problem != "" {
		return []string{problem}
	}
	problems := v.serverProblems(ctx)
	if len(problems) == 0 {
		problems = []string{fmt.Sprintf("the agent has no leader (%s), though the servers answer: is there a network policy from them back to this app for %d tcp and udp?",
			s.Agent.Seen, v.ports.Gossip)}
	}
	return problems
}
