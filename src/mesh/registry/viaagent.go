package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/consul-mesh/mesh-buildpack/src/droplet"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/agent"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/consul"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/envoy"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/instance"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/wait"
)

// ViaAgent asks the Consul agent of the instance.
type ViaAgent struct{ *Node }

func (v ViaAgent) Steps(ctx context.Context) ([]wait.Step, error) {
	preflight, err := v.newPreflight()
	if err != nil {
		return nil, err
	}
	go preflight.run(ctx)
	for _, r := range v.Services {
		go v.keepRegistered(ctx, r)
	}
	return []wait.Step{{
		Name:      "agent up",
		Condition: preflight.explainAgent(v.Inst, v.answers),
	}, {
		Name:      "joined, leader known",
		Condition: preflight.explainJoin(v.hasJoined),
	}}, nil
}

// answers returns nil once the agent answers. Before it listens, a request costs
// many times what a connection costs, and it is asked often then.
func (v ViaAgent) answers(ctx context.Context) error {
	if err := wait.Dial(ctx, wait.Loopback(v.Ports.HTTP)); err != nil {
		return err
	}
	return v.Consul.Answers(ctx)
}

// hasJoined returns nil once the agent knows a server that knows a leader.
func (v ViaAgent) hasJoined(ctx context.Context) error {
	err := v.Consul.Joined(ctx)
	var alone *consul.NotJoinedError
	if !errors.As(err, &alone) {
		return err
	}
	if why := LastJoinError(v.Inst.JournalOf(instance.ConsulJournal)); why != "" {
		err = consul.NotJoined(fmt.Errorf("%w: %s", alone, why))
	}
	return err
}

func (v ViaAgent) Register(ctx context.Context, r *Registration) error {
	return r.writing.do(ctx, func() error { return v.tell(ctx, r, r.body(r.State())) })
}

// tell tells the agent of a service, and waits for its answer as long as one may
// take: who gives up and says it again has said it twice, and the two may come in any
// order. r.writing is held.
func (v ViaAgent) tell(ctx context.Context, r *Registration, body droplet.Definition) error {
	ctx, cancel := context.WithTimeout(ctx, instance.HoldTime)
	defer cancel()
	err := v.Consul.Register(ctx, droplet.API(body))
	r.doubt.note(err)
	return err
}

// settle returns nil where nothing that the agent was told is in doubt, or it is seen
// to have the service as it was told last in spite of that.
func (v ViaAgent) settle(ctx context.Context, r *Registration) error {
	if !r.doubt.lasts() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, instance.HoldTime)
	defer cancel()
	begun := time.Now()
	wrong, err := v.differs(ctx, r)
	if err != nil {
		return err
	}
	if wrong != "" {
		v.Log("%s: the agent has %s, it is told again", r.ID, wrong)
		if err := r.writing.do(ctx, func() error { return v.tell(ctx, r, r.bodyAgain(r.states(ctx))) }); err != nil {
			return err
		}
		return fmt.Errorf("the agent had %s", wrong)
	}
	r.doubt.settled(begun)
	return nil
}

// differs says what the agent has otherwise than it was told last.
func (v ViaAgent) differs(ctx context.Context, r *Registration) (string, error) {
	port, err := v.Consul.ServicePort(ctx, droplet.SidecarID(r.ID))
	if err != nil {
		return "", err
	}
	if r.shown.Load() && port == notYet {
		return fmt.Sprintf("the sidecar at the port %d, where nobody listens", port), nil
	}
	checks, err := v.CheckStatuses(ctx, r)
	for _, check := range checks {
		if check.Status == consul.Missing {
			return fmt.Sprintf("no check %q", check.Name), err
		}
	}
	return "", err
}

// HandOver registers the app's checks, for the agent to run.
func (v ViaAgent) HandOver(ctx context.Context, r *Registration) error {
	for _, check := range r.definition.Checks {
		if err := v.Consul.RegisterCheck(ctx, r.alone(check)); err != nil {
			return fmt.Errorf("check %q: %w", check.Name, err)
		}
	}
	return nil
}

func (v ViaAgent) Say(ctx context.Context, r *Registration, status, output string) error {
	err := r.writing.do(ctx, func() error {
		if status == consul.Passing && !r.shown.Load() {
			if err := v.tell(ctx, r, r.body(status)); err != nil {
				return err
			}
			r.shown.Store(true)
		}
		return v.Consul.UpdateTTL(ctx, droplet.ReadyCheckID(r.ID), status, output)
	})
	if err != nil || status != consul.Passing {
		return err
	}
	return v.settle(ctx, r)
}

func (v ViaAgent) deregister(ctx context.Context, r *Registration) error {
	// The sidecar first: it is what callers use, and without its service the
	// agent would complain about it.
	return r.writing.do(ctx, func() error {
		for _, id := range []string{droplet.SidecarID(r.ID), r.ID} {
			if err := v.Consul.Deregister(ctx, id); err != nil {
				return err
			}
		}
		return nil
	})
}

// SerfHealth is the check of a node that the gossip decides.
const SerfHealth = "serfHealth"

// CheckStatuses lists those that the agent has, those that it should have, and the
// gossip's where that is against it.
func (v ViaAgent) CheckStatuses(ctx context.Context, r *Registration) ([]consul.CheckStatus, error) {
	all, err := v.Consul.AgentChecks(ctx, r.ID)
	if err != nil || !r.Registered.Load() {
		return all, err
	}
	there, _ := v.health(ctx, "") // where the token may not see the node, the agent's word has to do
	if check, found := there[SerfHealth]; found && check.Status != consul.Passing {
		all = append(all, consul.CheckStatus{ID: check.CheckID, Name: check.Name, Status: check.Status, Output: check.Output})
	}
	expected := r.sidecar().Checks
	if r.Works.Load() {
		expected = slices.Concat(expected, r.definition.Checks)
	}
	for _, check := range expected {
		if !slices.ContainsFunc(all, func(c consul.CheckStatus) bool { return c.ID == check.CheckID }) {
			all = append(all, consul.CheckStatus{ID: check.CheckID, Name: check.Name, Status: consul.Missing})
		}
	}
	return all, nil
}

