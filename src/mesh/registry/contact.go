package registry

import (
	"errors"
	"time"

	"github.com/consul-mesh/mesh-buildpack/src/mesh/instance"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/wait"
)

// contact says when an instance is cut off from all servers, and when it no longer is.
type contact struct {
	failed int       // renewals in a row
	since  time.Time // the first of those
}

// note notes the outcome of a renewal. That the servers have lost the instance is an
// answer.
func (c *contact) note(log wait.Log, err error) {
	var lost *lostError
	if err == nil || errors.As(err, &lost) {
		if c.failed >= instance.CutOffAfter {
			log("the servers take what this instance says again (%.1f s)", time.Since(c.since).Seconds())
		}
		c.failed = 0
		return
	}
	if c.failed++; c.failed == 1 {
		c.since = time.Now()
	}
	if c.failed == instance.CutOffAfter {
		log("no server takes what this instance says, callers go by what they have heard before: %v", err)
	}
}
