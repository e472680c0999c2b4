package proxy

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/consul-mesh/mesh-buildpack/src/droplet"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/consul"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/envoy"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/instance"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/registry"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/wait"
)

// diagnose names the likely causes of what does not work, the first ones first,
// each with what to try. It tries what only an attempt can tell.
func (p *proxy) diagnose(ctx context.Context, s Status) []string {
	problems := p.startCauses(ctx, s)
	if s.Agent.Seen != "" {
		return problems // nothing can be said of the rest
	}
	step := pending(s.Stages)
	if step != nil && len(problems) == 0 {
		problems = append(problems, fmt.Sprintf("the start waits for %q: %s", step.Name, step.Seen))
	}
	for _, service := range s.Services {
		problems = append(problems, p.serviceProblems(ctx, service, step == nil)...)
	}
	return problems
}

// startCauses are the likely causes of an instance that does not get ready.
func (p *proxy) startCauses(ctx context.Context, s Status) []string {
	causes, step := instance.MemoryProblems(), pending(s.Stages)
	if step != nil && len(causes) == 0 {
		causes = instance.Thrashing()
	}
	if s.Agent.Seen != "" {
		return append(causes, p.registry.Problems(ctx, s.Agent.Seen)...)
	}
	if step != nil {
		if cause := registry.KnownProblem(append(p.journals(), step.Seen)); cause != "" {
			causes = append(causes, cause)
		}
	}
	return causes
}

// pending is the first step that has not come true, nil where all have.
func pending(steps []wait.StepStatus) *wait.StepStatus {
	for i := range steps {
		if !steps[i].Done {
			return &steps[i]
		}
	}
	return nil
}

// journals are the lines of every program of this instance.
func (p *proxy) journals() []string {
	lines := p.Inst.JournalOf(instance.ConsulJournal)
	for _, r := range p.Services {
		lines = append(lines, p.Inst.JournalOf(instance.EnvoyJournal(r.ID))...)
	}
	return lines
}

// serviceProblems are those of one service, its Envoy and its upstreams. started
// says that the start is over.
func (p *proxy) serviceProblems(ctx context.Context, s ServiceStatus, started bool) []string {
	var problems []string
	if s.Seen != "" {
		problems = append(problems, fmt.Sprintf("%s: nobody tells how its checks are: %s", s.ID, s.Seen))
	}
	for _, check := range s.Checks {
		if check.Status == consul.Missing {
			problems = append(problems, fmt.Sprintf("%s: Consul does not have the check %q: once the start is over, cf restart writes it again", s.ID, check.Name))
		}
		if check.ID == registry.SerfHealth {
			problems = append(problems, fmt.Sprintf("%s: callers leave it out, because the agents of others do not hear this one: ", s.ID)+
				registry.MissingPolicy("the servers and the apps of its mesh", "this app", fmt.Sprintf("%d tcp and udp", p.Ports.Gossip)))
			continue
		}
		// That Envoy or the app are not ready is said with its reason elsewhere.
		if check.Status == consul.Critical && (check.ID != droplet.ReadyCheckID(s.ID) || started && s.Envoy.Ready) {
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
func clockProblem(s envoy.EnvoyStatus, now time.Time) string {
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
		if failed = wait.Dial(ctx, sidecar); failed == nil {
			return ""
		}
	}
	_, port, _ := net.SplitHostPort(u.sidecars[0])
	return fmt.Sprintf("no instance of %s can be reached (%v): ", u.Name, failed) + registry.MissingPolicy("this app", "it", port+" tcp")
}