// TakeTokens registers everything again: an agent keeps the tokens of services.
func (v ViaAgent) TakeTokens(ctx context.Context) error {
	for _, r := range v.Services {
		// A server may hear of a new token a moment after another made it.
		if err := wait.PollUnbounded(ctx, func(ctx context.Context) error { return v.Register(ctx, r) }); err != nil {
			return err
		}
	}
	return nil
}

// TakeCA has the agent read a CA.
func (v ViaAgent) TakeCA(ctx context.Context, ca string) error {
	if err := instance.ReplaceFile(filepath.Join(v.Access.Dir, instance.CAFile), []byte(ca)); err != nil {
		return err
	}
	return v.Consul.Reload(ctx)
}

// Logout is for while the agent still answers. The one use that is left of a token
// is to sweep the node, if the login is the agent's too; then it ends by itself.
func (v ViaAgent) Logout() {
	if v.Access.AgentToken() == v.Access.ServiceToken() && v.Syncing() > 0 {
		return
	}
	v.Access.Logout(instance.DeregisterBudget)
}

// Leave takes care of the node: it leaves the catalog with the agent, unless
// that has only just joined.
func (v ViaAgent) Leave(ctx context.Context) {
	ending, cancel := context.WithTimeout(context.Background(), instance.Within(v.Config.Lifecycle, instance.StopBudget)/2)
	defer cancel()
	if v.TellOrphan() {
		agent.AwaitEnd(ending, v.Inst)
	}
	v.awaitFirstSync(ctx)
}

// agentCluster is the cluster that Envoy gets its configuration from.
const agentCluster = "local_agent"

// Bootstrap leads Envoy to the agent, or to what puts a token on its streams.
func (v ViaAgent) Bootstrap(ctx context.Context, r *Registration) ([]byte, error) {
	sidecar := v.envoySidecar(r)
	config, err := envoy.BootstrapConfig(ctx, v.Consul, v.Access.ServiceToken(), sidecar, v.Log)
	if err != nil {
		return nil, err
	}
	for _, key := range droplet.ConsulOnlyKeys {
		if config[key] != nil {
			return v.consulBootstrap(ctx, r)
		}
	}
	target := envoy.SocketAddress("127.0.0.1", v.Ports.GRPC)
	if v.XDS != nil {
		target = envoy.Pipe(v.XDS.Socket)
	}
	return envoy.WriteBootstrap(sidecar, envoy.Origin{
		Name: agentCluster, Cluster: envoy.Http2(envoy.Cluster(agentCluster, "STATIC", target)),
		Datacenter: func() string { return v.Ports.Datacenter },
	}, config)
}

// consulBootstrap has Consul write it, where it says something that only Consul
// knows.
func (v ViaAgent) consulBootstrap(ctx context.Context, r *Registration) ([]byte, error) {
	// The version of the Envoy in the droplet was judged at staging.
	args := []string{"connect", "envoy", "-bootstrap",
		"-sidecar-for", r.ID,
		"-admin-bind", wait.Loopback(r.AdminPort),
		"-ignore-envoy-compatibility"}
	var text []byte
	run := func(args ...string) (err error) {
		cmd := exec.CommandContext(ctx, v.Inst.Program("consul"), args...)
		cmd.Env = append(v.Inst.SmallEnv(), "CONSUL_HTTP_ADDR="+wait.Loopback(v.Ports.HTTP))
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		if text, err = cmd.Output(); err != nil {
			return fmt.Errorf("%w: %s", err, strings.TrimSpace(stderr.String()))
		}
		return nil
	}
	var err error
	if v.XDS == nil {
		err = run(append(args, "-grpc-addr", wait.Loopback(v.Ports.GRPC))...)
	} else {
		err = v.Access.WithTokenFile(func(file string) error {
			return run(append(args, "-grpc-addr", "unix://"+v.XDS.Socket, "-token-file", file)...)
		})
		// Consul writes the token down for Envoy, which does not need it.
		text = bytes.ReplaceAll(text, []byte(v.Access.ServiceToken()), nil)
	}
	return text, err
}

// Notes are those of the credentials.
func (v ViaAgent) Notes() []string { return v.Access.Notes() }

// Problems are those of an agent that knows no leader.
func (v ViaAgent) Problems(ctx context.Context, seen string) []string {
	if err := v.Consul.Answers(ctx); err != nil {
		return []string{fmt.Sprintf("the Consul agent does not answer on %s: the log of %s says why", wait.Loopback(v.Ports.HTTP), droplet.AgentSidecar)}
	}
	// What the servers have said is better than any guess.
	if problem := KnownProblem(v.Inst.JournalOf(instance.ConsulJournal)); problem != "" {
		return []string{problem}
	}
	if moved := v.movedServers(ctx); moved != "" {
		return []string{moved + ": it is started anew in a moment"}
	}
	problems := v.serverProblems(ctx)
	if len(problems) == 0 {
		problems = []string{fmt.Sprintf("the agent has no leader (%s), though the servers answer: ", seen) +
			MissingPolicy("them", "this app", fmt.Sprintf("%d tcp and udp", v.Ports.Gossip))}
	}
	return problems
}
