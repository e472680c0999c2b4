package runtime

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/consul-mesh/mesh-buildpack/src/droplet"
)

// Status is what `mesh status` prints of one instance. The proxy collects it
// when it is asked, over the socket of the gate.
type Status struct {
	App      string          `json:"app"`
	Process  string          `json:"process"`
	Index    string          `json:"index"`
	Stages   []StageStatus   `json:"stages"`
	Agent    AgentStatus     `json:"agent"`
	Services []ServiceStatus `json:"services"`
	// Problems are likely causes of what does not work, each with what to try;
	// without any the instance is healthy.
	Problems []string `json:"problems"`
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
	ID        string           `json:"id"`
	Checks    []CheckStatus    `json:"checks"`
	Upstreams []UpstreamStatus `json:"upstreams,omitempty"`
	Envoy     EnvoyStatus      `json:"envoy"`
	Seen      string           `json:"seen,omitempty"` // why nobody tells how the checks are
}

// CheckStatus is a check of a service or of its sidecar, as the agent has it, or
// without agents the catalog.
type CheckStatus struct {
	ID     string `json:"id"`
	Name   string `json:"name"`
	Status string `json:"status"` // passing, warning, critical or missing
	Output string `json:"output,omitempty"`
}

// EnvoyStatus is how the Envoy of a service is.
type EnvoyStatus struct {
	Ready            bool           `json:"ready"`
	Seen             string         `json:"seen,omitempty"`         // why it is not
	EarlyStream      bool           `json:"early_stream,omitempty"` // one was begun before it came
	CertificateFrom  *time.Time     `json:"certificate_from,omitempty"`
	CertificateUntil *time.Time     `json:"certificate_until,omitempty"`
	Listeners        []string       `json:"listeners,omitempty"` // name::address
	Clusters         map[string]int `json:"clusters,omitempty"`  // to how many healthy endpoints
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
func AskStatus(ctx context.Context, inst Instance) (Status, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*statusBudget)
	defer cancel()
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", inst.gate())
	if err != nil {
		return Status{
			Problems: []string{fmt.Sprintf("no proxy answers in this container (%v): `cf logs --recent` has the lines of %s", err, droplet.ProxySidecar)},
			Warnings: inst.warnings(),
		}, nil
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	var s Status
	if _, err := fmt.Fprintln(conn, askStatus); err != nil {
		return s, fmt.Errorf("failed to ask the proxy: %w", err)
	}
	if err := json.NewDecoder(conn).Decode(&s); err != nil {
		return Status{
			Problems: []string{fmt.Sprintf("%s does not say how it is: it hangs, or has just begun or ended", droplet.ProxySidecar)},
			Warnings: inst.warnings(),
		}, nil
	}
	return s, nil
}

// Healthy says whether everything that the instance has works.
func (s Status) Healthy() bool { return len(s.Problems) == 0 }

// statusBudget bounds the collection of a status, surveyBudget that of what can be
// asked for: where servers are silent, time has to be left for finding that out.
const (
	statusBudget = 5 * time.Second
	surveyBudget = 2 * time.Second
)

// status collects how everything is.
func (p *proxy) status(ctx context.Context) Status {
	ctx, cancel := context.WithTimeout(ctx, statusBudget)
	defer cancel()
	s := p.survey(ctx)
	s.Problems = p.diagnose(ctx, s)
	return s
}

// survey is a status without what may be the cause of it.
func (p *proxy) survey(ctx context.Context) Status {
	ctx, cancel := context.WithTimeout(ctx, surveyBudget)
	defer cancel()
	s := Status{
		App: p.inst.App, Process: p.inst.Process, Index: p.inst.Index,
		Stages: p.timeline.list(), Agent: AgentStatus{Node: p.inst.NodeName()},
		Services: make([]ServiceStatus, len(p.services)), Warnings: p.inst.warnings(),
	}
	var group sync.WaitGroup
	group.Go(func() {
		leader, err := p.consul.leader(ctx)
		s.Agent.Leader = leader
		if err != nil {
			s.Agent.Seen = err.Error()
		}
	})
	for i, r := range p.services {
		group.Go(func() { s.Services[i] = p.serviceStatus(ctx, r) })
	}
	group.Wait()
	return s
}

func (p *proxy) serviceStatus(ctx context.Context, r *registration) ServiceStatus {
	s := ServiceStatus{ID: r.ID}
	checks, err := p.registry.checks(ctx, r)
	s.Checks = checks
	if err != nil {
		s.Seen = err.Error()
	}
	upstreams := r.upstreams()
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
	if e := r.envoy.Load(); e != nil {
		s.Envoy = e.status(ctx)
		s.Envoy.EarlyStream = p.xds != nil && p.xds.early.served(droplet.SidecarID(r.ID))
	} else {
		s.Envoy.Seen = "it has not been started yet"
	}
	return s
}

func (p *proxy) upstreamStatus(ctx context.Context, r *registration, u upstream) UpstreamStatus {
	s := UpstreamStatus{Name: u.name, Address: u.local}
	destinations, err := p.consul.destinations(ctx, u)
	var instances []sidecarInstance
	for _, d := range destinations {
		var found []sidecarInstance
		if found, err = p.consul.instances(ctx, d); err != nil {
			break
		}
		instances = append(instances, found...)
		if !d.local {
			continue
		}
		var denied bool
		if denied, err = p.consul.denied(ctx, r.name, d.service); err != nil {
			break
		}
		s.Denied = s.Denied || denied
	}
	if err != nil {
		s.Unknown = err.Error()
	}
	s.Instances = len(instances)
	for _, instance := range instances {
		if instance.passing {
			s.Passing++
		}
		if instance.passing && instance.direct {
			s.sidecars = append(s.sidecars, instance.address)
		}
	}
	return s
}

func (e *envoy) status(ctx context.Context) EnvoyStatus {
	var s EnvoyStatus
	err := e.ready(ctx)
	s.Ready = err == nil
	from, until, certErr := e.validity(ctx)
	if certErr == nil && !until.IsZero() {
		s.CertificateFrom, s.CertificateUntil = &from, &until
	}
	listeners, listenersErr := e.listeners(ctx)
	s.Listeners = listeners
	clusters, clustersErr := e.clusters(ctx)
	s.Clusters = clusters
	for _, err := range []error{err, certErr, listenersErr, clustersErr} {
		if err != nil {
			s.Seen = err.Error()
			break
		}
	}
	return s
}
