package proxy

import (
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/consul-mesh/mesh-buildpack/src/droplet"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/consul"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/envoy"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/instance"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/meshtest"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/registry"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/wait"
)

// TestStartPhases: wherever a start comes to a stop, the error names the step, what
// was seen last, and the likely cause.
func TestStartPhases(t *testing.T) {
	t.Parallel()
	always := func(status int, body string) func(int) (int, string) {
		return func(int) (int, string) { return status, body }
	}
	noServers := always(500, "No known Consul servers")
	type answers = map[string]func(int) (int, string)
	const (
		alone        = `[{"Status": 1, "Tags": {"role": "node"}}]`
		couldNotJoin = "[WARN] agent: Join cluster failed\n  error=\n  | 1 error occurred:\n  | \t* Failed to join 127.0.0.1:1: connection refused\n"
		envoyIsQuiet = "exec sleep 60"
	)
	for name, test := range map[string]struct {
		answers answers
		journal string // of the agent
		envoy   string // its program, a shell's words
		want    []string
	}{
		"the agent does not answer": {
			answers: answers{"/": always(0, "")},
			want:    []string{"not agent up after ", "\nhint: the Consul agent does not answer on 127.0.0.1:"},
		},
		"the agent answers nonsense": {
			answers: answers{meshtest.AskMembers: always(500, "boom")},
			want:    []string{"not joined, leader known after ", "last seen: Consul answers 500: boom"},
		},
		"the agent is alone": {
			answers: answers{meshtest.AskMembers: always(200, alone), meshtest.AskLeader: noServers}, journal: couldNotJoin,
			want: []string{
				"not joined, leader known after ", "last seen: the agent has joined no Consul server: Failed to join 127.0.0.1:1: connection refused",
				"\nhint: no server can be reached on 1 (127.0.0.1:1 refuses the connection)",
			},
		},
		"the agent is of another datacenter": {
			answers: answers{meshtest.AskMembers: always(200, alone), meshtest.AskLeader: noServers}, journal: "[ERROR] agent: Member 'server-0' part of wrong datacenter 'cf'\n",
			want: []string{"not joined, leader known after ", "\nhint: the servers are of another datacenter"},
		},
		"there is no leader": {
			answers: answers{meshtest.AskLeader: always(500, "No cluster leader")},
			want:    []string{"not joined, leader known after ", "last seen: Consul answers 500: No cluster leader"},
		},
		"ACLs refuse the registration": {
			answers: answers{meshtest.TellRegister: always(403, "Permission denied: lacks permission 'service:write'")},
			want:    []string{"service one: not one: registered after ", "last seen: Consul answers 403: Permission denied: lacks permission 'service:write'"},
		},
		"the agent does not take the registration": {
			answers: answers{meshtest.TellRegister: always(400, "Invalid service")},
			want:    []string{"service one: not one: registered after ", "last seen: Consul answers 400: Invalid service"},
		},
		"nobody says what Envoy needs": {
			answers: answers{"/v1/config/proxy-defaults": always(500, "No cluster leader")},
			want:    []string{"service one: not one: bootstrapped after ", "last seen: Consul answers 500: No cluster leader"},
		},
		"Envoy ends": {
			envoy: "echo '[critical] no thanks' >&2; exit 3",
			want:  []string{"not one: xDS, Envoy knows what to do after ", "last seen: envoy ended: exit status 3"},
		},
		"Envoy hears nothing": {
			envoy: envoyIsQuiet,
			want:  []string{"not one: xDS, Envoy knows what to do after ", "connection refused\nhint: the lines of Envoy above say why"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := starting(t, &meshtest.Script{Answers: test.answers}, test.journal, test.envoy)
			err := p.start(t.Context())
			for _, e := range p.envoys {
				_ = e.Signal(syscall.SIGKILL) // it may have ended
			}
			if err == nil {
				t.Fatal("it started")
			}
			text := p.explain(err).Error()
			for _, want := range test.want {
				if !strings.Contains(text, want) {
					t.Errorf("the error lacks %q:\n%s", want, text)
				}
			}
		})
	}
}

// starting is a proxy that is about to start, beside an agent that listens and
// answers as a script says.
func starting(t *testing.T, s *meshtest.Script, journal, program string) *proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	log := func(string, ...any) {}
	n := &registry.Node{
		Inst: instance.Instance{
			App: "app", GUID: "guid", Deps: t.TempDir(), RunDir: t.TempDir(), Address: netip.MustParseAddr("127.0.0.1"),
		},
		Log: log, Access: &consul.Access{}, Consul: &consul.Client{Base: "http://agent"},
		Ports: instance.AgentPorts{HTTP: listener.Addr().(*net.TCPAddr).Port, Gossip: 1},
	}
	n.Consul.HTTP.Transport = meshtest.Transport(s.Answer)
	n.Config.Lifecycle.StartTimeout = 2 * time.Second
	n.Services = []*registry.Registration{registry.NewRegistration(n.Inst, droplet.Service{ID: "one", AdminPort: 1}, droplet.Definition{
		Endpoint: droplet.Endpoint{ID: "one", Name: "one"},
	})}
	p := &proxy{Node: n, registry: registry.ViaAgent{Node: n}, startEnvoy: envoy.Start, timeline: &wait.Timeline{Log: log}}
	for path, text := range map[string]string{
		p.Inst.Path(droplet.AgentFile):             `{"datacenter": "cf", "retry_join": ["127.0.0.1"]}`,
		p.Inst.JournalPath(instance.ConsulJournal): journal,
		p.Inst.Program("envoy"):                    "#!/bin/sh\n" + program + "\n",
	} {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// What no case is about goes well.
	for path, body := range map[string]string{meshtest.AskMembers: meshtest.ServerAndSelf, meshtest.AskLeader: `"10.0.0.1:8300"`, "/v1/config/proxy-defaults": "[]"} {
		if s.Answers == nil {
			s.Answers = map[string]func(int) (int, string){}
		}
		if s.Answers[path] == nil && s.Answers["/"] == nil {
			s.Answers[path] = func(int) (int, string) { return http.StatusOK, body }
		}
	}
	return p
}
