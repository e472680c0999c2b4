package registry

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/consul-mesh/mesh-buildpack/src/droplet"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/consul"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/instance"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/meshtest"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/wait"
)

// TestBody: callers hear of a sidecar's port when it has passed, whose Envoy
// listens there all the time.
func TestBody(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name         string
		config       map[string]any
		state        string
		shown, works bool
		want         string // port, bind_port, state, number of checks
	}{
		{"a start", nil, "", false, false, "9 21000 critical 0"},
		{"its own bind_port", map[string]any{"bind_port": 21500, "protocol": "http"}, "", false, false, "9 21500 critical 0"},
		{"the app works", nil, consul.Critical, false, true, "9 21000 critical 1"},
		{"all works", nil, consul.Passing, false, true, "21000 <nil> passing 1"},
		{"Envoy hangs later", nil, consul.Critical, true, true, "21000 <nil> critical 1"},
		{"an agent that has started again", nil, "", true, true, "21000 <nil> critical 1"},
	} {
		r := &Registration{
			Service: droplet.Service{ID: "a"}, definition: droplet.Definition{Endpoint: droplet.Endpoint{ID: "a", Checks: []droplet.Check{{CheckID: "a:h"}}}},
		}
		*r.sidecar() = droplet.Sidecar{
			Endpoint: droplet.Endpoint{Port: 21000, Checks: []droplet.Check{{CheckID: droplet.ReadyCheckID("a"), Status: consul.Critical}}},
			Proxy:    droplet.Proxy{Config: c.config},
		}
		r.shown.Store(c.shown)
		r.Works.Store(c.works)
		before := fmt.Sprint(droplet.API(r.definition))
		body := r.body(c.state)
		sidecar := body.Connect.SidecarService
		got := fmt.Sprintln(sidecar.Port, sidecar.Proxy.Config["bind_port"], sidecar.Checks[0].Status, len(body.Checks))
		if got = strings.TrimSpace(got); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
		if fmt.Sprint(droplet.API(r.definition)) != before {
			t.Errorf("%s: the definition has changed", c.name)
		}
	}
}

const webApp = `{"application_name":"My App!","process_type":"web","space_name":"prod","organization_name":"acme"}`

func TestRegistrationFollowsPORT(t *testing.T) {
	t.Parallel()
	const services = `{"services": [{"id": "a", "name": "a", "port": 8080,
		"checks": [{"id": "a:h", "name": "h", "http": "http://127.0.0.1:8080/h", "deregister_critical_service_after": "1m"}],
		"tagged_addresses": {"wan": {"address": "192.0.2.2", "port": 8080}, "lan": {"address": "192.0.2.3", "port": 80}},
		"connect": {"sidecar_service": {"port": 21000,
			"checks": [{"id": "r", "ttl": "10s"}, {"id": "s", "alias_service": "x"}, {"id": "t", "tcp": "127.0.0.1:8080"}],
			"proxy": {"config": {"protocol": "http"}, "expose": {"paths": [{"path": "/a", "local_path_port": 8080}, {"path": "/b", "local_path_port": 9999}]}}}}}]}`
	for port, want := range map[string]int{"8080": 8080, "9090": 9090, "": 8080} {
		inst := meshtest.InstanceOf(t, map[string]string{
			"service.json": services,
			"mesh.json":    `{"services": [{"id": "a", "process": "web", "follows_port": true}, {"id": "b", "process": "worker"}]}`,
		}, map[string]string{"VCAP_APPLICATION": webApp, "PORT": port})
		config, err := inst.Config()
		if err != nil {
			t.Fatal(err)
		}
		all, err := Registrations(inst, config)
		if err != nil {
			t.Fatal(err)
		}
		if len(all) != 1 {
			t.Fatalf("PORT=%s: %d services for the process web", port, len(all))
		}
		r := all[0]
		if got := fmt.Sprint(r.definition.Port); got != fmt.Sprint(want) {
			t.Errorf("PORT=%s: registered port %s", port, got)
		}
		if r.address != fmt.Sprintf("127.0.0.1:%d", want) || r.Protocol != "http" || r.SidecarPort != 21000 {
			t.Errorf("PORT=%s: %+v", port, r)
		}
		check := map[string]any{
			"ID": "a:h", "Name": "h", "HTTP": fmt.Sprintf("http://127.0.0.1:%d/h", want),
			"DeregisterCriticalServiceAfter": "1m", "ServiceID": "a", "Status": "passing",
		}
		if diff := cmp.Diff(check, r.alone(r.definition.Checks[0])); diff != "" || len(r.definition.Checks) != 1 {
			t.Errorf("PORT=%s: of %d checks the first (-want +got):\n%s", port, len(r.definition.Checks), diff)
		}
		if len(r.body("").Checks) > 0 {
			t.Error("the app's checks are registered before they have passed")
		}
		sidecar := r.sidecar()
		if diff := cmp.Diff([]any{
			map[string]any{"CheckID": "r", "TTL": "10s"}, map[string]any{"CheckID": "s", "AliasService": "x", "Status": "passing"},
			map[string]any{"CheckID": "t", "TCP": fmt.Sprintf("127.0.0.1:%d", want)},
		}, droplet.API(*sidecar)["Checks"]); diff != "" {
			t.Errorf("the sidecar's checks (-want +got):\n%s", diff)
		}
		paths, tagged := sidecar.Proxy.Expose.Paths, r.definition.TaggedAddresses
		got := fmt.Sprint(paths[0].LocalPathPort, paths[1].LocalPathPort, tagged["wan"].Port, tagged["lan"].Port)
		if others := fmt.Sprint(want, 9999, want, 80); got != others {
			t.Errorf("PORT=%s: ports of paths and addresses are %s, want %s", port, got, others)
		}
	}
}

