package cell

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// restartsAtOnce is how often an instance that has crashed is started again
// without delay.
const restartsAtOnce = 3

// slot keeps one instance of an app running: one after the other, all with the
// same index.
type slot struct {
	app         *RunningApp
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
		app: r, processType: processType, index: index,
		stopping: make(chan struct{}), ended: make(chan struct{}), next: make(chan struct{}),
	}
	first, err := r.newInstance(ctx, processType, index)
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
		if current.State() == Stopped || !s.pause(crashes) {
			return
		}
		next, err := s.app.newInstance(context.Background(), s.processType, s.index)
		for err != nil {
			s.app.cell.journal.cell(s.app.app.Name, s.index, "Failed to create an instance: %s", err)
			crashes++
			if !s.pause(max(crashes, restartsAtOnce+1)) {
				return
			}
			next, err = s.app.newInstance(context.Background(), s.processType, s.index)
		}
		s.set(next)
	}
}

// pause waits before the next instance; false means that there is to be none.
func (s *slot) pause(crashes int) bool {
	delay := time.Duration(0)
	if crashes > restartsAtOnce {
		delay = s.app.cell.options.RestartDelay
	}
	select {
	case <-s.stopping:
		return false
	case <-s.app.cell.closing:
		return false
	default:
	}
	select {
	case <-s.stopping:
		return false
	case <-s.app.cell.closing:
		return false
	case <-time.After(delay):
		return true
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

// waitRunning waits until the current instance, or one after it, is running.
func (s *slot) waitRunning(ctx context.Context) error {
	var crash error // of the instance before
	for {
		s.mu.Lock()
		current, next := s.current, s.next
		s.mu.Unlock()
		err := current.WaitRunning(ctx)
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
