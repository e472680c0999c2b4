package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/consul-mesh/mesh-buildpack/integration/cell"
	"github.com/consul-mesh/mesh-buildpack/integration/foundation"
)

// idlers is how many instances without agents the servers' connections and requests
// are counted of.
const idlers = 10

// settling is how long after their start instances are idle.
const settling = 30 * time.Second

// idleConnections counts the connections that the servers' HTTP API has from idle
// instances, with TLS and without.
func idleConnections(ctx context.Context, b *bench) ([]result, error) {
	plain, closed, err := b.besideIdlers(ctx, "idle-connections", time.Minute, connections)
	if err != nil {
		return nil, err
	}
	return []result{
		result{Name: "idle-connections-agentless", Unit: "1/inst.", Ours: closed}.aimedAt(goal{atMost: 1}),
		result{Name: "idle-connections-plain-agentless", Unit: "1/inst.", Ours: plain}.aimedAt(goal{atMost: 2}),
	}, nil
}

// idleRequests counts what idle instances ask the servers for, in an open mesh, and in
// a closed one with a token for nodes and another for services.
func idleRequests(ctx context.Context, b *bench) ([]result, error) {
	open, closed, err := b.besideIdlers(ctx, "idle-requests", *idle, requests)
	if err != nil {
		return nil, err
	}
	return []result{
		result{Name: "idle-requests-agentless", Unit: "1/s/inst.", Ours: open}.aimedAt(goal{atMost: 0.25}),
		result{Name: "idle-requests-tokens-agentless", Unit: "1/s/inst.", Ours: closed}.aimedAt(goal{atMost: 0.30}),
	}, nil
}

// counting counts something at the servers for some time, beside idle instances.
type counting func(ctx context.Context, f *foundation.Foundation, long time.Duration) (float64, error)

// besideIdlers counts beside instances in an open mesh and in a closed one, for each
// instance.
func (b *bench) besideIdlers(ctx context.Context, what string, long time.Duration, count counting) (open, closed float64, err error) {
	if err := errors.Join(b.stopCallers(ctx), b.sweep(ctx)); err != nil {
		return 0, 0, err
	}
	app, err := b.start(ctx, agentless, idleService, "./echo", idlers)
	if err != nil {
		return 0, 0, err
	}
	open, err = countBeside(ctx, b.f, app, long, count)
	if err := errors.Join(err, b.gone(ctx, agentless, app)); err != nil {
		return 0, 0, fmt.Errorf("open: %w", err)
	}
	if app, err = b.startClosed(ctx); err != nil {
		return 0, 0, fmt.Errorf("closed: %w", err)
	}
	closed, err = countBeside(ctx, b.closed, app, long, count)
	say("%s: %.3g open, %.3g closed", what, open, closed)
	return open, closed, errors.Join(err, app.Delete(ctx))
}

// startClosed starts idle instances in a closed mesh, whose servers are started first.
func (b *bench) startClosed(ctx context.Context) (*cell.RunningApp, error) {
	const name = "closed-idle"
	if b.closed == nil {
		closed, err := b.f.Closed()
		if err != nil {
			return nil, err
		}
		if err := closed.StartServers(ctx); err != nil {
			return nil, err
		}
		b.closed = closed
	}
	dir, err := b.f.Write(map[string]string{"mesh.hcl": fmt.Sprintf("service %q {\n check \"health\" { http = \"/health\" }\n}\nconsul { mode = \"agentless\" }\n", name)})
	if err != nil {
		return nil, err
	}
	binding, err := b.closed.Binding(ctx, name, dir)
	if err != nil {
		return nil, err
	}
	if err := b.f.Allow(b.closed.AgentlessAccess(name)); err != nil {
		return nil, err
	}
	app := cell.App{
		Name: name, Dir: dir, Command: "./echo", Instances: idlers, HealthCheck: cell.HealthPort,
		Buildpacks: []cell.Buildpack{b.f.Mesh, b.f.Last}, VcapServices: foundation.Bind(binding),
	}
	droplet, err := b.f.Stage(ctx, app)
	if err != nil {
		return nil, err
	}
	return b.f.Start(ctx, app, droplet)
}

