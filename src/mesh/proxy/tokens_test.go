package proxy

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/consul-mesh/mesh-buildpack/src/mesh/consul"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/instance"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/meshtest"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/registry"
)

// tokenServers know some tokens.
type tokenServers struct {
	mutex sync.Mutex
	known []string        // guarded by mutex
	looks []time.Duration // since they began; guarded by mutex
	begun time.Time
}

// RoundTrip implements http.RoundTripper.
func (s *tokenServers) RoundTrip(r *http.Request) (*http.Response, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if r.URL.Path == "/v1/acl/token/self" {
		s.looks = append(s.looks, time.Since(s.begun))
	}
	return meshtest.Transport(func(path string) (int, string) {
		switch {
		case path == "/v1/forbidden":
			return http.StatusForbidden, "Permission denied: lacks permission 'key:read'"
		case !slices.Contains(s.known, r.Header.Get(consul.TokenHeader)):
			return http.StatusForbidden, "ACL not found"
		}
		return http.StatusOK, "null"
	}).RoundTrip(r)
}

func (s *tokenServers) know(tokens ...string) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.known = tokens
}

// since are the looks of a time, as times since then.
func (s *tokenServers) since(when time.Time) (all []time.Duration) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	for _, look := range s.looks {
		if at := look - when.Sub(s.begun); at >= 0 {
			all = append(all, at)
		}
	}
	return all
}

// bindTokens writes the file of an instance's bound service.
func bindTokens(t *testing.T, file, token string) {
	t.Helper()
	text := fmt.Sprintf(`{"user-provided": [{"name": "c", "instance_name": "c", "label": "user-provided", "tags": ["consul"], "credentials": {"token": %q}}]}`, token)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestTokensAreLookedAtSeldom: the servers are asked about the tokens every half to
// whole minute, and at once when a call is refused, but not each time where calls are
// refused though the tokens are good. New ones are taken from their file as soon as
// they are there.
func TestTokensAreLookedAtSeldom(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "services.json")
	bindTokens(t, file, "old")
	inst := meshtest.InstanceOf(t, nil, map[string]string{"VCAP_SERVICES_FILE_PATH": file})
	synctest.Test(t, func(t *testing.T) {
		servers := &tokenServers{known: []string{"old"}, begun: time.Now()}
		var mutex sync.Mutex
		var said []string
		log := func(format string, args ...any) {
			mutex.Lock()
			defer mutex.Unlock()
			said = append(said, fmt.Sprintf(format, args...))
		}
		count := func(text string) (n int) {
			mutex.Lock()
			defer mutex.Unlock()
			for _, line := range said {
				if strings.Contains(line, text) {
					n++
				}
			}
			return n
		}
		client := &consul.Client{Base: "http://servers"}
		client.HTTP.Transport = servers
		n := &registry.Node{Inst: inst, Log: log, Consul: client}
		creds, _, err := inst.Credentials(n.Config)
		if err != nil {
			t.Fatal(err)
		}
		n.Access = consul.NewAccess(t.TempDir(), creds, nil, log)
		n.Access.Consul, client.Access = client, n.Access
		p := &proxy{Node: n, registry: registry.ViaAgent{Node: n}}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			p.watchCredentials(ctx)
			close(ended)
		}()
		ask := func(path string) {
			_ = client.CallWith(ctx, n.Access.ServiceToken(), http.MethodGet, path, nil, nil) // it is refused, or not
			synctest.Wait()
		}

		time.Sleep(10 * time.Minute)
		if looks := len(servers.since(servers.begun)); looks < 9 || looks > 20 {
			t.Errorf("%d looks in ten minutes", looks)
		}
		// Calls that are refused for another reason.
		from := time.Now()
		for time.Since(from) < 10*time.Minute {
			ask("/v1/forbidden")
			time.Sleep(time.Second + rand.N(time.Second))
		}
		if looks := servers.since(from); len(looks) > 60 || looks[0] > time.Second {
			t.Errorf("%d looks in ten minutes, the first after %v", len(looks), looks[0])
		}
		time.Sleep(3 * instance.TokenLook)
		// A token that is revoked.
		servers.know()
		from = time.Now()
		ask("/v1/session/renew/one")
		if looks := servers.since(from); len(looks) == 0 || count("the servers do not know") != 1 {
			t.Errorf("when a call is refused the looks are %v, and it is said:\n%s", looks, strings.Join(said, "\n"))
		}
		for time.Since(from) < time.Minute {
			ask("/v1/session/renew/one")
			time.Sleep(5 * time.Second)
		}
		if looks := len(servers.since(from)); looks > 8 {
			t.Errorf("%d looks in a minute", looks)
		}
		// Another one.
		servers.know("new")
		bindTokens(t, file, "new")
		time.Sleep(2 * instance.WatchInterval)
		if n.Access.ServiceToken() != "new" || count("the credentials are good again") != 1 || count("the servers do not know") != 1 {
			t.Errorf("it is said:\n%s", strings.Join(said, "\n"))
		}
		cancel()
		<-ended
	})
}
