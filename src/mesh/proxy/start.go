package proxy

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/consul-mesh/mesh-buildpack/src/droplet"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/consul"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/instance"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/registry"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/wait"
)

// start goes through the steps up to a ready Envoy for every service.
func (p *proxy) start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, p.Config.Lifecycle.StartTimeout)
	defer cancel()
	steps, err := p.registry.Steps(ctx)
	if err != nil {
		return err
	}
	if err := p.timeline.AwaitAll(ctx, steps); err != nil {
		return err
	}
	p.NoteJoined()
	if err := p.timeline.AwaitAll(ctx, p.Access.Steps()); err != nil {
		return err
	}
	swept := make(chan struct{})
	go func() {
		defer close(swept)
		if p.Config.Task == nil { // which nobody calls
			p.SweepAddress(ctx)
		}
	}()
	for _, r := range p.Services {
		if err := p.startService(ctx, r); err != nil {
			return fmt.Errorf("service %s: %w", r.ID, err)
		}
	}
	group, together := errgroup.WithContext(ctx)
	for _, e := range p.envoys {
		group.Go(func() error {
			err := p.timeline.Await(together, wait.Step{
				Name:      e.service.ID + ": xDS, Envoy knows what to do",
				Hint:      "the lines of Envoy above say why; its admin API is " + e.Admin,
				Condition: p.configured(e),
			})
			if err != nil {
				return err
			}
			return p.timeline.Await(together, wait.Step{
				Name:      e.service.ID + ": Envoy ready",
				Hint:      "the lines of Envoy above say why; its admin API is " + e.Admin,
				Condition: e.Ready,
			})
		})
	}
	err = group.Wait()
	<-swept
	return err
}

// configured returns a condition: Envoy has taken what Consul tells it. Where
// that goes through the relay, Envoy is not asked before it has been told.
func (p *proxy) configured(e *served) func(context.Context) error {
	condition := e.Configured()
	if p.XDS == nil {
		return condition
	}
	told := p.XDS.First.Answered(droplet.SidecarID(e.service.ID))
	return func(ctx context.Context) error {
		select {
		case <-told:
		case <-e.Exited:
		case <-ctx.Done():
		case <-time.After(instance.CountersAfter): // they may say why not
		}
		return condition(ctx)
	}
}

// explainBudget bounds the search for the cause of a failed start.
const explainBudget = instance.StatusBudget

// explain gives a step that did not come true its likely causes as hints.
func (p *proxy) explain(err error) error {
	var failed *wait.StepError
	if !errors.As(err, &failed) {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), explainBudget)
	defer cancel()
	hints := p.startCauses(ctx, p.survey(ctx))
	if len(hints) == 1 && strings.Contains(hints[0], failed.Seen.Error()) {
		return err
	}
	if len(hints) == 0 {
		if failed.Step.Hint != "" {
			hints = append(hints, failed.Step.Hint)
		}
		if lines := p.journals(); len(lines) > 0 {
			hints = append(hints, "the last warning was: "+strings.Trim(lines[len(lines)-1], ": "))
		}
	}
	for _, hint := range hints {
		err = fmt.Errorf("%w\nhint: %s", err, hint)
	}
	return err
}

// startService registers one service and starts its Envoy.
func (p *proxy) startService(ctx context.Context, r *registry.Registration) error {
	err := p.timeline.Await(ctx, wait.Step{
		Name: r.ID + ": registered",
		Hint: "Consul refuses the registration; with ACLs on, the service needs a token with service:write",
		Condition: consul.Patient(func(ctx context.Context) error {
			return p.registry.Register(ctx, r)
		}),
		Bounded: true,
	})
	if err != nil {
		return err
	}
	r.Registered.Store(true)
	p.declareDefaults(ctx, r)
	var bootstrap []byte
	err = p.timeline.Await(ctx, wait.Step{
		Name: r.ID + ": bootstrapped",
		Hint: "Consul does not tell what Envoy needs to start",
		Condition: func(ctx context.Context) (err error) {
			bootstrap, err = p.registry.Bootstrap(ctx, r)
			return err
		},
	})
	if err != nil {
		return err
	}
	if err := r.MakeSocketFolders(); err != nil {
		return err
	}
	e, err := p.startEnvoy(p.Inst, p.Config.Envoy, r.EnvoySidecar(), bootstrap)
	if err != nil {
		return err
	}
	p.envoys = append(p.envoys, &served{Envoy: e, service: r})
	p.started.Store(r.ID, e)
	return nil
}

// declareDefaults lets callers know the protocol, and Consul the extensions of
// Envoy. Calls work without, as plain TCP, so a failure is said and not fatal.
func (p *proxy) declareDefaults(ctx context.Context, r *registry.Registration) {
	ctx, cancel := context.WithTimeout(ctx, instance.AsideBudget)
	defer cancel()
	mine := consul.ServiceDefaults{Kind: "service-defaults", Name: r.Name, Protocol: r.Protocol, EnvoyExtensions: r.EnvoyExtensions}
	if mine.Protocol == "" && mine.EnvoyExtensions == nil {
		return
	}
	var there consul.ServiceDefaults
	err := consul.WhilePasses(ctx, func(ctx context.Context) (err error) {
		there, err = p.Consul.EnsureDefaults(ctx, mine)
		return err
	})
	if err != nil {
		p.Log("%s: failed to declare its protocol and Envoy extensions, callers may treat it as tcp: %v", r.ID, err)
		return
	}
	if mine.Protocol != "" && mine.Protocol != there.Protocol {
		p.Log("%s: mesh.hcl says protocol %s, but the service-defaults entry in Consul says %q and is left alone", r.ID, mine.Protocol, there.Protocol)
	}
	for _, e := range mine.EnvoyExtensions {
		same := func(other droplet.EnvoyExtension) bool { return reflect.DeepEqual(e, other) }
		if !slices.ContainsFunc(there.EnvoyExtensions, same) {
			p.Log("%s: the Envoy extension %s of mesh.hcl is not in the service-defaults entry in Consul, which is left alone: write it there, or delete the entry and restart",
				r.ID, e.Name)
		}
	}
}