func TestInstanceNames(t *testing.T) {
	t.Parallel()
	inst := meshtest.InstanceOf(t, nil, map[string]string{
		"VCAP_APPLICATION": webApp, "CF_INSTANCE_GUID": "1f1db0a5-d333-45af-8919-6e88", "CF_INSTANCE_INTERNAL_IP": "10.255.0.4",
	})
	if got := inst.NodeName(); got != "My-App-1f1db0a5-d333-45af-8919-6e88" {
		t.Errorf("node name %q", got)
	}
	if got := inst.NodeID(); len(got) != 36 || got != inst.NodeID() {
		t.Errorf("node id %q is no UUID", got)
	}
	if err := inst.RequirePlatform(); err != nil {
		t.Error(err)
	}
	if err := (instance.Instance{}).RequirePlatform(); err == nil || !strings.Contains(err.Error(), "hint:") {
		t.Errorf("outside Cloud Foundry: %v", err)
	}
}

func TestNotes(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		config, memory string
		want           []string
	}{
		"nothing to say":    {`{"sidecar_memory": 128, "staged": {"app": "My App!", "space": "prod", "organization": "acme"}}`, "512m", nil},
		"promoted":          {`{"staged": {"app": "My App!", "space": "dev", "organization": "acme"}}`, "", []string{"the droplet was staged for My App! in acme/dev with the route \"\" and runs as My App! in acme/prod with \"\""}},
		"too little memory": {`{"sidecar_memory": 128}`, "100m", []string{"the sidecars take 128 MB off this app's memory, which leaves it 100 MB"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inst := meshtest.InstanceOf(t, map[string]string{droplet.ConfigFile: test.config},
				map[string]string{"VCAP_APPLICATION": webApp, "MEMORY_LIMIT": test.memory})
			var said []string
			log := func(format string, args ...any) { said = append(said, fmt.Sprintf(format, args...)) }
			config, err := inst.Config()
			if err != nil {
				t.Fatal(err)
			}
			(&Node{Inst: inst, Log: log, Config: config}).NotePromotion()
			inst.NoteMemory(config, log)
			if len(said) != len(test.want) {
				t.Fatalf("said %q", said)
			}
			for i, want := range test.want {
				if !strings.HasPrefix(said[i], want) {
					t.Errorf("said %q, want %q", said[i], want)
				}
			}
		})
	}
}

// TestAwait: a step that does not come says its name and what was seen last.
func TestAwait(t *testing.T) {
	t.Parallel()
	tries := 0
	steps := wait.Timeline{Log: func(string, ...any) {}}
	never := wait.Step{Name: "moon full", Condition: func(context.Context) error {
		tries++
		return fmt.Errorf("try %d", min(tries, 1))
	}}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	err := steps.Await(ctx, never)
	if err == nil || !strings.HasPrefix(err.Error(), "not moon full after 0.") || !strings.HasSuffix(err.Error(), "last seen: try 1") {
		t.Errorf("error: %v", err)
	}
	if list := steps.List(); len(list) != 1 || list[0].Done || list[0].Seen != "try 1" {
		t.Errorf("the stages are %+v", list)
	}
	final := wait.Step{Name: "x", Condition: func(context.Context) error { return wait.Final(fmt.Errorf("no use")) }}
	if err := steps.Await(t.Context(), final); err == nil || !strings.Contains(err.Error(), "no use") {
		t.Errorf("error: %v", err)
	}
}
