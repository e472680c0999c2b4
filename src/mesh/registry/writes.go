package registry

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/consul-mesh/mesh-buildpack/src/mesh/consul"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/instance"
)

// A write whose caller gave it up, or lost the answer, may be carried out later,
// after a newer one: the catalog compares nothing before it sets. So an instance
// has one write about itself under way at a time, waits for its answer as long as
// the one who was asked is there at all, and where an answer was lost does not go
// by the answers of later writes: it looks how things are, when the next write has
// come through and again when the lost one can no longer come.

// doubt is about writes that have failed, and may be carried out all the same.
type doubt struct {
	mutex  sync.Mutex
	since  time.Time // the last such write; guarded by mutex
	looked time.Time // how things are was seen last; guarded by mutex
}

// note notes the outcome of a write.
func (d *doubt) note(err error) {
	if !mayComeLater(err) {
		return
	}
	d.mutex.Lock()
	defer d.mutex.Unlock()
	d.since = time.Now()
}

// settled notes that all was as it was meant to be at a time.
func (d *doubt) settled(at time.Time) {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	d.looked = at
}

// isDue says that somebody has to look how things are.
func (d *doubt) isDue() bool { return d.dueIn() <= 0 }

// lasts says that such a write may still come.
func (d *doubt) lasts() bool { return d.dueIn() != never }

// never is longer than any instance lives.
const never = 1<<63 - 1

// dueIn is when somebody has to look: at once after a write that may come later,
// when it can no longer come, and when it cannot even from slow servers.
func (d *doubt) dueIn() time.Duration {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	if d.since.IsZero() {
		return never
	}
	for _, after := range []time.Duration{0, instance.HoldTime, instance.LongestHold} {
		if due := d.since.Add(after); d.looked.Before(due) {
			return time.Until(due)
		}
	}
	return never
}

// mayComeLater says that a write with this outcome may still be carried out. One
// that was refused is not, nor one that was never sent.
func mayComeLater(err error) bool {
	var status *consul.StatusError
	if errors.As(err, &status) {
		return status.Status >= http.StatusInternalServerError
	}
	var unsent *consul.UnsentError
	var network *net.OpError
	return err != nil && !errors.As(err, &unsent) && !(errors.As(err, &network) && network.Op == "dial")
}

// oneAtATime lets one after the other do something, and nobody wait for longer than
// its context.
type oneAtATime struct {
	once  sync.Once
	busy  chan struct{}
	turns atomic.Int64 // begun and ended: odd while something is done
}

func (o *oneAtATime) do(ctx context.Context, work func() error) error {
	o.once.Do(func() { o.busy = make(chan struct{}, 1) })
	select {
	case o.busy <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	o.turns.Add(1)
	defer func() {
		o.turns.Add(1)
		<-o.busy
	}()
	return work()
}
