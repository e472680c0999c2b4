package runtime

import (
	"context"
	"slices"
	"time"
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
func (v *viaServers) probed(r *registration) []probedCheck {
	sidecar := r.sidecarDefinition()
	var all []probedCheck
	for _, check := range slices.Concat(r.checks, objects(sidecar["checks"])) {
		id, apps := checkID(check)
		if check["ttl"] != nil || check["aliasservice"] != nil {
			continue // what this program says itself
		}
		all = append(all, probedCheck{
			id: id, apps: apps, definition: check,
			interval:  duration(check["interval"]),
			successes: number(check["successbeforepassing"]), failures: number(check["failuresbeforecritical"]),
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
func (v *viaServers) run(ctx context.Context, r *registration, check probedCheck) {
	for !r.works.Load() {
		if pause(ctx, beat) != nil {
			return
		}
	}
	good, bad := 0, 0
	wait := check.interval
	if !check.apps {
		wait = 0
	}
	for ; pause(ctx, wait) == nil; wait = check.interval {
		err := probe(ctx, check.definition)
		if ctx.Err() != nil {
			return
		}
		state, output := "", ""
		if err == nil {
			if good, bad = good+1, 0; good > check.successes {
				state = passing
			}
		} else {
			if good, bad = 0, bad+1; bad > check.failures {
				state, output = critical, err.Error()
			}
		}
		if state == "" || !v.set(check.id, state, output) {
			continue
		}
		if failed := v.publish(ctx, r); failed != nil {
			v.set(check.id, "", "") // it is still news
			continue
		}
		if err != nil {
			v.log("%s: check %q is %s: %v", r.ID, check.definition["name"], state, err)
		} else {
			v.log("%s: check %q is %s", r.ID, check.definition["name"], state)
		}
	}
}
