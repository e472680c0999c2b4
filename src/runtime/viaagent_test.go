package runtime

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/consul-mesh/mesh-buildpack/src/droplet"
)

// script is an agent that answers by a path's first words, and writes down what
// it was asked.
type script struct {
	mutex   sync.Mutex
	answers map[string]func(before int) (status int, body string) // guarded by mutex
	asked   []string                                              // guarded by mutex
}

func (s *script) answer(path string) (int, string) {
	s.mutex.Lock()
	known := len(s.asked)
	before := 0
	var answer func(int) (int, string)
	for prefix, f := range s.answers {
		if strings.HasPrefix(path, prefix) {
			answer = f
			for _, earlier := range s.asked[:known] {
				if strings.HasPrefix(earlier, prefix) {
					before++
				}
			}
		}
	}
	s.asked = append(s.asked, path)
	s.mutex.Unlock()
	if answer == nil {
		return http.StatusOK, "null"
	}
	return answer(before)
}

func (s *script) count(path string) int {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return len(slices.DeleteFunc(slices.Clone(s.asked), func(asked string) bool { return !strings.HasPrefix(asked, path) }))
}

// Paths that an agent is asked for.
const (
	askMembers    = "/v1/agent/members"
	askLeader     = "/v1/status/leader"
	askSidecar    = "/v1/agent/service/one-sidecar-proxy"
	askCatalog    = "/v1/catalog/node-services/"
	askNode       = "/v1/catalog/node/"
	tellRegister  = "/v1/agent/service/register"
	tellGone      = "/v1/agent/service/deregister/"
	tellNodeGone  = "/v1/catalog/deregister"
	askVersion    = "/v1/agent/version"
	serverAndSelf = `[{"Status": 1, "Tags": {"role": "consul"}}]`
)

// scriptedAgent has one service, in rotation.
func scriptedAgent(t *testing.T, s *script) viaAgent {
	t.Helper()
	v := viaScripted(t, s.answer, "one")
	v.config.Servers = nil
	v.noteJoined()
	for path, body := range map[string]string{
		askMembers: serverAndSelf, askLeader: `"10.0.0.1:8300"`, askCatalog: `{"Services": [{"ID": "one-sidecar-proxy"}]}`, askNode: `{}`,
	} {
		if s.answers[path] == nil {
			s.answers[path] = func(int) (int, string) { return http.StatusOK, body }
		}
	}
	one := v.services[0]
	one.registered.Store(true)
	one.shown.Store(true)
	state := passing
	one.said.Store(&state)
	v.proxy.registry = viaAgent{v.proxy}
	return viaAgent{v.proxy}
}

// keepFor runs keep for a while.
func keepFor(v viaAgent, long time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), long)
	defer cancel()
	v.keep(ctx)
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
		s := &script{answers: map[string]func(int) (int, string){
			askSidecar: func(before int) (int, string) {
				if before == 0 {
					return http.StatusNotFound, "unknown service"
				}
				return staysOpen()
			},
			askLeader: func(before int) (int, string) {
				if before < 3 {
					return http.StatusInternalServerError, "No known Consul servers"
				}
				return http.StatusOK, `"10.0.0.1:8300"`
			},
		}}
		v := scriptedAgent(t, s)
		keepFor(v, 3*time.Second)
		if n := s.count(tellRegister); n != 1 || v.services[0].away.Load() {
			t.Errorf("it was registered %d times", n)
		}
	})
}

