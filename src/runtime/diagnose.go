package runtime

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/consul-mesh/mesh-buildpack/src/droplet"
)

// dialTimeout is for one connection that is tried to find a cause. Where a
// network policy is missing it is refused at once, or never answered.
const dialTimeout = time.Second

// serverRPC is the port of Consul's servers for requests of agents.
const serverRPC = 8300

// diagnose names the likely causes of what does not work, the first ones first,
// each with what to try. It tries what only an attempt can tell.
func (p *proxy) diagnose(ctx context.Context, s Status) []string {
	problems := p.startCauses(ctx, s)
	if s.Agent.Seen != "" {
		return problems // nothing can be said of the rest
	}
	stage := pending(s.Stages)
	if stage != nil && len(problems) == 0 {
		problems = append(problems, fmt.Sprintf("the start waits for %q: %s", stage.Name, stage.Seen))
	}
	for _, service := range s.Services {
		problems = append(problems, p.serviceProblems(ctx, service, stage == nil)...)
	}
	return problems
}

// startCauses are the likely causes of an instance that does not get ready.
func (p *proxy) startCauses(ctx context.Context, s Status) []string {
	causes := memoryProblems()
	if s.Agent.Seen != "" {
		return append(causes, p.registry.problems(ctx, s)...)
	}
	if stage := pending(s.Stages); stage != nil {
		if cause := knownProblem(append(p.journals(), stage.Seen)); cause != "" {
			causes = append(causes, cause)
		}
	}
	return causes
}

// pending is the first stage that has not come true, nil where all have.
func pending(stages []StageStatus) *StageStatus {
	for i := range stages {
		if !stages[i].Done {
			return &stages[i]
		}
	}
	return nil
}

// journals are the lines of every program of this instance.
func (p *proxy) journals() []string {
	lines := p.inst.journalOf(consulJournal)
	for _, r := range p.services {
		lines = append(lines, p.inst.journalOf(envoyJournal(r.ID))...)
	}
	return lines
}

// knownProblem explains the last line that has a known error, empty where none
// has.
func knownProblem(lines []string) string {
	for _, line := range slices.Backward(lines) {
		for _, known := range knownErrors {
			if strings.Contains(line, known.text) {
				return known.problem
			}
		}
	}
	return ""
}

// lastJoinError is why the agent could not join a server the last time, empty where
// it has not said so.
func lastJoinError(lines []string) string {
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
	{"is too old and is not supported by Consul", "Envoy is too old for this Consul: leave out version and source of envoy in mesh.hcl, or take one that docs/operators.md lists"},
}

// serverProblems tries to reach the servers as the agent does.
func (p *proxy) serverProblems(ctx context.Context) []string {
	join, err := p.retryJoin()
	if err != nil {
		return []string{err.Error()}
	}
	lookup, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	hosts, err := resolve(lookup, join)
	if err != nil {
		return []string{err.Error()}
	}
	return portProblems(ctx, hosts, serverPort{p.ports.Gossip, "tcp and udp"}, serverPort{serverRPC, "tcp"})
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
		group.Go(func() { failed[i] = dialAny(ctx, hosts, p.port) })
	}
	group.Wait()
	for i, p := range ports {
		if failed[i] != nil {
			problems = append(problems, fmt.Sprintf("no server can be reached on %d (%v): is there a network policy from this app to the servers for %d %s?",
				p.port, failed[i], p.port, p.protocols))
		}
	}
	return problems
}

