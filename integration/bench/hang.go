package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"syscall"
	"time"

	"github.com/consul-mesh/mesh-buildpack/integration/cell"
	"github.com/consul-mesh/mesh-buildpack/integration/foundation"
)

// hang stops a process of an instance, which then answers nothing and refuses
// nothing, and lets it go on: how long until its caller's Envoy has heard of it,
// each time.
func hang(ctx context.Context, b *bench) ([]result, error) {
	slowest := map[string]map[way]float64{}
	for _, w := range []way{ours, agentless} {
		took, err := b.hangOne(ctx, w)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", w, err)
		}
		for name, seconds := range took {
			if slowest[name] == nil {
				slowest[name] = map[way]float64{}
			}
			slowest[name][w] = slices.Max(seconds)
		}
	}
	var results []result
	within := goal{atMost: 2}
	for _, name := range []string{"hang-app-out", "hang-app-back", "hang-envoy-out", "hang-envoy-back"} {
		r := result{Name: name, Unit: "s", Ours: slowest[name][ours]}
		results = append(results, r.aimedAt(within), r.agentless(slowest[name][agentless]).aimedAt(within))
	}
	agent := result{Name: "hang-agent-ended", Unit: "s", Ours: slowest["hang-agent-ended"][ours]}
	return append(results, agent.aimedAt(within)), nil
}

// hangOne gives the seconds of every run, by measure.
func (b *bench) hangOne(ctx context.Context, w way) (took map[string][]float64, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*patience)
	defer cancel()
	service, err := b.start(ctx, w, checkedService, "./echo", 1)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.gone(ctx, w, service)) }()
	calls, err := b.start(ctx, w, watcher, "./echo", 1)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.gone(ctx, w, calls)) }()
	if err := errors.Join(service.WaitRunning(ctx), calls.WaitRunning(ctx)); err != nil {
		return nil, err
	}
	h := &hanging{service.Instance(0), calls.Instance(0), w.name(checkedService)}
	if _, err := h.until(ctx, true); err != nil {
		return nil, err
	}
	took = map[string][]float64{}
	for i := range *runs {
		for _, part := range []foundation.Part{foundation.Echo, foundation.Envoy} {
			// What changed last is long over, and checks are anywhere in their interval.
			<-time.After(mergeWindow + rand.N(time.Second))
			out, back, err := h.once(ctx, part)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", part, err)
			}
			say("hang, run %d of %d, %s, %s: out after %.2f s, back after %.2f s", i+1, *runs, w, part, out, back)
			name := map[foundation.Part]string{foundation.Echo: "hang-app", foundation.Envoy: "hang-envoy"}[part]
			took[name+"-out"], took[name+"-back"] = append(took[name+"-out"], out), append(took[name+"-back"], back)
		}
	}
	if w == ours {
		var ended float64
		ended, err = h.agent(ctx)
		say("hang, %s: ended after %.2f s", foundation.Consul, ended)
		took["hang-agent-ended"] = []float64{ended}
	}
	return took, err
}

// hanging is an instance of a service, and its only caller.
type hanging struct {
	instance, caller *cell.Instance
	service          string
}

// once stops a part, and lets it go on when the caller knows.
func (h *hanging) once(ctx context.Context, part foundation.Part) (out, back float64, err error) {
	process, err := h.process(part)
	if err != nil {
		return 0, 0, err
	}
	if err := syscall.Kill(process, syscall.SIGSTOP); err != nil {
		return 0, 0, err
	}
	out, err = h.until(ctx, false)
	if err := errors.Join(err, syscall.Kill(process, syscall.SIGCONT)); err != nil {
		return 0, 0, err
	}
	back, err = h.until(ctx, true)
	return out, back, err
}

// agent stops the agent, which is then ended and started again.
func (h *hanging) agent(ctx context.Context) (seconds float64, err error) {
	process, err := h.process(foundation.Consul)
	if err != nil {
		return 0, err
	}
	begun := time.Now()
	if err := syscall.Kill(process, syscall.SIGSTOP); err != nil {
		return 0, err
	}
	err = foundation.Eventually(ctx, "the agent that hangs is ended", func(context.Context) error {
		if now, err := h.process(foundation.Consul); err == nil && now == process {
			return errors.New("it is there")
		}
		return nil
	})
	return time.Since(begun).Seconds(), err
}

func (h *hanging) process(part foundation.Part) (int, error) {
	parts, err := foundation.Parts(h.instance)
	if err == nil && parts[part].HostPid == 0 {
		err = fmt.Errorf("there is no %s", part)
	}
	return parts[part].HostPid, err
}

// until is how many seconds it takes until the caller's Envoy sends requests to
// the instance, or does not.
func (h *hanging) until(ctx context.Context, healthy bool) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	begun := time.Now()
	err := foundation.Eventually(ctx, "the caller knows", func(ctx context.Context) error {
		endpoints, err := foundation.Endpoints(ctx, h.caller, h.service)
		if err == nil && (endpoints[foundation.SidecarOf(h.instance)] == "healthy") != healthy {
			err = fmt.Errorf("the caller's Envoy has %v", endpoints)
		}
		return err
	})
	return time.Since(begun).Seconds(), err
}
