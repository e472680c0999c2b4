package proxy

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/consul-mesh/mesh-buildpack/src/droplet"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/consul"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/envoy"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/gate"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/instance"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/registry"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/wait"
)

// Status is what `mesh status` prints of one instance. The proxy collects it
// when it is asked, over the socket of the gate.
type Status struct {
	App      string            `json:"app"`
	Process  string            `json:"process"`
	Index    string            `json:"index"`
	Stages   []wait.StepStatus `json:"stages"`
	Agent    AgentStatus       `json:"agent"`
	Services []ServiceStatus   `json:"services"`
	// Problems are likely causes of what does not work, each with what to try;
	// without any the instance is healthy.
	Problems []string `json:"problems"`
	// Notes are what is worth knowing of an instance that works.
	Notes []string `json:"notes,omitempty"`
	// Warnings are the last ones that Consul and Envoy have printed, by program.
	Warnings map[string][]string `json:"warnings,omitempty"`
}

// AgentStatus is how the Consul agent is.
type AgentStatus struct {
	Node   string `json:"node"`
	Leader string `json:"leader,omitempty"` // address of the servers' leader
	Seen   string `json:"seen,omitempty"`   // why there is none
}

// ServiceStatus is how one service and its sidecar are.
type ServiceStatus struct {
	ID        string               `json:"id"`
	Checks    []consul.CheckStatus `json:"checks"`
	Upstreams []UpstreamStatus     `json:"upstreams,omitempty"`
	Envoy     envoy.EnvoyStatus    `json:"envoy"`
	Seen      string               `json:"seen,omitempty"` // why nobody tells how the checks are
}

// UpstreamStatus is what is known of a service that the app calls.
type UpstreamStatus struct {
	Name      string   `json:"name"`
	Address   string   `json:"address"`           // where the app calls it
	Instances int      `json:"instances"`         // registered
	Passing   int      `json:"passing"`           // of these
	Denied    bool     `json:"denied,omitempty"`  // by intentions
	Unknown   string   `json:"unknown,omitempty"` // why less is known
	sidecars  []string // addresses of the passing ones that Envoy calls itself
}

// AskStatus asks the proxy of this instance. Where none answers, that is the
// problem which the Status has.
func AskStatus(ctx context.Context, inst instance.Instance) (Status, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*instance.StatusBudget)
	defer cancel()
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", inst.Gate())
	if err != nil {
		return Status{
			Problems: []string{fmt.Sprintf("no proxy answers in this container (%v): `cf logs --recent` has the lines of %s", err, droplet.ProxySidecar)},
			Warnings: inst.Warnings(),
		}, nil
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	var s Status
	if _, err := fmt.Fprintln(conn, gate.AskStatus); err != nil {
		return s, fmt.Errorf("failed to ask the proxy: %w", err)
	}
	if err := json.NewDecoder(conn).Decode(&s); err != nil {
		return Status{
			Problems: []string{fmt.Sprintf("%s does not say how it is: it hangs, or has just begun or ended", droplet.ProxySidecar)},
			Warnings: inst.Warnings(),
		}, nil
	}
	return s, nil
}

// Healthy says whether everything that the instance has works.
func (s Status) Healthy() bool { return len(s.Problems) == 0 }

// status collects how everything is.
func (p *proxy) status(ctx context.Context) Status {
	ctx, cancel := context.WithTimeout(ctx, instance.StatusBudget)
	defer cancel()
	s := p.survey(ctx)
	s.Problems = p.diagnose(ctx, s)
	return s
}

// survey is a status without what may be the cause of it.
func (p *proxy) survey(ctx context.Context) Status {
	ctx, cancel := context.WithTimeout(ctx, instance.SurveyBudget)
	defer cancel()
	s := Status{
		App: p.Inst.App, Process: p.Inst.Process, Index: p.Inst.Index,
		Stages: p.timeline.List(), Agent: AgentStatus{Node: p.Inst.NodeName()},
		Services: make([]ServiceStatus, len(p.Services)), Warnings: p.Inst.Warnings(), Notes: p.registry.Notes(),
	}
	var group sync.WaitGroup
	group.Go(func() {
		leader, err := p.Consul.Leader(ctx)
		s.Agent.Leader = leader
		if err != nil {
			s.Agent.Seen = err.Error()
		}
	})
	for i, r := range p.Services {
		group.Go(func() { s.Services[i] = p.serviceStatus(ctx, r) })
	}
	group.Wait()
	return s
}

func (p *proxy) serviceStatus(ctx context.Context, r *registry.Registration) ServiceStatus {
	s := ServiceStatus{ID: r.ID}
	checks, err := p.registry.CheckStatuses(ctx, r)
	s.Checks = checks
	if err != nil {
		s.Seen = err.Error()
	}
	upstreams := r.Upstreams()
	s.Upstreams = make([]UpstreamStatus, len(upstreams))
	var group errgroup.Group
	group.SetLimit(16)
	for i, u := range upstreams {
		group.Go(func() error {
			s.Upstreams[i] = p.upstreamStatus(ctx, r, u)
			return nil
		})
	}
	_ = group.Wait()
	if e, started := p.started.Load(r.ID); started {
		s.Envoy = e.(*envoy.Envoy).Status(ctx)
		s.Envoy.EarlyStream = p.XDS != nil && p.XDS.First.Served(droplet.SidecarID(r.ID))
	} else {
		s.Envoy.Seen = "it has not been started yet"
	}
	return s
}

func (p *proxy) upstreamStatus(ctx context.Context, r *registry.Registration, u consul.Upstream) UpstreamStatus {
	s := UpstreamStatus{Name: u.Name, Address: u.Local}
	destinations, err := p.Consul.Destinations(ctx, u)
	var instances []consul.SidecarInstance
	for _, d := range destinations {
		var found []consul.SidecarInstance
		if found, err = p.Consul.Instances(ctx, d); err != nil {
			break
		}
		instances = append(instances, found...)
		if !d.Local {
			continue
		}
		var denied bool
		if denied, err = p.Consul.Denied(ctx, r.Name, d.Service); err != nil {
			break
		}
		s.Denied = s.Denied || denied
	}
	if err != nil {
		s.Unknown = err.Error()
	}
	s.Instances = len(instances)
	for _, one := range instances {
		if one.Passing {
			s.Passing++
		}
		if one.Passing && one.Direct {
			s.sidecars = append(s.sidecars, one.Address)
		}
	}
	return s
}
