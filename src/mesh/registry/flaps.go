package registry

import (
	"time"

	"github.com/consul-mesh/mesh-buildpack/src/mesh/instance"
)

// Flaps keeps a check that fails and passes in turn from being written each time: that
// it fails is told at once, that it passes again only so often a minute, and then later.
type Flaps struct {
	back  []time.Time // when it counted as passing again, within FlapWindow
	since time.Time   // from when it has been seen to pass, zero while it fails
	slow  bool        // it is told later
}

// Fails notes that the check was seen to fail.
func (f *Flaps) Fails() { f.since = time.Time{} }

// MayPass says whether a check that has failed, and was just seen to pass, counts as
// passing again. news says that it does not for the first time in a while.
func (f *Flaps) MayPass() (yes, news bool) {
	now := time.Now()
	if f.since.IsZero() {
		f.since = now
	}
	for len(f.back) > 0 && now.Sub(f.back[0]) >= instance.FlapWindow {
		f.back = f.back[1:]
	}
	often := len(f.back) >= instance.FlapsAtOnce
	if often && now.Sub(f.since) < instance.FlapPause {
		news, f.slow = !f.slow, true
		return false, news
	}
	return true, false
}

// Passes notes that the check counts as passing again.
func (f *Flaps) Passes() {
	f.slow = len(f.back) >= instance.FlapsAtOnce
	f.back, f.since = append(f.back, time.Now()), time.Time{}
}
