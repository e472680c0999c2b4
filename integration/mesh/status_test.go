package mesh

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/consul-mesh/mesh-buildpack/integration/binaries"
	"github.com/consul-mesh/mesh-buildpack/integration/cell"
	"github.com/consul-mesh/mesh-buildpack/src/droplet"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/proxy"
)

// statusOf is the status of an instance that runs.
func statusOf(t *testing.T, app *cell.RunningApp) (s proxy.Status, text string, code int) {
	t.Helper()
	s, text, code, err := askStatus(deadline(t), app)
	if err != nil {
		t.Fatal(err)
	}
	return s, text, code
}

// askStatus runs `mesh status` as the docs say: cf ssh APP -c PROGRAM.
func askStatus(ctx context.Context, app *cell.RunningApp) (s proxy.Status, text string, code int, err error) {
	const program = "/home/vcap/deps/*/bin/mesh status"
	output, _, err := app.Instance(0).SSH(ctx, program+" -json")
	if err != nil {
		return s, "", 0, err
	}
	if err := json.Unmarshal([]byte(output), &s); err != nil {
		return s, "", 0, fmt.Errorf("%w: %s", err, output)
	}
	text, exit, err := app.Instance(0).SSH(ctx, program)
	return s, text, exit.Code, err
}

// statusNames waits until the status of an instance, which may fail to start again
// and again, names a problem.
func statusNames(t *testing.T, app *cell.RunningApp, want string) {
	t.Helper()
	eventually(t, "the status names the cause: "+want, func(ctx ctx) error {
		s, text, code, err := askStatus(ctx, app)
		if err != nil {
			return err
		}
		for _, problem := range s.Problems {
			if strings.Contains(problem, want) && code == 1 {
				t.Log(problem)
				return nil
			}
		}
		return fmt.Errorf("exit status %d:\n%s", code, text)
	})
}

// TestStatus: a healthy instance says so, and each thing that goes wrong is
// named with its likely cause.
func TestStatus(t *testing.T) { inBothModes(t, statusTellsWhy) }

func statusTellsWhy(t *testing.T, m mode) {
	service, caller := m.pair(t, 1)
	eventually(t, "the instance is healthy", func(ctx) error {
		s, text, code := statusOf(t, caller)
		t.Log(text)
		if code != 0 || !s.Healthy() {
			return fmt.Errorf("exit status %d:\n%s", code, text)
		}
		return nil
	})
	s, text, _ := statusOf(t, caller)
	first := "agent up"
	if m.agents == 0 {
		first = "servers answer, leader known"
	}
	for _, want := range []string{"verdict", "healthy", "stage", first, "passing, in rotation", "1 of 1 instances passing", "certificate", "listener"} {
		if !strings.Contains(text, want) {
			t.Errorf("the text lacks %q:\n%s", want, text)
		}
	}
	// Servers may have streams enough, and refuse one.
	other, _, _ := statusOf(t, service)
	if early := s.Services[0].Envoy.EarlyStream || other.Services[0].Envoy.EarlyStream; early != (m.agents == 0) {
		t.Errorf("an Envoy went on with the stream that was begun for it: %v", early)
	}
	if until := s.Services[0].Envoy.CertificateUntil; until == nil {
		t.Error("it does not say until when the certificate is")
	}
	problem := func(want string) {
		t.Helper()
		statusNames(t, caller, want)
	}
	if err := shared.Intention(t.Context(), m.front, m.back, "deny"); err != nil {
		t.Fatal(err)
	}
	problem("intentions deny calls to " + m.back)
	if err := shared.RemoveIntentions(t.Context(), m.back); err != nil {
		t.Fatal(err)
	}
	if err := caller.Instance(0).SetClock(-time.Hour); err != nil {
		t.Fatal(err)
	}
	problem("the clock of the servers is ahead of this one")
	if err := caller.Instance(0).SetClock(0); err != nil {
		t.Fatal(err)
	}
	upstream := cell.Policy{Source: m.front, Destination: m.back, Protocol: "tcp", Start: 21000}
	if err := shared.Disallow(upstream); err != nil {
		t.Fatal(err)
	}
	problem("is there a network policy from this app to it for 21000 tcp?")
	if m.agents == 0 { // an agent would put it back
		lost := map[string]string{"Node": m.front + "-" + caller.Instance(0).GUID(), "CheckID": droplet.ReadyCheckID(m.front)}
		if err := shared.Consul(t.Context(), http.MethodPut, "/v1/catalog/deregister", lost, nil); err != nil {
			t.Fatal(err)
		}
		problem("Consul does not have the check")
	}
	if err := service.Stop(deadline(t)); err != nil {
		t.Fatal(err)
	}
	problem("upstream " + m.back + " has no instance")
}

// failedStart is an app whose mesh does not get ready in time.
type failedStart struct {
	mode mode
	app  cell.App
	want string // what the status names while it waits, and the log at last
	seen string
}

