package registry

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/consul-mesh/mesh-buildpack/src/mesh/instance"
)

// TestComeBackApart: when servers that were away are back, all sessions are renewed
// within a few seconds, spread over these, and how the catalog has each instance is
// looked at in the quarter of a minute after that, also spread.
func TestComeBackApart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const instances, away, back = 200, 10 * time.Second, 40 * time.Second
		begun := time.Now()
		var mutex sync.Mutex
		renewed, looked := map[int]time.Duration{}, map[int]time.Duration{} // after the servers were back
		ctx, cancel := context.WithTimeout(t.Context(), back+instance.CompareEvery/2)
		defer cancel()
		var lives sync.WaitGroup
		for i := range instances {
			v := running(t, func(path string) (int, string) {
				at := time.Since(begun)
				if at > away && at < back {
					return http.StatusInternalServerError, "No cluster leader"
				}
				mutex.Lock()
				defer mutex.Unlock()
				first := func(in map[int]time.Duration) {
					if _, there := in[i]; !there && at >= back {
						in[i] = at - back
					}
				}
				switch {
				case strings.HasPrefix(path, "/v1/session/renew/"):
					first(renewed)
				case strings.HasPrefix(path, "/v1/catalog/node/"):
					first(looked)
					return http.StatusOK, `{"Node":{"Address":"10.1.2.3"},"Services":{"one":{},"one-sidecar-proxy":{}}}`
				case strings.HasPrefix(path, "/v1/health/node/"):
					return http.StatusOK, "[]"
				}
				return http.StatusOK, "true"
			}, "one")
			v.Log = func(string, ...any) {}
			lives.Go(func() { v.stayAlive(ctx) })
		}
		lives.Wait()
		for name, test := range map[string]struct {
			took   map[int]time.Duration
			within time.Duration
			part   time.Duration // in which at most half may come
		}{
			"renewed": {renewed, instance.RenewAgain, time.Second},
			"looked":  {looked, instance.ListAgain + instance.RenewEvery, 3 * time.Second},
		} {
			parts := map[int]int{}
			for _, took := range test.took {
				if took > test.within {
					t.Errorf("%s after %v", name, took)
				}
				parts[int(took/test.part)]++
			}
			for _, n := range parts {
				if n > instances/2 {
					t.Errorf("%s: by parts of %v there came %v", name, test.part, parts)
					break
				}
			}
			if len(test.took) != instances {
				t.Errorf("%s: %d of %d", name, len(test.took), instances)
			}
		}
	})
}
