package registry

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/consul-mesh/mesh-buildpack/src/droplet"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/consul"
)

// TestTally: + is a success, - a failure; p is passing, c critical, and a dot no
// change, as an agent of Consul 1.22 decides.
func TestTally(t *testing.T) {
	t.Parallel()
	counting := func(successes, failures int) probedCheck {
		return probedCheck{Check: droplet.Check{SuccessBeforePassing: successes, FailuresBeforeCritical: failures}}
	}
	for name, test := range map[string]struct {
		check         probedCheck
		results, want string
	}{
		"each counts":                        {probedCheck{}, "+-+--++", "pcpccpp"},
		"one is each too":                    {counting(1, 1), "+-+--++", "pcpccpp"},
		"the first decides":                  {counting(3, 3), "-+++---", "c..p..c"},
		"and so does a success":              {counting(3, 3), "+---+++", "p..c..p"},
		"in a row":                           {counting(0, 2), "+-+-+--", "p.p.p.c"},
		"an app's check has passed":          {probedCheck{droplet.Check{FailuresBeforeCritical: 3}, true}, "--+---", "..p..c"},
		"an app's check, each failure count": {probedCheck{apps: true}, "-+", "cp"},
	} {
		tally, got := newTally(test.check), ""
		for _, result := range test.results {
			state := tally.add(result == '+')
			got += map[string]string{consul.Passing: "p", consul.Critical: "c", "": "."}[state]
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// TestAChangeIsWrittenAgain: what servers did not take is written when they do, and
// not after the next run of a check that is seldom run.
func TestAChangeIsWrittenAgain(t *testing.T) {
	t.Parallel()
	app := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(app.Close)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var refused atomic.Int32
	v := running(t, func(path string) (int, string) {
		if path == "/v1/catalog/register" && refused.Add(1) <= 2 {
			return http.StatusInternalServerError, "No cluster leader"
		}
		cancel()
		return http.StatusOK, "true"
	}, "one")
	logged := 0
	v.Log = func(format string, args ...any) {
		if strings.Contains(format, "check %q is") {
			logged++
		}
	}
	v.Services[0].Works.Store(true)
	check := droplet.Check{CheckID: "health", Name: "health", HTTP: app.URL, Interval: lasting(time.Hour), Timeout: lasting(time.Second)}
	v.set("health", consul.Passing, "")
	v.run(ctx, v.Services[0], probedCheck{Check: check})
	if refused.Load() < 3 {
		t.Error("it was not written again")
	}
	if logged != 1 {
		t.Errorf("it is said %d times", logged)
	}
}
