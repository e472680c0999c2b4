package cell

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// Deploy is a rolling deployment of the web process, as the Cloud Controller's
// deployment updater makes it: a second process with the same indexes beside the
// first. Whenever all new instances count, that is they are running and pass the
// readiness check where there is one, the old process is scaled down by one, from
// its highest index, and the new one up. Nobody waits until an old instance is
// gone. In the end the other processes are restarted.
//
// A deployment that fails, or is not done when ctx ends, is cancelled: the new
// process is stopped and the old one has all its instances again.
func (r *RunningApp) Deploy(ctx context.Context, d *Droplet) error {
	before, n := r.Droplet(), r.scale()[webProcess]
	if err := r.Use(d); err != nil {
		return err
	}
	var fresh, leaving []*slot
	for index := range n {
		s, err := r.beside(ctx, index)
		if err == nil {
			fresh = append(fresh, s)
			err = waitRoutable(ctx, fresh)
		}
		if err != nil {
			err = fmt.Errorf("failed to deploy app %s: %w", r.app.Name, err)
			return errors.Join(err, r.cancel(context.WithoutCancel(ctx), before, fresh, leaving))
		}
		if old := r.slotOf(n - 1 - index); old != nil {
			leaving = append(leaving, old)
			r.leave(old)
		}
	}
	if err := stopAll(ctx, leaving); err != nil {
		return err
	}
	return r.restartOthers(ctx)
}

// cancel goes back to the droplet of before.
func (r *RunningApp) cancel(ctx context.Context, before *Droplet, fresh, left []*slot) error {
	r.leave(fresh...)
	err := errors.Join(r.Use(before), stopAll(ctx, slices.Concat(fresh, left)))
	for _, s := range left {
		err = errors.Join(err, r.fill(ctx, webProcess, s.index))
	}
	return err
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
