package cell

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// How Diego starts instances again that have crashed: some times at once, then
// after a delay (30 s) that doubles up to 16 min. Who was up for 5 min has no
// crashes behind it.
const (
	restartsAtOnce = 3
	doublings      = 5
	resetAfter     = 10 // delays
)

// slot keeps one instance of an app running: one after the other, all with the
// same index.
type slot struct {
	app         *RunningApp
	droplet     *Droplet
	processType string
	index       int
	stopping    chan struct{}
	once        sync.Once
	ended       chan struct{}

	mu      sync.Mutex
	current *Instance     // guarded by mu
	next    chan struct{} // guarded by mu: closed when current changes
}

// newSlot returns when the first instance's container exists.
func (r *RunningApp) newSlot(ctx context.Context, processType string, index int) (*slot, error) {
	s := &slot{
		app: r, droplet: r.Droplet(), processType: processType, index: index,
		stopping: make(chan struct{}), ended: make(chan struct{}), next: make(chan struct{}),
	}
	first, err := r.newInstance(ctx, s.droplet, processType, index)
	if err != nil {
		return nil, err
	}
	s.set(first)
	r.cell.loops.Go(s.loop)
	return s, nil
}

func (s *slot) loop() {
	defer close(s.ended)
	for crashes := 1; ; crashes++ {
		current := s.instance()
		current.watch()
		if current.State() == Stopped {
			return
		}
		if current.isLost() {
			crashes-- // it was not its own fault
		} else if current.upFor() > resetAfter*s.app.cell.options.RestartDelay {
			crashes = 1
		}
		if !s.pause(crashes) {
			return
		}
		next, err := s.app.newInstance(context.Background(), s.droplet, s.processType, s.index)
		for err != nil {
			s.app.cell.journal.cell(s.app.app.Name, s.index, "Failed to create an instance: %s", err)
			crashes = max(crashes, restartsAtOnce) + 1
			if !s.pause(crashes) {
				return
			}
			next, err = s.app.newInstance(context.Background(), s.droplet, s.processType, s.index)
		}
		s.set(next)
	}
}

// backOff is how long to wait before another start after so many crashes.
func backOff(crashes int, delay time.Duration) time.Duration {
	if crashes <= restartsAtOnce {
		return 0
	}
	return delay << min(crashes-restartsAtOnce-1, doublings)
}

// pause waits before the next instance; false means that there is to be none.
func (s *slot) pause(crashes int) bool {
	if s.isStopping() {
		return false
	}
	select {
	case <-s.stopping:
		return false
	case <-s.app.cell.closing:
		return false
	case <-time.After(backOff(crashes, s.app.cell.options.RestartDelay)):
		return !s.isStopping()
	}
}

// isStopping tells whether there is to be no other instance.
func (s *slot) isStopping() bool {
	select {
	case <-s.stopping:
		return true
	case <-s.app.cell.closing:
		return true
	default:
		return false
	}
}

func (s *slot) hasEnded() bool {
	select {
	case <-s.ended:
		return true
	default:
		return false
	}
}

func (s *slot) instance() *Instance {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current
}

func (s *slot) set(i *Instance) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.current = i
	close(s.next)
	s.next = make(chan struct{})
	select {
	case <-s.stopping:
		i.requestStop()
	default:
	}
}

// stop returns at once.
func (s *slot) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.once.Do(func() { close(s.stopping) })
	s.current.requestStop()
}

// stopAll stops instances at the same time and waits until they are gone.
func stopAll(ctx context.Context, slots []*slot) error {
	for _, s := range slots {
		s.stop()
	}
	for _, s := range slots {
		select {
		case <-s.ended:
		case <-ctx.Done():
			return fmt.Errorf("%s/%d of app %s has not stopped: %w", s.processType, s.index, s.app.app.Name, ctx.Err())
		}
	}
	return nil
}

// wait waits, in the way given, for the current instance or one after it.
func (s *slot) wait(ctx context.Context, how func(*Instance, context.Context) error) error {
	var crash error // of the instance before
	for {
		s.mu.Lock()
		current, next := s.current, s.next
		s.mu.Unlock()
		err := how(current, ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil || current.State() != Crashed {
			return errors.Join(err, crash)
		}
		crash = err
		select {
		case <-next:
		case <-s.ended:
			return err
		case <-ctx.Done():
			return errors.Join(ctx.Err(), crash)
		}
	}
}
