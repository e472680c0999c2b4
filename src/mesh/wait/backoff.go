package wait

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

// Backoff is how long to wait before something that has failed is tried again: a
// random part of a bound, which is First and then twice as long each time, up to
// Most. So those whom one failure has hit come back spread over that time.
type Backoff struct {
	First, Most time.Duration

	mutex sync.Mutex
	bound time.Duration // of the next wait; 0: nothing has failed; guarded by mutex
	until time.Time     // of the wait that Fail has begun; guarded by mutex
}

// Next is how long to wait after a failure.
func (b *Backoff) Next() time.Duration {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	return b.next()
}

// next is Next. The mutex is held.
func (b *Backoff) next() time.Duration {
	bound := min(max(b.bound, b.First), b.Most)
	b.bound = 2 * bound
	if bound <= 0 {
		return 0
	}
	return rand.N(bound)
}

// Reset notes that it has worked.
func (b *Backoff) Reset() {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	b.bound = 0
}

// Fail notes a failure of one of several that Await. Those that fail while others wait
// are the same failure.
func (b *Backoff) Fail() {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	if now := time.Now(); !now.Before(b.until) {
		b.until = now.Add(b.next())
	}
}

// Await waits as long as is due after Fail, unless ctx ends.
func (b *Backoff) Await(ctx context.Context) error {
	b.mutex.Lock()
	left := time.Until(b.until)
	b.mutex.Unlock()
	if left <= 0 {
		return nil
	}
	return Pause(ctx, left)
}

// Pause waits after a failure, unless ctx ends.
func (b *Backoff) Pause(ctx context.Context) error { return Pause(ctx, b.Next()) }
