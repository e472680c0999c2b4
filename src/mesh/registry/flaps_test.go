package registry

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/consul-mesh/mesh-buildpack/src/droplet"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/consul"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/instance"
)

// TestFlaps: a check comes back at once a number of times, then when it has passed for
// a while, and after a quiet minute at once again.
func TestFlaps(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var f Flaps
		const beat = time.Second
		// turn fails once, and gives how long the check then passes until it is back.
		turn := func() time.Duration {
			f.Fails()
			time.Sleep(beat)
			for begun := time.Now(); ; time.Sleep(beat) {
				if may, _ := f.MayPass(); may {
					f.Passes()
					return time.Since(begun)
				}
			}
		}
		for i := range instance.FlapsAtOnce {
			if took := turn(); took != 0 {
				t.Fatalf("turn %d comes back after %v", i+1, took)
			}
		}
		f.Fails()
		said := 0
		for range 10 { // it passes for a beat, again and again
			may, news := f.MayPass()
			if news {
				said++
			}
			if may {
				t.Fatal("it is back after a beat")
			}
			time.Sleep(beat)
			f.Fails()
		}
		if said != 1 {
			t.Errorf("it is said %d times", said)
		}
		if took := turn(); took != instance.FlapPause {
			t.Errorf("the next comes back after %v", took)
		}
		time.Sleep(instance.FlapWindow)
		if took := turn(); took != 0 {
			t.Errorf("after a quiet minute it comes back after %v", took)
		}
	})
}

// TestAFlappingCheck: an app that answers every second time is not written each time,
// and stays out of rotation; its log says why.
func TestAFlappingCheck(t *testing.T) {
	t.Parallel()
	var asked, written atomic.Int32
	const turns = 3 * instance.FlapsAtOnce
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		n := asked.Add(1)
		if n%2 == 1 {
			w.WriteHeader(http.StatusInternalServerError)
		}
		if n == 2*turns {
			cancel()
		}
	}))
	t.Cleanup(app.Close)
	v := running(t, func(path string) (int, string) {
		if path == "/v1/catalog/register" {
			written.Add(1)
		}
		return http.StatusOK, "true"
	}, "one")
	said := 0
	v.Log = func(format string, _ ...any) {
		if strings.Contains(format, "fails and passes in turn") {
			said++
		}
	}
	v.Services[0].Works.Store(true)
	check := droplet.Check{CheckID: "health", Name: "health", HTTP: app.URL, Interval: lasting(time.Millisecond), Timeout: lasting(10 * time.Second)}
	v.set("health", consul.Passing, "")
	v.run(ctx, v.Services[0], probedCheck{Check: check})
	// There and back, each written twice, and it fails once more.
	if want := int32(4*instance.FlapsAtOnce + 2); written.Load() != want {
		t.Errorf("%d entries were written, want %d", written.Load(), want)
	}
	if state := v.states["health"].status; state != consul.Critical {
		t.Errorf("it is %s", state)
	}
	if said != 1 {
		t.Errorf("it is said %d times", said)
	}
}

// TestCutOff: an instance says once that no server takes what it says, and once that
// one does again; a single renewal that fails is not worth a line.
func TestCutOff(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		fails int
		want  string
	}{
		"once":  {1, ""},
		"often": {5, "no server takes what this instance says, the servers take what this instance says again, "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				failed := 0
				v := running(t, func(path string) (int, string) {
					if strings.HasPrefix(path, "/v1/session/renew/") && failed < test.fails {
						failed++
						return http.StatusInternalServerError, "No cluster leader"
					}
					return http.StatusOK, "true"
				}, "one")
				said := ""
				v.Log = func(format string, args ...any) {
					line, _, _ := strings.Cut(fmt.Sprintf(format, args...), " (")
					line, _, _ = strings.Cut(line, ", callers")
					if strings.Contains(line, "this instance says") {
						said += line + ", "
					}
				}
				ctx, cancel := context.WithTimeout(t.Context(), 4*instance.RenewEvery)
				defer cancel()
				v.stayAlive(ctx)
				if said != test.want {
					t.Errorf("it says %q, want %q", said, test.want)
				}
			})
		})
	}
}
