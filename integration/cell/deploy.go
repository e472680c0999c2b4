package cell

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// errCancelled is why a deployment has ended that Cancel has ended.
var errCancelled = errors.New("it was cancelled")

// Deployment is a rolling deployment of the web process, as the Cloud Controller's
// deployment updater makes it: a second process with the same indexes beside the
// first. Whenever all new instances count, that is they are running and pass the
// readiness check where there is one, the old process is scaled down by one, from
// its highest index, and the new one up. Nobody waits until an old instance is
// gone. In the end the other processes are restarted.
//
// A deployment that is cancelled, or fails, goes back at once: the old process has
// its full number of instances again and the new one none, and nobody waits until
// the old ones are running before the new ones stop. Only an instance whose
// predecessor is still stopping waits for that.
type Deployment struct {
	app         *RunningApp
	before      *Droplet
	instances   int
	fresh, left []*slot // of the new process, and of the old one that have to go
	cancel      context.CancelCauseFunc
	done        chan struct{}
	err, undone error // set when done is closed: how it ended, and how going back did
}

// Deploy makes a deployment and waits until it is over. One that is not done when
// ctx ends is cancelled.
func (r *RunningApp) Deploy(ctx context.Context, d *Droplet) error {
	deployment, err := r.startDeployment(ctx, d)
	if err != nil {
		return err
	}
	<-deployment.done
	return deployment.err
}

// StartDeployment begins a deployment. There can be one at a time: here none is
// superseded by another.
func (r *RunningApp) StartDeployment(d *Droplet) (*Deployment, error) {
	return r.startDeployment(context.Background(), d)
}

func (r *RunningApp) startDeployment(ctx context.Context, d *Droplet) (*Deployment, error) {
	if err := r.takes(d); err != nil {
		return nil, fmt.Errorf("failed to deploy app %s: %w", r.app.Name, err)
	}
	n := r.scale()[webProcess]
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.deployment != nil {
		return nil, fmt.Errorf("failed to deploy app %s: it is being deployed, and superseding that is not supported", r.app.Name)
	}
	deployment := &Deployment{app: r, before: r.droplet, instances: n, done: make(chan struct{})}
	ctx, deployment.cancel = context.WithCancelCause(ctx)
	r.deployment, r.droplet = deployment, d
	r.cell.loops.Go(func() { deployment.run(ctx) })
	return deployment, nil
}

// Wait waits until the deployment is over. It is an error if it has failed or was
// cancelled.
func (d *Deployment) Wait(ctx context.Context) error {
	select {
	case <-d.done:
		return d.err
	case <-ctx.Done():
		return fmt.Errorf("the deployment of app %s is not over: %w", d.app.app.Name, ctx.Err())
	}
}

// Cancel is "cf cancel-deployment". It returns when the new process is gone and the
// old one starts what it has lost, for which WaitRunning waits. A deployment that
// is over cannot be cancelled.
func (d *Deployment) Cancel(ctx context.Context) error {
	d.cancel(errCancelled)
	select {
	case <-d.done:
	case <-ctx.Done():
		return fmt.Errorf("the deployment of app %s is not cancelled: %w", d.app.app.Name, ctx.Err())
	}
	if !errors.Is(d.err, errCancelled) {
		return fmt.Errorf("failed to cancel the deployment of app %s: it is over", d.app.app.Name)
	}
	return d.undone
}

// CancelDeployment cancels the deployment in progress.
func (r *RunningApp) CancelDeployment(ctx context.Context) error {
	d := r.inDeployment()
	if d == nil {
		return fmt.Errorf("app %s is not being deployed", r.app.Name)
	}
	return d.Cancel(ctx)
}

// inDeployment is the deployment in progress, nil if there is none.
func (r *RunningApp) inDeployment() *Deployment {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.deployment
}

