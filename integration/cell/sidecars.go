package cell

import (
	"context"
	"fmt"
	"slices"
)

// refusal is a sentence of the Cloud Controller's.
type refusal string

func (r refusal) Error() string { return string(r) }

// errUnknown is all that it says of what it does not expect.
const errUnknown refusal = "code: 10001, title: CF-UnknownError, detail: An unknown error occurred."

// Copy is the droplet as another app gets it, by a copy, an upload or a promotion.
// Sidecars are none of a droplet's: the Cloud Controller has them from staging, and
// copies only the rest.
func (d *Droplet) Copy() *Droplet {
	c := *d
	c.Sidecars, c.Log = nil, ""
	return &c
}

// Rollback deploys the droplet of an earlier revision. The sidecars that it has from
// its buildpacks are the user's from then on, and so in the way of all other
// droplets with sidecars of these names, until they are deleted.
func (r *RunningApp) Rollback(ctx context.Context, d *Droplet) error {
	if err := r.takes(d); err != nil {
		return fmt.Errorf("failed to roll back app %s: %w", r.app.Name, err)
	}
	r.mu.Lock()
	r.sidecars = merge(r.sidecars, d.Sidecars)
	r.mu.Unlock()
	return r.Deploy(ctx, d.Copy())
}

// DeleteSidecar is what cf curl -X DELETE /v3/sidecars/GUID does to a sidecar of the
// user's. Instances that run keep it until they crash.
func (r *RunningApp) DeleteSidecar(name string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := slices.IndexFunc(r.sidecars, named(name))
	if i < 0 {
		return fmt.Errorf("app %s has no sidecar %s of the user's", r.app.Name, name)
	}
	r.sidecars = slices.Delete(slices.Clone(r.sidecars), i, i+1)
	return nil
}

// takes tells why the Cloud Controller does not let the app have a droplet.
func (r *RunningApp) takes(d *Droplet) error {
	for _, s := range d.Sidecars {
		if slices.ContainsFunc(r.userSidecars(), named(s.Name)) {
			return refusal(fmt.Sprintf("Buildpack defined sidecar '%s' conflicts with an existing user-defined sidecar. Consider renaming '%[1]s'.", s.Name))
		}
	}
	for processType := range r.scale() {
		sum := 0
		for _, s := range r.sidecarsOf(d, processType) {
			sum += s.Memory
		}
		if sum >= r.app.Memory {
			return errUnknown
		}
	}
	return nil
}

// sidecarsOf a process type: the buildpacks' and the user's own. Where both have one
// of a name, the app was rolled back, and they are the same.
func (r *RunningApp) sidecarsOf(d *Droplet, processType string) []Sidecar {
	return slices.DeleteFunc(merge(d.Sidecars, r.userSidecars()), func(s Sidecar) bool {
		return !slices.Contains(s.ProcessTypes, processType)
	})
}

func (r *RunningApp) userSidecars() []Sidecar {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.sidecars
}

// merge has all of both, and of those with one name the latter.
func merge(before, now []Sidecar) (all []Sidecar) {
	for _, s := range before {
		if !slices.ContainsFunc(now, named(s.Name)) {
			all = append(all, s)
		}
	}
	return append(all, now...)
}

func named(name string) func(Sidecar) bool {
	return func(s Sidecar) bool { return s.Name == name }
}
