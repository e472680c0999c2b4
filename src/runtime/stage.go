package runtime

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// Log prints one line for the app's log.
type Log func(format string, args ...any)

// NewLog prints lines that start with "mesh: ", one at a time.
func NewLog(out io.Writer) Log {
	var mutex sync.Mutex
	return func(format string, args ...any) {
		mutex.Lock()
		defer mutex.Unlock()
		// Where the app's log is gone there is nobody to tell.
		_, _ = fmt.Fprintf(out, "mesh: "+format+"\n", args...)
	}
}

// Polling starts fast, because most conditions come true within milliseconds,
// and slows down, because the rest takes seconds.
const (
	pollFirst = 5 * time.Millisecond
	pollLast  = 250 * time.Millisecond
)

// attemptTimeout is how long one try of a condition may take.
const attemptTimeout = 2 * time.Second

// poll tries a condition until it holds or ctx ends, and then returns the last
// reason why it did not hold.
func poll(ctx context.Context, condition func(context.Context) error) error {
	return pollUnbounded(ctx, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
		defer cancel()
		return condition(ctx)
	})
}

// pollUnbounded is poll of a condition that bounds itself.
func pollUnbounded(ctx context.Context, condition func(context.Context) error) error {
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

// finalError is a reason that will not go away by trying again.
type finalError struct{ error }

func (e *finalError) Unwrap() error { return e.error }

// stage is a part of the start that is waited for.
type stage struct {
	name      string // what is true after it, such as "leader known"
	hint      string // what to try where nothing better is known
	condition func(context.Context) error
	bounded   bool // the condition bounds itself, and may take longer than an attempt
}

// timeline is the stages of one start.
type timeline struct {
	log Log

	mutex  sync.Mutex
	stages []*StageStatus
}

// StageStatus is how far a stage is.
type StageStatus struct {
	Name    string  `json:"name"`
	Done    bool    `json:"done"`
	Seconds float64 `json:"seconds"`         // how long it took, or has taken
	Bound   float64 `json:"bound,omitempty"` // how long it may take, in seconds; 0: as long as the platform lets it
	Seen    string  `json:"seen,omitempty"`  // why it is not done, as it was seen last
	begun   time.Time
}

// begin adds a stage, whose bound is that of ctx.
func (t *timeline) begin(ctx context.Context, name string) *StageStatus {
	s := &StageStatus{Name: name, begun: time.Now()}
	if until, ok := ctx.Deadline(); ok {
		s.Bound = until.Sub(s.begun).Seconds()
	}
	t.mutex.Lock()
	defer t.mutex.Unlock()
	t.stages = append(t.stages, s)
	return s
}

// done logs how long a stage took.
func (t *timeline) done(s *StageStatus) {
	t.mutex.Lock()
	s.Done, s.Seconds, s.Seen = true, time.Since(s.begun).Seconds(), ""
	t.mutex.Unlock()
	if s.Bound > 0 {
		t.log("%s (%.3f s of %.0f)", s.Name, s.Seconds, s.Bound)
	} else {
		t.log("%s (%.3f s)", s.Name, s.Seconds)
	}
}

func (t *timeline) saw(s *StageStatus, err error) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	s.Seen = err.Error()
}

// list copies the stages.
func (t *timeline) list() []StageStatus {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	var all []StageStatus
	for _, s := range t.stages {
		one := *s
		if !one.Done {
			one.Seconds = time.Since(one.begun).Seconds()
		}
		all = append(all, one)
	}
	return all
}

// stageError is a stage that did not come true.
type stageError struct {
	stage   stage
	seconds float64
	seen    error
}

func (e *stageError) Error() string {
	return fmt.Sprintf("not %s after %.1f s, last seen: %v", e.stage.name, e.seconds, e.seen)
}

func (e *stageError) Unwrap() error { return e.seen }

// await waits for a stage and logs how long it took, or returns a stageError.
func (t *timeline) await(ctx context.Context, s stage) error {
	status := t.begin(ctx, s.name)
	try := poll
	if s.bounded {
		try = pollUnbounded
	}
	err := try(ctx, func(ctx context.Context) error {
		err := s.condition(ctx)
		if err != nil {
			t.saw(status, err)
		}
		return err
	})
	if err == nil {
		t.done(status)
		return nil
	}
	return &stageError{s, time.Since(status.begun).Seconds(), err}
}

// awaitAll waits for stages one after the other, up to the first that does not
// come true.
func (t *timeline) awaitAll(ctx context.Context, stages []stage) error {
	for _, s := range stages {
		if err := t.await(ctx, s); err != nil {
			return err
		}
	}
	return nil
}