// TestAgentRefuses: what the agent refuses is not told without a pause.
func TestAgentRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{answers: map[string]func(int) (int, string){
			askSidecar:   func(int) (int, string) { return http.StatusNotFound, "unknown service" },
			tellRegister: func(int) (int, string) { return http.StatusBadRequest, "no" },
		}}
		keepFor(scriptedAgent(t, s), 4*watchInterval)
		if n := s.count(tellRegister); n < 2 || n > 5 {
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
				s := &script{answers: map[string]func(int) (int, string){
					askSidecar: func(int) (int, string) { return staysOpen() },
					askCatalog: func(before int) (int, string) {
						return http.StatusOK, test.answers[min(before, len(test.answers)-1)]
					},
				}}
				v := scriptedAgent(t, s)
				v.services[0].away.Store(test.away)
				keepFor(v, catalogLook+2*time.Second)
				if n := s.count(tellGone); n != test.want {
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
		s := &script{answers: map[string]func(int) (int, string){
			askSidecar: func(int) (int, string) {
				return http.StatusOK, fmt.Sprintf(`{"ContentHash": "same", "Port": %d}`, port)
			},
			tellRegister: func(before int) (int, string) {
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
		one := v.services[0]
		one.shown.Store(false)
		if v.register(t.Context(), one) == nil {
			t.Fatal("registered without an answer")
		}
		// The newer one comes first: the agent has the sidecar as the older one says.
		if v.say(t.Context(), one, passing, "") == nil {
			t.Error("it is in rotation where nobody finds it")
		}
		if err := v.say(t.Context(), one, passing, ""); err != nil || port != 21000 {
			t.Errorf("it is not in rotation, at %d: %v", port, err)
		}
		for _, later := range []time.Duration{holdTime, longestHold} {
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
		s := &script{answers: map[string]func(int) (int, string){
			askSidecar: func(int) (int, string) { return staysOpen() },
			askMembers: func(before int) (int, string) {
				if before < 2 {
					return http.StatusOK, serverAndSelf
				}
				return http.StatusOK, `[{"Status": 2}]`
			},
			askNode: func(before int) (int, string) {
				if before == 0 {
					return http.StatusOK, `{"Node": {}}`
				}
				return http.StatusInternalServerError, "it has left"
			},
		}}
		keepFor(scriptedAgent(t, s), 5*time.Second)
		if gone, node := s.count(tellGone), s.count(tellNodeGone); gone != 2 || node != 1 {
			t.Errorf("%d services and %d nodes were deregistered", gone, node)
		}
	})
}

// TestHungAgent: one that holds a question is ended, one that refuses it is not.
func TestHungAgent(t *testing.T) {
	for name, test := range map[string]struct {
		status int // 0: no answer in time
		want   bool
	}{"hangs": {0, true}, "refuses": {http.StatusForbidden, false}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &script{answers: map[string]func(int) (int, string){
					askSidecar: func(int) (int, string) { return staysOpen() },
					askVersion: func(int) (int, string) { return test.status, "" },
				}}
				v := scriptedAgent(t, s)
				v.inst = Instance{RunDir: t.TempDir(), App: "app", GUID: "guid"}
				ended := false
				v.proxy.log = func(format string, _ ...any) {
					ended = ended || strings.Contains(format, "has not answered for")
				}
				keepFor(v, 2*time.Second)
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
	s := &script{answers: map[string]func(int) (int, string){
		"/v1/agent/checks": func(int) (int, string) {
			return http.StatusOK, `{"one:health": {"Name": "health", "Status": "critical", "ServiceID": "one"},
				"other": {"Name": "other", "Status": "passing", "ServiceID": "two"}}`
		},
		"/v1/health/node/app-guid": func(int) (int, string) {
			return http.StatusOK, `[{"CheckID": "serfHealth", "Status": "critical"}, {"CheckID": "one:health", "Status": "critical"}]`
		},
	}}
	v := scriptedAgent(t, s)
	one := v.services[0]
	one.works.Store(true)
	one.checks = []map[string]any{{"ID": "one:health", "name": "health"}, {"ID": "one:more", "name": "more"}}
	object(object(one.definition["connect"])["sidecarservice"])["checks"] = []any{map[string]any{"CheckID": droplet.ReadyCheckID("one"), "name": "ready"}}
	checks, err := v.checks(t.Context(), one)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, check := range checks {
		got[check.ID] = check.Status
	}
	want := map[string]string{"one:health": critical, "one:more": missing, droplet.ReadyCheckID("one"): missing, serfHealth: critical}
	if len(got) != len(want) {
		t.Errorf("it has %v", got)
	}
	for id, status := range want {
		if got[id] != status {
			t.Errorf("%s is %q, want %q", id, got[id], status)
		}
	}
}
