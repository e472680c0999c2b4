package registry

import (
	"context"
	"slices"

	"github.com/consul-mesh/mesh-buildpack/src/droplet"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/consul"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/instance"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/wait"
)

// The checks that an agent would run.

// probedCheck is a check that is run here.
type probedCheck struct {
	droplet.Check
	apps bool // it is the app's, which has passed it before it is run here
}

// probed are the checks of the app and the sidecar's own.
func (v *viaServers) probed(r *Registration) []probedCheck {
	var all []probedCheck
	for _, check := range slices.Concat(r.definition.Checks, r.sidecar().Checks) {
		if check.TTL.Duration != 0 || check.AliasService != "" {
			continue // what this program says itself
		}
		all = append(all, probedCheck{check, r.isApps(check)})
	}
	return all
}

// run runs a check of an app that works, until ctx ends.
func (v *viaServers) run(ctx context.Context, r *Registration, check probedCheck) {
	for !r.Works.Load() {
		if wait.Pause(ctx, instance.Beat) != nil {
			return
		}
	}
	results := newTally(check)
	next := check.Interval.Duration
	if !check.apps {
		next = 0
	}
	for unsaid := false; wait.Pause(ctx, next) == nil; {
		err := probe(ctx, check.Check)
		if ctx.Err() != nil {
			return
		}
		output, why := "", ""
		if err != nil {
			output, why = err.Error(), ": "+err.Error()
		}
		state, flaps := results.judge(err == nil)
		if flaps {
			v.Log("%s: check %q fails and passes in turn, %d times in a minute: it counts as passing again when it has passed for %.0f s",
				r.ID, check.Name, instance.FlapsAtOnce, instance.FlapPause.Seconds())
		}
		if state != "" && v.set(check.CheckID, state, output) {
			unsaid = true
			v.Log("%s: check %q is %s%s", r.ID, check.Name, state, why)
		}
		unsaid = unsaid && v.writing.do(ctx, func() error { return v.publish(ctx, r) }) != nil
		next = check.Interval.Duration
		if unsaid { // callers are to know as soon as the servers take it
			next = min(next, instance.Beat)
		}
	}
}

// tally counts results of a check as an agent does (Consul 1.22, agent/checks,
// StatusHandler): the first decides at once.
type tally struct {
	probedCheck
	good, bad int  // in a row
	critical  bool // what judge has said last
	flaps     Flaps
}

func newTally(check probedCheck) *tally {
	t := &tally{probedCheck: check, good: check.SuccessBeforePassing, bad: check.FailuresBeforeCritical}
	if check.apps {
		t.bad = 0 // it has passed
	}
	return t
}

// judge is add for a check that may fail and pass in turn: then it takes more results for
// it to pass, which flaps says once.
func (t *tally) judge(good bool) (state string, flaps bool) {
	if !good {
		t.flaps.Fails()
	}
	state = t.add(good)
	if state == consul.Passing && t.critical {
		may, news := t.flaps.MayPass()
		if !may {
			return "", news
		}
		t.flaps.Passes()
	}
	if state != "" {
		t.critical = state == consul.Critical
	}
	return state, false
}

// add returns the state that a result makes it, empty where it takes more of them.
func (t *tally) add(good bool) (state string) {
	if good {
		t.good, t.bad = t.good+1, 0
	} else {
		t.good, t.bad = 0, t.bad+1
	}
	switch {
	case good && t.good >= t.SuccessBeforePassing:
		return consul.Passing
	case !good && t.bad >= t.FailuresBeforeCritical:
		return consul.Critical
	}
	return ""
}
