// Package wait is how the container program waits: for a condition, polled until it
// holds or a context ends, for the steps of a start, each named, bounded and logged,
// and for somebody to listen. It has what the others need for that: the log, decoded
// JSON and gRPC's framing.
package wait

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Polling starts fast, because most conditions come true within milliseconds,
// and slows down, because the rest takes seconds.
const (
	pollFirst = 5 * time.Millisecond
	pollLast  = 250 * time.Millisecond
)

// AttemptTimeout is how long one try of a condition may take.
const AttemptTimeout = 2 * time.Second

// Poll tries a condition until it holds or ctx ends, and then returns the last
// reason why it did not hold.
func Poll(ctx context.Context, condition func(context.Context) error) error {
	return PollUnbounded(ctx, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, AttemptTimeout)
		defer cancel()
		return condition(ctx)
	})
}

// PollUnbounded is poll of a condition that bounds itself.
func PollUnbounded(ctx context.Context, condition func(context.Context) error) error {
	pause := pollFirst
	var last error
	for {
		err := condition(ctx)
		if err == nil {
			return nil
		}
		var final *finalError
		if errors.As(err, &final) {
			return err
		}
		// The reason of an attempt that the end of ctx cut short says nothing.
		if last == nil || ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return last
		case <-time.After(pause):
		}
		pause = min(pause*10/9, pollLast)
	}
}

// FinalError is a reason that will not go away by trying again.
type finalError struct{ error }

func (e *finalError) Unwrap() error { return e.error }

// Final says that trying again is of no use.
func Final(err error) error { return &finalError{err} }

// Step is a part of the start that is waited for.
type Step struct {
	Name      string // what is true after it, such as "leader known"
	Hint      string // what to try where nothing better is known; empty where something always is
	Condition func(context.Context) error
	Bounded   bool // the condition bounds itself, and may take longer than an attempt
}

// Timeline is the steps of one start.
type Timeline struct {
	Log Log

	mutex sync.Mutex
	steps []*StepStatus
}

// StepStatus is how far a step is.
type StepStatus struct {
	Name    string  `json:"name"`
	Done    bool    `json:"done"`
	Seconds float64 `json:"seconds"`         // how long it took, or has taken
	Bound   float64 `json:"bound,omitempty"` // how long it may take, in seconds; 0: as long as the platform lets it
	Seen    string  `json:"seen,omitempty"`  // why it is not done, as it was seen last
	Begun   time.Time
}

// Begin adds a step, whose bound is that of ctx.
func (t *Timeline) Begin(ctx context.Context, name string) *StepStatus {
	s := &StepStatus{Name: name, Begun: time.Now()}
	if until, ok := ctx.Deadline(); ok {
		s.Bound = until.Sub(s.Begun).Seconds()
	}
	t.mutex.Lock()
	defer t.mutex.Unlock()
	t.steps = append(t.steps, s)
	return s
}

// Done logs how long a step took.
func (t *Timeline) Done(s *StepStatus) {
	t.mutex.Lock()
	s.Done, s.Seconds, s.Seen = true, time.Since(s.Begun).Seconds(), ""
	t.mutex.Unlock()
	if s.Bound > 0 {
		t.Log("%s (%.3f s of %.0f)", s.Name, s.Seconds, s.Bound)
	} else {
		t.Log("%s (%.3f s)", s.Name, s.Seconds)
	}
}

// Saw notes why a step is not done yet.
func (t *Timeline) Saw(s *StepStatus, err error) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	s.Seen = err.Error()
}

// List copies the steps.
func (t *Timeline) List() []StepStatus {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	var all []StepStatus
	for _, s := range t.steps {
		one := *s
		if !one.Done {
			one.Seconds = time.Since(one.Begun).Seconds()
		}
		all = append(all, one)
	}
	return all
}

// StepError is a step that did not come true.
type StepError struct {
	Step    Step
	seconds float64
	Seen    error
}

func (e *StepError) Error() string {
	return fmt.Sprintf("not %s after %.1f s, last seen: %v", e.Step.Name, e.seconds, e.Seen)
}

func (e *StepError) Unwrap() error { return e.Seen }

// Await waits for a step and logs how long it took, or returns a StepError.
func (t *Timeline) Await(ctx context.Context, s Step) error {
	status := t.Begin(ctx, s.Name)
	try := Poll
	if s.Bounded {
		try = PollUnbounded
	}
	err := try(ctx, func(ctx context.Context) error {
		err := s.Condition(ctx)
		if err != nil {
			t.Saw(status, err)
		}
		return err
	})
	if err == nil {
		t.Done(status)
		return nil
	}
	return &StepError{s, time.Since(status.Begun).Seconds(), err}
}

// AwaitAll waits for steps one after the other, up to the first that does not
// come true.
func (t *Timeline) AwaitAll(ctx context.Context, steps []Step) error {
	for _, s := range steps {
		if err := t.Await(ctx, s); err != nil {
			return err
		}
	}
	return nil
}
