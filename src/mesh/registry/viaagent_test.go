package registry

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/consul-mesh/mesh-buildpack/src/droplet"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/consul"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/instance"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/meshtest"
)

// scriptedAgent has one service, in rotation.
func scriptedAgent(t *testing.T, s *meshtest.Script) ViaAgent {
	t.Helper()
	v := viaScripted(t, s.Answer, "one")
	v.Config.Servers = nil
	v.NoteJoined()
	for path, body := range map[string]string{
		meshtest.AskMembers: meshtest.ServerAndSelf, meshtest.AskLeader: `"10.0.0.1:8300"`, meshtest.AskCatalog: `{"Services": [{"ID": "one-sidecar-proxy"}]}`, meshtest.AskNode: `{}`,
	} {
		if s.Answers[path] == nil {
			s.Answers[path] = func(int) (int, string) { return http.StatusOK, body }
		}
	}
	one := v.Services[0]
	one.Registered.Store(true)
	one.shown.Store(true)
	state := consul.Passing
	one.Said.Store(&state)
	return ViaAgent{v.Node}
}

// keepFor runs keep for a while.
func keepFor(v ViaAgent, long time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), long)
	defer cancel()
	v.Keep(ctx)
}

// staysOpen answers a blocking query when nothing has changed.
func staysOpen() (int, string) {
	time.Sleep(time.Minute)
	return http.StatusOK, `{"ContentHash": "same"}`
}

// TestAgentForgets: a service that the agent has dropped is told again, once, when
// the agent has joined.
func TestAgentForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &meshtest.Script{Answers: map[string]func(int) (int, string){
			meshtest.AskSidecar: func(before int) (int, string) {
				if before == 0 {
					return http.StatusNotFound, "unknown service"
				}
				return staysOpen()
			},
			meshtest.AskLeader: func(before int) (int, string) {
				if before < 3 {
					return http.StatusInternalServerError, "No known Consul servers"
				}
				return http.StatusOK, `"10.0.0.1:8300"`
			},
		}}
		v := scriptedAgent(t, s)
		keepFor(v, 3*time.Second)
		if n := s.Count(meshtest.TellRegister); n != 1 || v.Services[0].away.Load() {
			t.Errorf("it was registered %d times", n)
		}
	})
}

// TestAgentRefuses: what the agent refuses is not told without a pause.
func TestAgentRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &meshtest.Script{Answers: map[string]func(int) (int, string){
			meshtest.AskSidecar:   func(int) (int, string) { return http.StatusNotFound, "unknown service" },
			meshtest.TellRegister: func(int) (int, string) { return http.StatusBadRequest, "no" },
		}}
		keepFor(scriptedAgent(t, s), 4*instance.WatchInterval)
		if n := s.Count(meshtest.TellRegister); n < 2 || n > 5 {
			t.Errorf("it was told %d times", n)
		}
	})
}

// TestCatalogForgets: what the servers have dropped is taken away from the agent,
// which then is told again. One follower that lags behind is no reason.
func TestCatalogForgets(t *testing.T) {
	const nothing, all = `{"Services": []}`, `{"Services": [{"ID": "one-sidecar-proxy"}]}`
	for name, test := range map[string]struct {
		answers []string // to one look after the other
		away    bool     // the agent has dropped the service, which is told again
		want    int      // services and sidecars that were deregistered
	}{
		"all is there":       {[]string{all}, false, 0},
		"a follower lags":    {[]string{nothing, all}, false, 0},
		"it comes late":      {[]string{nothing, nothing, all}, false, 0},
		"the leader says so": {[]string{nothing, nothing, nothing, nothing, all}, false, 2},
		"it is on its way":   {[]string{nothing}, true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &meshtest.Script{Answers: map[string]func(int) (int, string){
					meshtest.AskSidecar: func(int) (int, string) { return staysOpen() },
					meshtest.AskCatalog: func(before int) (int, string) {
						return http.StatusOK, test.answers[min(before, len(test.answers)-1)]
					},
				}}
				v := scriptedAgent(t, s)
				v.Services[0].away.Store(test.away)
				keepFor(v, instance.CatalogLook+2*time.Second)
				if n := s.Count(meshtest.TellGone); n != test.want {
					t.Errorf("%d were deregistered, want %d", n, test.want)
				}
			})
		})
	}
}