// serviceProblems are those of one service, its Envoy and its upstreams. started
// says that the start is over.
func (p *proxy) serviceProblems(ctx context.Context, s ServiceStatus, started bool) []string {
	var problems []string
	if s.Seen != "" {
		problems = append(problems, fmt.Sprintf("%s: nobody tells how its checks are: %s", s.ID, s.Seen))
	}
	for _, check := range s.Checks {
		if check.Status == missing {
			problems = append(problems, fmt.Sprintf("%s: Consul does not have the check %q: once the start is over, cf restart writes it again", s.ID, check.Name))
		}
		if check.ID == serfHealth {
			problems = append(problems, fmt.Sprintf("%s: callers leave it out, because the agents of others do not hear this one: "+
				"is there a network policy from the servers and the apps of its mesh to this app for %d tcp and udp?", s.ID, p.ports.Gossip))
			continue
		}
		// That Envoy or the app are not ready is said with its reason elsewhere.
		if check.Status == critical && (check.ID != droplet.ReadyCheckID(s.ID) || started && s.Envoy.Ready) {
			problems = append(problems, fmt.Sprintf("%s: the check %q is critical: %s", s.ID, check.Name, strings.TrimSpace(check.Output)))
		}
	}
	if !s.Envoy.Ready {
		problems = append(problems, fmt.Sprintf("%s: Envoy is not ready: %s", s.ID, s.Envoy.Seen))
	}
	if problem := clockProblem(s.Envoy, time.Now()); problem != "" {
		problems = append(problems, s.ID+": "+problem)
	}
	problemOf := make([]string, len(s.Upstreams))
	var group sync.WaitGroup
	for i, u := range s.Upstreams {
		group.Go(func() { problemOf[i] = upstreamProblem(ctx, u) })
	}
	group.Wait()
	for _, problem := range problemOf {
		if problem != "" {
			problems = append(problems, s.ID+": "+problem)
		}
	}
	return problems
}

// clockProblem is that of a certificate with which no connection can be made,
// as healthy as all else is.
func clockProblem(s EnvoyStatus, now time.Time) string {
	switch {
	case s.CertificateUntil == nil:
		return ""
	case now.Before(*s.CertificateFrom):
		return fmt.Sprintf("its certificate is valid from %s and it is %s: the clock of the servers is ahead of this one; cf restart gets another once they agree",
			s.CertificateFrom.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	case now.After(*s.CertificateUntil):
		return fmt.Sprintf("its certificate has ended on %s: are the servers reached, or is a clock wrong?", s.CertificateUntil.UTC().Format(time.RFC3339))
	}
	return ""
}

func upstreamProblem(ctx context.Context, u UpstreamStatus) string {
	switch {
	case u.Denied:
		return fmt.Sprintf("intentions deny calls to %s: consul intention create allows them", u.Name)
	case strings.Contains(u.Unknown, "Permission denied"):
		return fmt.Sprintf("the service's token may not read %s: meshctl acl shows the rules that it needs", u.Name)
	case u.Unknown != "":
		return ""
	case u.Instances == 0:
		return fmt.Sprintf("upstream %s has no instance: does it run, in this mesh, under that name?", u.Name)
	case u.Passing == 0:
		return fmt.Sprintf("upstream %s has %d instances, and none passes its checks", u.Name, u.Instances)
	case len(u.sidecars) == 0:
		return "" // gateways are in between
	}
	var failed error
	for _, sidecar := range u.sidecars {
		if failed = dial(ctx, sidecar); failed == nil {
			return ""
		}
	}
	_, port, _ := net.SplitHostPort(u.sidecars[0])
	return fmt.Sprintf("no instance of %s can be reached (%v): is there a network policy from this app to it for %s tcp?", u.Name, failed, port)
}

// dialAny returns nil as soon as one of the addresses can be reached.
func dialAny(ctx context.Context, addresses []string, port int) (failed error) {
	ctx, cancel := context.WithTimeout(ctx, 2*dialTimeout)
	defer cancel()
	dialled := make(chan error, len(addresses))
	for _, host := range addresses {
		go func() { dialled <- dial(ctx, net.JoinHostPort(host, strconv.Itoa(port))) }()
	}
	for range addresses {
		if failed = <-dialled; failed == nil {
			return nil
		}
	}
	return failed
}

func dial(ctx context.Context, target string) error {
	dialer := net.Dialer{Timeout: dialTimeout}
	conn, err := dialer.DialContext(ctx, "tcp", target)
	switch {
	case err == nil:
		return conn.Close()
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%s refuses the connection", target)
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s does not answer", target)
	}
	return err
}

// memoryProblems looks whether the kernel has killed for want of memory
// (control groups, version 2 and 1).
func memoryProblems() []string {
	for _, file := range []string{"/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"} {
		text, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		if problem := memoryProblem(string(text)); problem != "" {
			return []string{problem}
		}
	}
	return nil
}

func memoryProblem(events string) string {
	for line := range strings.Lines(events) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if n, _ := strconv.Atoi(value); name == "oom_kill" && n > 0 {
			return fmt.Sprintf("not enough memory: the kernel has killed %d processes of this container for it: cf scale -m gives more, memory in mesh.hcl says what the sidecars take", n)
		}
	}
	return ""
}
