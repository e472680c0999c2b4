package registry

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/consul-mesh/mesh-buildpack/src/mesh/instance"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/meshtest"
)

// withEntries is an agent whose servers answer with how the entry of the service is,
// and the first instance of its app.
func withEntries(t *testing.T, answer func(before int) (status int, body string)) (ViaAgent, *meshtest.Script, *[]string) {
	t.Helper()
	s := &meshtest.Script{Answers: map[string]func(int) (int, string){
		meshtest.AskSidecar: func(int) (int, string) { return staysOpen() },
		askResolver:         answer,
	}}
	v := scriptedAgent(t, s)
	v.Inst.Index, v.Inst.AppGUID, v.Services[0].Protocol = "0", "guid", "http"
	var said []string
	v.Log = func(format string, args ...any) { said = append(said, fmt.Sprintf(format, args...)) }
	return v, s, &said
}

const askResolver = "/v1/config/service-resolver/one"

// TestEntriesWaitForRotation: a service that was never in rotation has no entry
// written, and one that comes into it has it written soon.
func TestEntriesWaitForRotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int32
		v, _, _ := withEntries(t, func(int) (int, string) {
			asked.Add(1)
			return http.StatusNotFound, ""
		})
		v.Services[0].shown.Store(false)
		go func() {
			time.Sleep(time.Minute)
			if n := asked.Load(); n != 0 {
				t.Errorf("asked %d times before", n)
			}
			v.Services[0].shown.Store(true)
			time.Sleep(time.Second)
			if asked.Load() == 0 {
				t.Error("not asked when it is in rotation")
			}
		}()
		keepFor(v, 2*time.Minute)
	})
}

// TestEntriesAreTriedAgain: what fails for a moment is tried again within seconds, and
// what is there is looked at now and then.
func TestEntriesAreTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, s, _ := withEntries(t, func(before int) (int, string) {
			if before < 3 {
				return http.StatusInternalServerError, "No cluster leader"
			}
			return http.StatusOK, `{"RequestTimeout": "24h0m0s", "Meta": {"consul-mesh-buildpack": "guid"}}`
		})
		keepFor(v, 20*time.Second)
		if n := s.Count(askResolver); n != 4 {
			t.Errorf("asked %d times", n)
		}
		keepFor(v, 10*instance.EntriesLook-time.Second)
		if n := s.Count(askResolver); n != 4+10 {
			t.Errorf("asked %d times", n)
		}
	})
}

// TestEntriesAreRefused: what ACLs refuse, and what is an operator's and cuts
// requests, is said once.
func TestEntriesAreRefused(t *testing.T) {
	for want, answer := range map[string]func(int) (int, string){
		"Permission denied": func(int) (int, string) { return http.StatusForbidden, "Permission denied" },
		"is left alone":     func(int) (int, string) { return http.StatusOK, `{"ConnectTimeout": "5s"}` },
	} {
		t.Run(want, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				v, s, said := withEntries(t, answer)
				keepFor(v, 5*instance.EntriesLook-time.Second)
				if n := s.Count(askResolver); n != 5 {
					t.Errorf("asked %d times", n)
				}
				if text := strings.Join(*said, "\n"); strings.Count(text, want) != 1 {
					t.Errorf("the log has:\n%s", text)
				}
			})
		})
	}
}

// TestEntriesOfOthers: instances beside the first ask for nothing.
func TestEntriesOfOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, s, _ := withEntries(t, func(int) (int, string) { return http.StatusNotFound, "" })
		v.Inst.Index = "1"
		keepFor(v, 5*instance.EntriesLook)
		if n := s.Count(askResolver); n != 0 {
			t.Errorf("asked %d times", n)
		}
	})
}