// TestLateRegistration: where an agent has not answered a registration in time, and
// carries it out after a newer one, the instance is said to be in rotation when it has
// been seen to be where callers find it, and is told again later, too.
func TestLateRegistration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		port := notYet
		s := &meshtest.Script{Answers: map[string]func(int) (int, string){
			meshtest.AskSidecar: func(int) (int, string) {
				return http.StatusOK, fmt.Sprintf(`{"ContentHash": "same", "Port": %d}`, port)
			},
			meshtest.TellRegister: func(before int) (int, string) {
				if before == 0 {
					return 0, "" // no answer in time
				}
				if before > 1 {
					port = 21000
				}
				return http.StatusOK, ""
			},
		}}
		v := scriptedAgent(t, s)
		one := v.Services[0]
		one.shown.Store(false)
		if v.Register(t.Context(), one) == nil {
			t.Fatal("registered without an answer")
		}
		// The newer one comes first: the agent has the sidecar as the older one says.
		if v.Say(t.Context(), one, consul.Passing, "") == nil {
			t.Error("it is in rotation where nobody finds it")
		}
		if err := v.Say(t.Context(), one, consul.Passing, ""); err != nil || port != 21000 {
			t.Errorf("it is not in rotation, at %d: %v", port, err)
		}
		for _, later := range []time.Duration{instance.HoldTime, instance.LongestHold} {
			port = notYet
			time.Sleep(later)
			if one.doubt.isDue() && v.settle(t.Context(), one) == nil || port != 21000 {
				t.Errorf("after %v it was not told again", later)
			}
			_ = v.settle(t.Context(), one)
		}
		if one.doubt.lasts() {
			t.Error("the doubt does not end")
		}
	})
}

// TestAgentLeaves: an agent that leaves by itself takes its services with it,
// once, and its node.
func TestAgentLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &meshtest.Script{Answers: map[string]func(int) (int, string){
			meshtest.AskSidecar: func(int) (int, string) { return staysOpen() },
			meshtest.AskMembers: func(before int) (int, string) {
				if before < 2 {
					return http.StatusOK, meshtest.ServerAndSelf
				}
				return http.StatusOK, `[{"Status": 2}]`
			},
			meshtest.AskNode: func(before int) (int, string) {
				if before == 0 {
					return http.StatusOK, `{"Node": {}}`
				}
				return http.StatusInternalServerError, "it has left"
			},
		}}
		keepFor(scriptedAgent(t, s), 5*time.Second)
		if gone, node := s.Count(meshtest.TellGone), s.Count(meshtest.TellNodeGone); gone != 2 || node != 1 {
			t.Errorf("%d services and %d nodes were deregistered", gone, node)
		}
	})
}

// TestHungAgent: one that holds two questions is ended, one that holds one or
// refuses it is not.
func TestHungAgent(t *testing.T) {
	for name, test := range map[string]struct {
		holds func(before int) bool
		want  bool
	}{
		"hangs":        {func(int) bool { return true }, true},
		"is late once": {func(before int) bool { return before == 0 }, false},
		"refuses":      {func(int) bool { return false }, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &meshtest.Script{Answers: map[string]func(int) (int, string){
					meshtest.AskSidecar: func(int) (int, string) { return staysOpen() },
					meshtest.AskMembers: func(int) (int, string) { return http.StatusForbidden, "" },
				}}
				v := scriptedAgent(t, s)
				v.Consul.HTTP.Transport = meshtest.RoundTripper(func(r *http.Request) (*http.Response, error) {
					if before := s.Count(meshtest.AskMembers); strings.HasPrefix(r.URL.Path, meshtest.AskMembers) && test.holds(before) {
						_, _ = s.Answer(r.URL.Path)
						<-r.Context().Done()
						return nil, r.Context().Err()
					}
					return meshtest.Transport(s.Answer).RoundTrip(r)
				})
				v.Inst = instance.Instance{RunDir: t.TempDir(), App: "app", GUID: "guid"}
				ended := false
				v.Node.Log = func(format string, _ ...any) {
					ended = ended || strings.Contains(format, "has not answered for")
				}
				keepFor(v, 10*time.Second)
				if ended != test.want {
					t.Errorf("it was ended: %v", ended)
				}
			})
		})
	}
}

// TestAgentLacks: a status names the checks that the agent should have, and that
// of its node where the gossip does not hear it.
func TestAgentLacks(t *testing.T) {
	t.Parallel()
	s := &meshtest.Script{Answers: map[string]func(int) (int, string){
		"/v1/agent/checks": func(int) (int, string) {
			return http.StatusOK, `{"one:health": {"Name": "health", "Status": "critical", "ServiceID": "one"},
				"other": {"Name": "other", "Status": "passing", "ServiceID": "two"}}`
		},
		"/v1/health/node/app-guid": func(int) (int, string) {
			return http.StatusOK, `[{"CheckID": "serfHealth", "Status": "critical"}, {"CheckID": "one:health", "Status": "critical"}]`
		},
	}}
	v := scriptedAgent(t, s)
	one := v.Services[0]
	one.Works.Store(true)
	one.definition.Checks = []droplet.Check{{CheckID: "one:health", Name: "health"}, {CheckID: "one:more", Name: "more"}}
	one.sidecar().Checks = []droplet.Check{{CheckID: droplet.ReadyCheckID("one"), Name: "ready"}}
	checks, err := v.CheckStatuses(t.Context(), one)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, check := range checks {
		got[check.ID] = check.Status
	}
	want := map[string]string{"one:health": consul.Critical, "one:more": consul.Missing, droplet.ReadyCheckID("one"): consul.Missing, SerfHealth: consul.Critical}
	if len(got) != len(want) {
		t.Errorf("it has %v", got)
	}
	for id, status := range want {
		if got[id] != status {
			t.Errorf("%s is %q, want %q", id, got[id], status)
		}
	}
}