// TestFailedStarts: a mesh that does not get ready in time ends the instance
// and names the cause, which the status has named before, and the app never runs.
func TestFailedStarts(t *testing.T) { inBothModes(t, failedStarts) }

func failedStarts(t *testing.T, m mode) {
	taken := m.echo(t, "taken", `upstream "taken-by" { port = 9001 }`)
	profile := "(PORT=9001 ./echo -bind 127.0.0.1 > /dev/null 2>&1 &)\n"
	if err := os.WriteFile(filepath.Join(taken.Dir, ".profile"), []byte(profile), 0o644); err != nil {
		t.Fatal(err)
	}
	elsewhere, nowhere, alone := m, m, m
	elsewhere.consul = "consul { datacenter = \"dc9\" }\n"
	tests := []failedStart{
		{m, taken, "another process of the app listens on a port of mesh.hcl", ""},
		{m, m.oldEnvoy(t), "Envoy is too old for this Consul", ""},
	}
	if m.agents > 0 {
		rpcAlone, gossipAlone := m, m
		only := func(port int) func(map[string][]string) []cell.Policy {
			return func(upstreams map[string][]string) []cell.Policy {
				return slices.DeleteFunc(m.policies(upstreams), func(p cell.Policy) bool { return p.Start != port })
			}
		}
		rpcAlone.policies, gossipAlone.policies = only(8300), only(8301)
		nowhere.consul = "consul {\n  datacenter = \"cf\"\n  retry_join = [\"nowhere.apps.internal\"]\n}\n"
		tests = append(tests,
			failedStart{elsewhere, elsewhere.echo(t, "elsewhere"), "the servers are of another datacenter", ""},
			failedStart{nowhere, nowhere.echo(t, "nowhere"), "nowhere.apps.internal, the address of the servers, does not resolve", ""},
			failedStart{rpcAlone, rpcAlone.echo(t, "rpc-alone"), "no server can be reached on 8301", "the agent has joined no Consul server: Failed to join "},
			failedStart{gossipAlone, gossipAlone.echo(t, "gossip-alone"), "no server can be reached on 8300", ""})
	} else {
		nowhere.consul = "consul {\n  mode = \"agentless\"\n  addresses = [\"nowhere.apps.internal\"]\n}\n"
		alone.policies = func(map[string][]string) []cell.Policy { return nil }
		tests = append(tests,
			failedStart{nowhere, nowhere.echo(t, "nowhere"), "nowhere.apps.internal, the address of the servers, does not resolve", ""},
			failedStart{alone, alone.echo(t, "alone"), "no server can be reached on 8080", ""})
	}
	var launched []*cell.RunningApp
	for _, test := range tests {
		launched = append(launched, test.launch(t))
	}
	for i, test := range tests {
		t.Run(test.app.Name, func(t *testing.T) {
			t.Parallel()
			statusNames(t, launched[i], test.want)
			waitLog(t, launched[i], "mesh: failed: not ")
			waitLog(t, launched[i], "hint: "+test.want)
			waitLog(t, launched[i], "last seen: "+test.seen)
			for _, line := range launched[i].Logs() {
				if strings.Contains(line.Text, "the-app-ran") {
					t.Error("the app was started without its mesh")
				}
			}
		})
	}
}

// oldEnvoy is an app that brings an Envoy of its own: the real one, with a
// version that no Consul supports in place of its own, which is once in it.
func (m mode) oldEnvoy(t *testing.T) cell.App {
	t.Helper()
	const old = "1.08.2"
	app := m.echo(t, "old-envoy")
	program, err := os.ReadFile(shared.Binaries.Envoy())
	if err != nil {
		t.Fatal(err)
	}
	version := []byte(binaries.EnvoyVersion)
	if n := bytes.Count(program, version); n != 1 || len(version) != len(old) {
		t.Fatalf("%s is %d times in Envoy, and %s takes its place", version, n, old)
	}
	path := filepath.Join(app.Dir, "envoy-old")
	t.Cleanup(func() { _ = os.Remove(path) }) // a hundred megabytes of memory
	if err := os.WriteFile(path, bytes.Replace(program, version, []byte(old), 1), 0o755); err != nil {
		t.Fatal(err)
	}
	appendMesh(t, app, "envoy { source = \"./envoy-old\" }\n")
	return app
}

// launch has the app give up soon, and say so if it ever runs.
func (f failedStart) launch(t *testing.T) *cell.RunningApp {
	t.Helper()
	appendMesh(t, f.app, "lifecycle { start_timeout = \"10s\" }\n")
	if err := os.WriteFile(filepath.Join(f.app.Dir, "Procfile"), []byte("web: echo the-app-ran; ./echo\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return f.mode.launch(t, f.app)
}

// appendMesh adds blocks to an app's mesh.hcl.
func appendMesh(t *testing.T, app cell.App, blocks string) {
	t.Helper()
	path := filepath.Join(app.Dir, "mesh.hcl")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, append(text, blocks...), 0o644); err != nil {
		t.Fatal(err)
	}
}
