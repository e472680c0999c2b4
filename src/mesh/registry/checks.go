package registry

import (
	"context"
	"slices"
	"time"

	"github.com/consul-mesh/mesh-buildpack/src/mesh/consul"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/instance"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/wait"
)

// The checks that an agent would run.

// probedCheck is a check that is run here.
type probedCheck struct {
	id         string
	apps       bool // it is the app's, which has passed it before it is run here
	definition map[string]any
	interval   time.Duration
	// How many results of a kind in a row it takes.
	successes, failures int
}

// probed are the checks of the app and the sidecar's own.
func (v *viaServers) probed(r *Registration) []probedCheck {
	sidecar := r.sidecarDefinition()
	var all []probedCheck
	for _, check := range slices.Concat(r.checks, wait.Objects(sidecar["checks"])) {
		id, apps := checkID(check)
		if check["ttl"] != nil || check["aliasservice"] != nil {
			continue // what this program says itself
		}
		all = append(all, probedCheck{
			id: id, apps: apps, definition: check,
			interval:  duration(check["interval"]),
			successes: wait.Number(check["successbeforepassing"]), failures: wait.Number(check["failuresbeforecritical"]),
		})
	}
	return all
}

// duration reads one that was checked at staging.
func duration(value any) time.Duration {
	text, _ := value.(string)
	d, err := time.ParseDuration(text)
	if err != nil {
		return time.Second
	}
	return d
}

// run runs a check of an app that works, until ctx ends.
func (v *viaServers) run(ctx context.Context, r *Registration, check probedCheck) {
	for !r.Works.Load() {
		if wait.Pause(ctx, instance.Beat) != nil {
			return
		}
	}
	results := newTally(check)
	next := check.interval
	if !check.apps {
		next = 0
	}
	for unsaid := false; wait.Pause(ctx, next) == nil; {
		err := probe(ctx, check.definition)
		if ctx.Err() != nil {
			return
		}
		output, why := "", ""
		if err != nil {
			output, why = err.Error(), ": "+err.Error()
		}
		if state := results.add(err == nil); state != "" && v.set(check.id, state, output) {
			unsaid = true
			v.Log("%s: check %q is %s%s", r.ID, check.definition["name"], state, why)
		}
		unsaid = unsaid && v.writing.do(ctx, func() error { return v.publish(ctx, r) }) != nil
		next = check.interval
		if unsaid { // callers are to know as soon as the servers take it
			next = min(next, instance.Beat)
		}
	}
}

// tally counts results of a check as an agent does (Consul 1.22, agent/checks,
// StatusHandler): the first decides at once.
type tally struct {
	probedCheck
	good, bad int // in a row
}

func newTally(check probedCheck) *tally {
	t := &tally{probedCheck: check, good: check.successes, bad: check.failures}
	if check.apps {
		t.bad = 0 // it has passed
	}
	return t
}

// add returns the state that a result makes it, empty where it takes more of them.
func (t *tally) add(good bool) (state string) {
	if good {
		t.good, t.bad = t.good+1, 0
	} else {
		t.good, t.bad = 0, t.bad+1
	}
	switch {
	case good && t.good >= t.successes:
		return consul.Passing
	case !good && t.bad >= t.failures:
		return consul.Critical
	}
	return ""
}