func (d *Deployment) run(ctx context.Context) {
	defer close(d.done)
	defer d.cancel(nil)
	err := d.replace(ctx)
	always := context.WithoutCancel(ctx)
	if err == nil {
		err = errors.Join(stopAll(always, d.left), d.app.restartOthers(always))
	} else {
		if errors.Is(context.Cause(ctx), errCancelled) {
			err = errCancelled
		}
		err = fmt.Errorf("failed to deploy app %s: %w", d.app.app.Name, err)
		d.undone = d.goBack(always)
	}
	d.err = errors.Join(err, d.undone)
	d.app.mu.Lock()
	defer d.app.mu.Unlock()
	d.app.deployment = nil
}

// replace has the new process take the place of the old one.
func (d *Deployment) replace(ctx context.Context) error {
	for index := range d.instances {
		s, err := d.app.beside(ctx, index)
		if err != nil {
			return err
		}
		d.fresh = append(d.fresh, s)
		if err := waitRoutable(ctx, d.fresh); err != nil {
			return err
		}
		if old := d.app.slotOf(d.instances - 1 - index); old != nil {
			d.left = append(d.left, old)
			d.app.leave(old)
		}
	}
	return nil
}

// goBack is back at the old process alone.
func (d *Deployment) goBack(ctx context.Context) (err error) {
	err = d.app.Use(d.before)
	d.app.leave(d.fresh...)
	for _, s := range d.left {
		err = errors.Join(err, stopAll(ctx, []*slot{s}), d.app.fill(ctx, webProcess, s.index))
	}
	return errors.Join(err, stopAll(ctx, d.fresh))
}

func (r *RunningApp) restartOthers(ctx context.Context) error {
	others := slices.DeleteFunc(r.allSlots(), func(s *slot) bool { return s.processType == webProcess })
	err := stopAll(ctx, others)
	for _, s := range others {
		err = errors.Join(err, r.fill(ctx, s.processType, s.index))
	}
	return err
}

// Evacuate has the platform move a web instance, as it does for every instance of
// a cell that is to be updated: a replacement with the same index starts beside
// it, and it is stopped as soon as the replacement is running.
func (r *RunningApp) Evacuate(ctx context.Context, index int) error {
	old := r.slotOf(index)
	if old == nil {
		return fmt.Errorf("app %s has no instance %d", r.app.Name, index)
	}
	s, err := r.beside(ctx, index)
	if err != nil {
		return fmt.Errorf("failed to evacuate instance %d of app %s: %w", index, r.app.Name, err)
	}
	if err = s.wait(ctx, (*Instance).WaitRunning); err != nil {
		old = s
	}
	r.leave(old)
	return errors.Join(err, stopAll(ctx, []*slot{old}))
}

// beside starts a web instance beside the one with the same index, of which it
// takes the place when that one is told to stop.
func (r *RunningApp) beside(ctx context.Context, index int) (*slot, error) {
	s, err := r.newSlot(ctx, webProcess, index)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.incoming = append(r.incoming, s)
	r.settle()
	return s, nil
}

// leave has instances stop that routes have until they are gone.
func (r *RunningApp) leave(slots ...*slot) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range slots {
		s.stop()
	}
	r.leaving = append(r.leaving, slots...)
	r.incoming = slices.DeleteFunc(r.incoming, func(s *slot) bool { return slices.Contains(slots, s) })
	r.settle()
}

// settle gives the place of those that are stopping to those that came beside
// them. It is called with mu held.
func (r *RunningApp) settle() {
	r.incoming = slices.DeleteFunc(r.incoming, func(s *slot) bool {
		old := r.slots[webProcess][s.index]
		if old != nil && !old.isStopping() {
			return false
		}
		r.slots[webProcess][s.index] = s
		return true
	})
}

func (r *RunningApp) slotOf(index int) *slot {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.slots[webProcess][index]
}

func waitRoutable(ctx context.Context, slots []*slot) error {
	for _, s := range slots {
		if err := s.wait(ctx, (*Instance).WaitRoutable); err != nil {
			return err
		}
	}
	return nil
}
