package mesh

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/consul-mesh/mesh-buildpack/integration/cell"
	"github.com/consul-mesh/mesh-buildpack/integration/foundation"
)

// TestActivities is S11: one process with two services, each with a sidecar of
// its own, behind one agent or none.
func TestActivities(t *testing.T) { inBothModes(t, activities) }

func activities(t *testing.T, m mode) {
	m.start(t, m.fixture(t, "activities/todos", own("todos")))
	people := m.start(t, m.fixture(t, "activities/people", own("people")), "todos")
	portal := m.start(t, m.fixture(t, "activities/portal", own("echo")), "people")
	second := cell.Policy{Source: "portal", Destination: "people", Protocol: "tcp", Start: 21001}
	if err := shared.Allow(second); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = shared.Disallow(second) })

	t.Run("each is called through its own sidecar", func(t *testing.T) {
		for _, call := range []struct{ variable, path, want string }{
			{"MESH_UPSTREAM_USERS_ADDR", "/users/ann", `{"name":"ann","todos":["wake ann"]}`},
			{"MESH_UPSTREAM_ACTIVITIES_ADDR", "/activities/ann", `["ann goes for a walk"]`},
		} {
			address, err := shared.Route(deadline(t), "portal", "/env?name="+call.variable)
			if err != nil || address == "" {
				t.Fatalf("%s is %q: %v", call.variable, address, err)
			}
			eventually(t, call.path+" is answered", func(ctx ctx) error {
				answer, err := foundation.From(ctx, portal.Instance(0), "http://"+address+call.path)
				if err != nil {
					return err
				}
				if answer != call.want {
					return fmt.Errorf("the answer is %s, want %s", answer, call.want)
				}
				return nil
			})
		}
		for service, port := range map[string]int{"users": 21000, "activities": 21001} {
			healthy, err := shared.Healthy(t.Context(), service)
			want := fmt.Sprintf("%s:%d", people.Instance(0).Address(), port)
			if err != nil || len(healthy) != 1 || healthy[0] != want {
				t.Errorf("%s is in rotation at %v, want %s: %v", service, healthy, want, err)
			}
		}
	})

	t.Run("their checks are run in one place, every 5 s", func(t *testing.T) {
		for _, service := range []string{"users", "activities"} {
			type check struct{ Node, CheckID, Status, Type, Interval string }
			var checks []check
			if err := shared.Consul(t.Context(), "GET", "/v1/health/checks/"+service, nil, &checks); err != nil {
				t.Fatal(err)
			}
			want := check{nodeOf(people), service + ":health", "passing", "http", "5s"}
			if m.agents == 0 {
				want.Type, want.Interval = "", "" // those of an agent
			}
			if diff := cmp.Diff([]check{want}, checks); diff != "" {
				t.Errorf("checks of %s (-want +got):\n%s", service, diff)
			}
		}
		lines := commandLines(t, people.Instance(0))
		for part, want := range map[string]int{"consul agent": m.agents, "mesh agent": m.agents, "mesh proxy": 1, "mesh app": 1, "bin/envoy": 2} {
			if got := count(lines, part); got != want {
				t.Errorf("%d processes with %q, want %d:\n%s", got, part, want, strings.Join(lines, "\n"))
			}
		}
	})

	t.Run("a stop takes both out", func(t *testing.T) {
		if err := people.Stop(deadline(t)); err != nil {
			t.Fatal(err)
		}
		eventually(t, "both are out of the catalog", func(ctx ctx) error { return notListed(ctx, "users", "activities") })
	})
}

// notListed returns nil while the catalog has none of the services nor their
// sidecars.
func notListed(ctx ctx, names ...string) error {
	services, err := shared.Services(ctx)
	if err != nil {
		return err
	}
	for _, service := range services {
		for _, name := range names {
			if strings.TrimSuffix(service, "-sidecar-proxy") == name {
				return fmt.Errorf("the catalog has %s", service)
			}
		}
	}
	return nil
}

// TestWorker: a service without a port, in a process that is not the web one,
// calls its upstream. The web process of the same app is left alone.
func TestWorker(t *testing.T) { inBothModes(t, worker) }

func worker(t *testing.T, m mode) {
	m.start(t, m.fixture(t, "activities/todos", own("todos")))
	app := write(t, "mailing", map[string]string{
		"mesh.hcl": m.meshFile("mailer", `process = "worker"`, `upstream "todos" {}`),
		"Procfile": "web: exec ./echo\n" +
			"worker: exec env -u PORT ./echo -first http://$MESH_UPSTREAM_TODOS_ADDR/todos/worker\n",
	})
	app.Scale = map[string]int{"worker": 1}
	running := m.start(t, app, "todos")
	waitLog(t, running, "first 200")
	worker := running.InstanceOf("worker", 0)

	eventually(t, "the worker is in rotation", inRotation("mailer"))
	var entries []struct {
		Node           string
		ServicePort    int
		ServiceAddress string
	}
	if err := shared.Consul(t.Context(), "GET", "/v1/catalog/service/mailer", nil, &entries); err != nil {
		t.Fatal(err)
	}
	if len(entries) != 1 || entries[0].Node != "mailing-"+worker.GUID() || entries[0].ServicePort != 0 {
		t.Errorf("the catalog has %+v", entries)
	}
	lines := commandLines(t, worker)
	for part, want := range map[string]int{"consul agent": m.agents, "bin/envoy": 1, "mesh app": 1} {
		if got := count(lines, part); got != want {
			t.Errorf("%d processes with %q in the worker, want %d:\n%s", got, part, want, strings.Join(lines, "\n"))
		}
	}
	lines = commandLines(t, running.Instance(0))
	if count(lines, "mesh") > 0 || count(lines, "consul") > 0 || count(lines, "envoy") > 0 {
		t.Errorf("the web process is not left alone:\n%s", strings.Join(lines, "\n"))
	}

	if err := running.Stop(deadline(t)); err != nil {
		t.Fatal(err)
	}
	if killed := worker.Killed(); len(killed) > 0 {
		t.Errorf("the worker had to be killed: %v", killed)
	}
	eventually(t, "the worker is out of the catalog", func(ctx ctx) error { return notListed(ctx, "mailer") })
}
