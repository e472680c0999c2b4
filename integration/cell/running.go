package cell

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
)

// RunningApp is an app that was started. Its instances are kept running until it
// is stopped.
type RunningApp struct {
	cell  *Cell
	app   App
	guid  string
	since int // how many lines were logged before it was pushed

	mu         sync.Mutex
	sidecars   []Sidecar                // guarded by mu: the user's
	droplet    *Droplet                 // guarded by mu: of instances that start
	slots      map[string]map[int]*slot // guarded by mu: by process type and index
	incoming   []*slot                  // guarded by mu: beside others of the same index
	leaving    []*slot                  // guarded by mu: told to stop, in nobody's place
	deployment *Deployment              // guarded by mu: in progress, if there is one
	lost       []*Instance              // guarded by mu: still in apps.internal though their cell is gone
}

// Start starts the app's instances and returns when their containers exist,
// without waiting for the app. Where the app is there already, it is pushed again:
// what ran stops first, and the app keeps its GUID, its policies and the sidecars of
// the user's.
func (c *Cell) Start(ctx context.Context, app App, d *Droplet) (*RunningApp, error) {
	r := &RunningApp{
		cell: c, app: app.withDefaults(), guid: c.appGUID(app), droplet: d,
		slots: map[string]map[int]*slot{webProcess: {}},
	}
	r.sidecars = app.Sidecars
	old := c.App(app.Name)
	if old != nil {
		r.sidecars = merge(old.userSidecars(), app.Sidecars)
	}
	if err := r.takes(d); err != nil {
		return nil, fmt.Errorf("failed to start app %s: %w", app.Name, err)
	}
	if old != nil {
		if err := old.Stop(ctx); err != nil {
			return nil, err
		}
		if err := old.forget(); err != nil {
			return nil, err
		}
	}
	c.mu.Lock()
	r.since = c.pushed[r.app.Name]
	c.started[r.app.Name] = r
	c.mu.Unlock()
	err := c.tcp.update()
	if err == nil {
		err = r.startAll(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, r.Stop(ctx), r.forget())
	}
	return r, nil
}

// Push stages and starts an app and waits until it is running.
func (c *Cell) Push(ctx context.Context, app App) (*RunningApp, error) {
	d, err := c.Stage(ctx, app)
	if err != nil {
		return nil, err
	}
	r, err := c.Start(ctx, app, d)
	if err != nil {
		return nil, err
	}
	return r, r.WaitRunning(ctx)
}

// App is what was started, with defaults filled in.
func (r *RunningApp) App() App { return r.app }

// Droplet is what instances run that start from now on.
func (r *RunningApp) Droplet() *Droplet {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.droplet
}

// Use changes the droplet, as a restage does. Instances that run keep theirs, also
// through crashes, until the app is restarted or they are evacuated.
func (r *RunningApp) Use(d *Droplet) error {
	if err := r.takes(d); err != nil {
		return fmt.Errorf("failed to assign a droplet to app %s: %w", r.app.Name, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.droplet = d
	return nil
}

// GUID is the app's id, VCAP_APPLICATION's application_id.
func (r *RunningApp) GUID() string { return r.guid }

// Instance is the web instance with that index, nil if there is none. After a
// crash, or when it was replaced, it is another one.
func (r *RunningApp) Instance(i int) *Instance { return r.InstanceOf(webProcess, i) }

// InstanceOf is the instance of another process type.
func (r *RunningApp) InstanceOf(processType string, i int) *Instance {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.slots[processType][i]; s != nil {
		return s.instance()
	}
	return nil
}

// Instances are the instances of all process types, by type and index.
func (r *RunningApp) Instances() (all []*Instance) {
	for _, s := range r.allSlots() {
		if i := s.instance(); i != nil {
			all = append(all, i)
		}
	}
	return all
}

// routable are the web instances to which routes lead, those that start beside
// others and those that are told to stop included.
func (r *RunningApp) routable() (all []*Instance) {
	for _, s := range r.everySlot() {
		if i := s.instance(); i != nil && i.processType == webProcess && i.Routable() {
			all = append(all, i)
		}
	}
	return all
}

// allSlots are those that the app is meant to have, by process type and index.
func (r *RunningApp) allSlots() (all []*slot) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, processType := range slices.Sorted(maps.Keys(r.slots)) {
		for _, index := range slices.Sorted(maps.Keys(r.slots[processType])) {
			all = append(all, r.slots[processType][index])
		}
	}
	return all
}

// everySlot has also those that come or go.
func (r *RunningApp) everySlot() []*slot {
	all := r.allSlots()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.leaving = slices.DeleteFunc(r.leaving, (*slot).hasEnded)
	for _, s := range slices.Concat(r.incoming, r.leaving) {
		if !slices.Contains(all, s) {
			all = append(all, s)
		}
	}
	return all
}

func (r *RunningApp) internalRoute() string {
	if r.app.InternalRoute == "-" {
		return ""
	}
	return strings.ToLower(r.app.InternalRoute)
}

func (r *RunningApp) routes() []string { return r.app.Routes }

// scale is the number of instances of each process type.
func (r *RunningApp) scale() map[string]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := maps.Clone(r.app.Scale)
	if n == nil {
		n = map[string]int{}
	}
	n[webProcess] = r.app.Instances
	return n
}

