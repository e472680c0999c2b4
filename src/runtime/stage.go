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

// poll tries a condition until it holds or ctx ends, and then returns the last
// reason why it did not hold.
func poll(ctx context.Context, condition func(context.Context) error) error {
	pause := pollFirst
	var last error
	for {
		attempt, cancel := context.WithTimeout(ctx, 2*time.Second)
		err := condition(attempt)
		cancel()
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
		pause = min(pause*5/4, pollLast)
	}
}

// finalError is a reason that will not go away by trying again.
type finalError struct{ error }

func (e *finalError) Unwrap() error { return e.error }

// stage is a part of the start that is waited for.
type stage struct {
	name      string // what is true after it, such as "leader known"
	hint      string // what to try where it does not come true
	condition func(context.Context) error
}

// await waits for a stage and logs how long it took, or says which stage did
// not come, what was seen last, and what to try.
func await(ctx context.Context, log Log, s stage) error {
	started := time.Now()
	err := poll(ctx, s.condition)
	if err == nil {
		log("%s (%.3f s)", s.name, time.Since(started).Seconds())
		return nil
	}
	return fmt.Errorf("not %s after %.1f s, last seen: %w\nhint: %s",
		s.name, time.Since(started).Seconds(), err, s.hint)
}
