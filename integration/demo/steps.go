package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/consul-mesh/mesh-buildpack/integration/foundation"
)

type demo struct {
	*foundation.Foundation
}

func (d *demo) steps() []step {
	hotrod := []string{"frontend", "customer", "driver", "route"}
	steps := []step{
		{"three Consul servers elect a leader", []string{foundation.ServersApp}, d.servers},
		{"HotROD is pushed, four apps", append(hotrod, foundation.ServersApp), d.push},
		{"the first dispatch through the mesh", hotrod, d.firstDispatch},
		{"customer's app port, without a policy", []string{"frontend", "customer"}, d.direct},
		{"a deny intention takes effect", []string{"frontend", "customer"}, d.deny},
		{"the intention is lifted", []string{"frontend", "customer"}, d.allow},
		{"frontend starts again, one request later", []string{"frontend"}, d.restart},
	}
	if !*keep {
		steps = append(steps, step{"HotROD is stopped", hotrod, d.stop})
	}
	return steps
}

func (d *demo) servers(ctx context.Context) (string, error) {
	if err := d.StartServers(ctx); err != nil {
		return "", err
	}
	nodes, err := d.Nodes(ctx)
	slices.Sort(nodes)
	return "nodes: " + strings.Join(nodes, " "), err
}

func (d *demo) push(ctx context.Context) (string, error) {
	if err := d.PushHotROD(ctx); err != nil {
		return "", err
	}
	saw := fmt.Sprintf("%d network policies", len(d.HotRODPolicies()))
	if d.Agentless {
		saw += fmt.Sprintf(" for it, where agents would need %d", len(foundation.MeshPolicies(foundation.HotRODUpstreams)))
	}
	return saw, nil
}

func (d *demo) firstDispatch(ctx context.Context) (answer string, err error) {
	err = foundation.Eventually(ctx, "/dispatch answers with a driver", func(ctx context.Context) (err error) {
		_, answer, err = d.Dispatch(ctx)
		return err
	})
	return "/dispatch?customer=123 answers " + answer, err
}

// customerPath is a request that the customer service answers by itself.
const customerPath = "/customer?customer=123"

// call has the frontend's container ask customer through the mesh.
func (d *demo) call(ctx context.Context) (string, error) {
	return foundation.From(ctx, d.App("frontend").Instance(0), "http://127.0.0.1:8081"+customerPath)
}

func (d *demo) direct(ctx context.Context) (string, error) {
	customer := d.App("customer").Instance(0).Address()
	_, err := foundation.From(ctx, d.App("frontend").Instance(0), "http://"+customer+":8080"+customerPath)
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return "", fmt.Errorf("a direct connection to %s:8080 was not refused: %w", customer, err)
	}
	answer, err := d.call(ctx)
	return fmt.Sprintf("direct to %s:8080: %v\n    through the mesh: %s", customer, syscall.ECONNREFUSED, answer), err
}

// deny measures from the moment the intention is written to the first refused
// request.
func (d *demo) deny(ctx context.Context) (string, error) {
	// A pooled connection judges one more request by the old policy: that one
	// is spent before.
	if _, err := d.call(ctx); err != nil {
		return "", err
	}
	if err := d.Intention(ctx, "frontend", "customer", "deny"); err != nil {
		return "", err
	}
	begun := time.Now()
	var refused *foundation.StatusError
	err := foundation.Eventually(ctx, "a request is refused", func(ctx context.Context) error {
		_, err := d.call(ctx)
		if errors.As(err, &refused) && refused.Status == 403 {
			return nil
		}
		return fmt.Errorf("the answer is still there: %v", err)
	})
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("after %d ms the caller gets %d %s", time.Since(begun).Milliseconds(), refused.Status, refused.Text), nil
}

func (d *demo) allow(ctx context.Context) (string, error) {
	lift := d.RemoveIntentions
	if d.Secure != nil { // without an intention nobody gets through
		lift = func(ctx context.Context, destination string) error {
			return d.Intention(ctx, "frontend", destination, "allow")
		}
	}
	if err := lift(ctx, "customer"); err != nil {
		return "", err
	}
	begun := time.Now()
	err := foundation.Eventually(ctx, "a request is answered", func(ctx context.Context) error {
		_, err := d.call(ctx)
		return err
	})
	return fmt.Sprintf("after %d ms the caller gets 200", time.Since(begun).Milliseconds()), err
}

// restart measures what an author feels: from the start of the container to
// the first request through the mesh.
func (d *demo) restart(ctx context.Context) (string, error) {
	frontend := d.App("frontend")
	if err := frontend.Restart(ctx); err != nil {
		return "", err
	}
	var took time.Duration
	err := foundation.Eventually(ctx, "frontend reaches customer", func(ctx context.Context) error {
		_, err := d.call(ctx)
		took = time.Since(frontend.Instance(0).StartedAt())
		return err
	})
	return fmt.Sprintf("first request through the mesh %.2f s after the start of the container", took.Seconds()), err
}

func (d *demo) stop(ctx context.Context) (string, error) {
	var group errgroup.Group
	begun := time.Now()
	for name := range foundation.HotRODUpstreams {
		group.Go(func() error { return d.App(name).Stop(ctx) })
	}
	if err := group.Wait(); err != nil {
		return "", err
	}
	took := time.Since(begun)
	// Servers act on a leave when gossip has told all of them.
	err := foundation.Eventually(ctx, "the catalog is clean", d.CatalogEmpty)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("in %.1f s; %.1f s after the order no service and no node of it is left in the catalog",
		took.Seconds(), time.Since(begun).Seconds()), nil
}
