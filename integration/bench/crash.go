package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"syscall"
	"time"

	"github.com/consul-mesh/mesh-buildpack/integration/foundation"
	"github.com/consul-mesh/mesh-buildpack/integration/load"
)

// crash kills the app, and Envoy, of one of three instances under load, and
// counts the requests that are lost until all three are back.
func crash(ctx context.Context, b *bench) ([]result, error) {
	var results []result
	for _, c := range []struct {
		name string
		part foundation.Part
	}{{"crash-app-lost", foundation.Echo}, {"crash-envoy-lost", foundation.Envoy}} {
		lost := map[way][]float64{}
		for i := range crashRuns() {
			for _, w := range []way{ours, agentless, naive} {
				r, err := b.crashOne(ctx, w, c.part)
				if err != nil {
					return results, fmt.Errorf("%s, %s: %w", w, c.part, err)
				}
				say("%s, run %d of %d, %s: %v", c.name, i+1, crashRuns(), w, r)
				lost[w] = append(lost[w], float64(r.Lost))
			}
		}
		r := result{Name: c.name, Unit: "requests", Ours: slices.Max(lost[ours])}
		results = append(results,
			r.against(at(slices.Max(lost[naive])), nil).aimedAt(goal{atMost: 15}),
			r.agentless(slices.Max(lost[agentless])).aimedAt(goal{atMost: 15}))
	}
	return results, nil
}

func crashRuns() int { return min(*runs, 2) }

func (b *bench) crashOne(ctx context.Context, w way, part foundation.Part) (load.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*patience)
	defer cancel()
	app, err := b.serve(ctx, w, webService, "./echo", 3)
	if err != nil {
		return load.Result{}, err
	}
	l := b.load(w, load.HTTP, crashRate)
	<-time.After(time.Second)
	err = func() error {
		parts, err := foundation.Parts(app.Instance(0))
		if err != nil {
			return err
		}
		process, found := parts[part]
		if !found {
			return fmt.Errorf("there is no %s", part)
		}
		if err := syscall.Kill(process.HostPid, syscall.SIGKILL); err != nil {
			return err
		}
		// The instance has to be another one before all can be back.
		if err := ended(ctx, app.Instance(0).Done()); err != nil {
			return err
		}
		if err := app.WaitRunning(ctx); err != nil {
			return err
		}
		return b.inRotation(ctx, w, webService, app)
	}()
	return l.Stop(), errors.Join(err, b.gone(ctx, w, app))
}

func ended(ctx context.Context, done <-chan struct{}) error {
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// silence is how long callers are given to notice that an instance is gone.
const silence = 20 * time.Second

// silenced is what was seen of an instance that went silent, from then.
type silenced struct {
	failing float64 // seconds until the last request that was lost
	listed  float64 // seconds until the catalog had no such healthy instance
	lost    float64
}

// crashInstance makes one of three instances silent, as a cell that lost its
// power: nothing is refused, nobody answers. Ours have the config entries that
// docs/performance.md names, naive has none.
func crashInstance(ctx context.Context, b *bench) ([]result, error) {
	for _, w := range []way{ours, agentless} {
		if err := b.writeEntries(ctx, w); err != nil {
			return nil, err
		}
	}
	worst := map[way]silenced{}
	for i := range crashRuns() {
		for _, w := range []way{ours, agentless, naive} {
			s, err := b.silenceOne(ctx, w)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", w, err)
			}
			say("crash-instance, run %d of %d, %s: %.0f lost, the last after %.2f s, out of the catalog after %.2f s",
				i+1, crashRuns(), w, s.lost, s.failing, s.listed)
			worst[w] = silenced{max(worst[w].failing, s.failing), max(worst[w].listed, s.listed), max(worst[w].lost, s.lost)}
		}
	}
	agent, without, other := worst[ours], worst[agentless], worst[naive]
	seconds := result{Name: "crash-instance-seconds", Unit: "s", Ours: agent.failing}
	listed := result{Name: "crash-instance-listed", Unit: "s", Ours: agent.listed}
	return []result{
		seconds.against(&other.failing, nil).aimedAt(goal{ofNaive: 1.0 / 3}),
		listed.against(&other.listed, nil),
		seconds.agentless(without.failing),
		result{Name: "crash-instance-lost", Unit: "requests", Ours: agent.lost}.agentless(without.lost),
		listed.agentless(without.listed).aimedAt(goal{atMost: 20}),
	}, errors.Join(b.removeEntries(ctx, ours), b.removeEntries(ctx, agentless))
}

func (b *bench) silenceOne(ctx context.Context, w way) (silenced, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*patience)
	defer cancel()
	app, err := b.serve(ctx, w, webService, "./echo", 3)
	if err != nil {
		return silenced{}, err
	}
	l := b.load(w, load.HTTP, crashRate)
	<-time.After(time.Second)
	began := time.Now()
	victim := app.Instance(0)
	_, err = b.f.Silence(victim)
	var s silenced
	if err == nil {
		err = foundation.Eventually(ctx, "the silent instance is out of the catalog", func(ctx context.Context) error {
			listed, err := b.f.Healthy(ctx, w.name(webService))
			if err == nil && slices.Contains(listed, foundation.SidecarOf(victim)) {
				err = fmt.Errorf("the catalog has %v", listed)
			}
			return err
		})
		s.listed = time.Since(began).Seconds()
		<-time.After(silence - time.Since(began))
	}
	r := l.Stop()
	victim.Kill() // it would wait in vain for servers that do not hear it
	if r.Lost > 0 {
		s.failing, s.lost = r.LastLoss.Sub(began).Seconds(), float64(r.Lost)
	}
	return s, errors.Join(err, b.gone(ctx, w, app))
}

// writeEntries are what an operator can have callers do about an instance that
// does not answer: repeat elsewhere, and leave it alone for a while. Requests
// that change something are repeated too, so it is an offer and no default.
func (b *bench) writeEntries(ctx context.Context, w way) error {
	for _, entry := range []map[string]any{
		{"Kind": "service-defaults", "Name": w.name(webService), "Protocol": "http"},
		{"Kind": "service-router", "Name": w.name(webService), "Routes": []any{map[string]any{
			"Destination": map[string]any{
				"NumRetries": 3, "RetryOn": []string{"connect-failure", "refused-stream", "reset"},
				"RetryOnStatusCodes": []int{http.StatusServiceUnavailable},
			},
		}}},
		{"Kind": "service-defaults", "Name": w.name(caller), "UpstreamConfig": map[string]any{
			"Defaults": map[string]any{
				"ConnectTimeoutMs": 500,
				"PassiveHealthCheck": map[string]any{
					"Interval": "1s", "MaxFailures": 1, "EnforcingConsecutive5xx": 100, "MaxEjectionPercent": 50,
				},
			},
		}},
	} {
		if err := b.f.Consul(ctx, http.MethodPut, "/v1/config", entry, nil); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) removeEntries(ctx context.Context, w way) error {
	for _, entry := range []string{"service-router/" + w.name(webService), "service-defaults/" + w.name(caller)} {
		if err := b.f.Consul(ctx, http.MethodDelete, "/v1/config/"+entry, nil, nil); err != nil {
			return err
		}
	}
	return nil
}