func (r *RunningApp) startAll(ctx context.Context) error {
	var starting sync.WaitGroup
	var mu sync.Mutex
	var errs []error
	for processType, n := range r.scale() {
		for index := range n {
			starting.Go(func() {
				err := r.fill(ctx, processType, index)
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, err)
			})
		}
	}
	starting.Wait()
	return errors.Join(errs...)
}

// fill starts an instance where there is none, or none any more.
func (r *RunningApp) fill(ctx context.Context, processType string, index int) error {
	s, err := r.newSlot(ctx, processType, index)
	if err != nil {
		return fmt.Errorf("failed to start %s/%d of app %s: %w", processType, index, r.app.Name, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.slots[processType] == nil {
		r.slots[processType] = map[int]*slot{}
	}
	r.slots[processType][index] = s
	return nil
}

// WaitRunning waits until every instance is running, also through crashes.
func (r *RunningApp) WaitRunning(ctx context.Context) error {
	for _, s := range r.allSlots() {
		if err := s.wait(ctx, (*Instance).WaitRunning); err != nil {
			return fmt.Errorf("app %s does not run: %w\n%s", r.app.Name, err, tail(r.Logs(), 20))
		}
	}
	return nil
}

// Stop stops all instances at once and waits until they are gone. A deployment in
// progress is cancelled first.
func (r *RunningApp) Stop(ctx context.Context) error {
	if d := r.inDeployment(); d != nil {
		d.cancel(errCancelled)
		_ = d.Wait(ctx) // if it could be cancelled no more it is over
	}
	return stopAll(ctx, r.everySlot())
}

// Restart stops all instances and then starts as many. It does not wait until
// they are running.
func (r *RunningApp) Restart(ctx context.Context) error {
	if err := r.Stop(ctx); err != nil {
		return err
	}
	return r.startAll(ctx)
}

// Scale changes the number of web instances. It waits for those that stop, not
// for those that start.
func (r *RunningApp) Scale(ctx context.Context, n int) error {
	r.mu.Lock()
	if r.deployment != nil {
		r.mu.Unlock()
		return fmt.Errorf("failed to scale app %s: it is being deployed", r.app.Name)
	}
	r.app.Instances = n
	var surplus []*slot
	missing := map[int]bool{}
	for index := range n {
		missing[index] = r.slots[webProcess][index] == nil
	}
	for index, s := range r.slots[webProcess] {
		if index >= n {
			surplus = append(surplus, s)
			delete(r.slots[webProcess], index)
		}
	}
	r.mu.Unlock()
	r.leave(surplus...)
	for index := range n {
		if missing[index] {
			if err := r.fill(ctx, webProcess, index); err != nil {
				return err
			}
		}
	}
	return stopAll(ctx, surplus)
}

// Delete stops the app and deletes it, with its GUID, its policies and its build
// cache.
func (r *RunningApp) Delete(ctx context.Context) error {
	if err := r.Stop(ctx); err != nil {
		return err
	}
	if r.cell.App(r.app.Name) != r { // it was pushed again, or deleted before
		return nil
	}
	return errors.Join(r.forget(), r.cell.deleteApp(r.app.Name), os.RemoveAll(r.cell.CacheDir(r.app.Name)))
}

// forget has the cell no longer know the app as this one.
func (r *RunningApp) forget() error {
	r.cell.mu.Lock()
	if r.cell.started[r.app.Name] != r {
		r.cell.mu.Unlock()
		return nil
	}
	delete(r.cell.started, r.app.Name)
	r.cell.pushed[r.app.Name] = len(r.cell.Logs(r.app.Name))
	r.cell.mu.Unlock()
	return r.cell.tcp.update()
}