// countBeside waits until an app is idle and counts then, for each instance.
func countBeside(ctx context.Context, f *foundation.Foundation, app *cell.RunningApp, long time.Duration, count counting) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*patience+settling+long)
	defer cancel()
	if err := app.WaitRunning(ctx); err != nil {
		return 0, err
	}
	err := foundation.Eventually(ctx, "all instances pass their checks", func(ctx context.Context) error {
		healthy, err := f.Healthy(ctx, app.App().Name)
		if err == nil && len(healthy) != idlers {
			err = fmt.Errorf("%d of %d do", len(healthy), idlers)
		}
		return err
	})
	if err != nil {
		return 0, err
	}
	<-time.After(settling)
	counted, err := count(ctx, f, long)
	return counted / idlers, err
}

// connections is how many the servers' HTTP API has from apps, on average.
func connections(_ context.Context, f *foundation.Foundation, long time.Duration) (float64, error) {
	const often = 5 * time.Second
	http.DefaultClient.CloseIdleConnections() // which are the bench's own
	looks, all := 0, 0
	for begun := time.Now(); time.Since(begun) < long; looks++ {
		for _, server := range f.Servers.Instances() {
			for _, table := range []string{"/proc/1/net/tcp", "/proc/1/net/tcp6"} {
				text, err := server.ReadFile(table)
				if err != nil {
					return 0, err
				}
				all += established(string(text), f.APIPort())
			}
		}
		<-time.After(often)
	}
	if all == 0 {
		return 0, errors.New("the servers have no connection")
	}
	return float64(all) / float64(looks), nil
}

// established counts the open connections to a port in the kernel's table of sockets
// (proc_pid_net(5)).
func established(table string, port int) (n int) {
	for line := range strings.Lines(table) {
		fields := strings.Fields(line)
		const open = "01"
		if len(fields) > 3 && strings.HasSuffix(fields[1], fmt.Sprintf(":%04X", port)) && fields[3] == open {
			n++
		}
	}
	return n
}

// requests is how many the servers have answered in each second.
func requests(ctx context.Context, f *foundation.Foundation, long time.Duration) (float64, error) {
	token := ""
	if f.Secure != nil {
		token = f.Secure.Management
	}
	var servers []string
	for _, server := range f.Servers.Instances() {
		servers = append(servers, "http://"+server.Address()+":8080")
	}
	return answered(ctx, servers, token, long)
}

// answered is how many requests servers have answered in each second, by their own
// metrics, which are of ten seconds each.
func answered(ctx context.Context, servers []string, token string, long time.Duration) (float64, error) {
	const span, often = 10 * time.Second, 4 * time.Second
	all, spans := 0, map[string]bool{} // of each server
	for begun := time.Now(); time.Since(begun) < long; {
		for _, server := range servers {
			n, when, err := answeredBy(ctx, server, token)
			if err != nil {
				return 0, err
			}
			if key := server + when; !spans[key] {
				spans[key] = true
				all += n
			}
		}
		<-time.After(often)
	}
	if len(spans) == 0 {
		return 0, errors.New("the servers have no metrics")
	}
	return float64(all) * float64(len(servers)) / (float64(len(spans)) * span.Seconds()), nil
}

// answeredBy is how many requests a server answered in the last span, and which span
// that is. Those for its metrics are left out.
func answeredBy(ctx context.Context, server, token string) (n int, when string, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, server+"/v1/agent/metrics", nil)
	if err != nil {
		return 0, "", err
	}
	if token != "" {
		request.Header.Set("X-Consul-Token", token)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	var metrics struct {
		Timestamp string
		Samples   []struct {
			Name   string
			Count  int
			Labels map[string]string
		}
	}
	if err := json.NewDecoder(response.Body).Decode(&metrics); err != nil {
		return 0, "", fmt.Errorf("%s: %w", response.Status, err)
	}
	for _, sample := range metrics.Samples {
		if sample.Name == "consul.api.http" && !strings.Contains(sample.Labels["path"], "agent_metrics") {
			n += sample.Count
		}
	}
	return n, metrics.Timestamp, nil
}
