package instance

import (
	"time"

	"github.com/consul-mesh/mesh-buildpack/src/droplet"
)

// Within is a budget of a stop where the platform gives another grace than Grace: the
// same share of it.
func Within(l droplet.Lifecycle, budget time.Duration) time.Duration {
	if l.Grace == 0 {
		return budget
	}
	return time.Duration(float64(budget) * (float64(l.Grace) / float64(Grace)))
}

// Drain is how long a stop gives callers to hear of it, and then their requests in
// flight, where so many are to hear of it from so many servers. Both are as mesh.hcl
// says where it says them; otherwise they share DrainBudget.
func Drain(l droplet.Lifecycle, callers, servers int) (delay, timeout time.Duration) {
	delay, timeout = l.DrainDelay, l.DrainTimeout
	if l.LongestDrainDelay == 0 {
		return delay, timeout
	}
	told := time.Duration(callers) * time.Second / time.Duration(TellsPerSecond*max(servers, 1))
	delay = max(delay, min(HearAfter+told, l.LongestDrainDelay))
	return delay, min(timeout, max(0, Within(l, DrainBudget)-delay))
}

// LongestDrain bounds what Drain says, both together.
func LongestDrain(l droplet.Lifecycle) time.Duration {
	if l.LongestDrainDelay == 0 {
		return l.DrainDelay + l.DrainTimeout
	}
	return max(l.DrainDelay+l.DrainTimeout, Within(l, DrainBudget))
}
