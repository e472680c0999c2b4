package instance

import (
	"testing"
	"time"

	"github.com/consul-mesh/mesh-buildpack/src/droplet"
)

// TestDrain: the more callers have to hear of a stop, the longer it waits for that, and
// the less for what they have in flight; what mesh.hcl says stays.
func TestDrain(t *testing.T) {
	t.Parallel()
	const second = time.Second
	usual := droplet.Lifecycle{DrainDelay: second, DrainTimeout: 3 * second, LongestDrainDelay: 3 * second, Grace: Grace}
	long := droplet.Lifecycle{DrainDelay: second, DrainTimeout: 18 * second, LongestDrainDelay: 18 * second, Grace: 6 * Grace}
	timeout := droplet.Lifecycle{DrainDelay: 300 * time.Millisecond, DrainTimeout: 2 * second, LongestDrainDelay: 2 * second, Grace: Grace}
	both := droplet.Lifecycle{DrainDelay: 100 * time.Millisecond, DrainTimeout: 2 * second, Grace: Grace}
	earlier := droplet.Lifecycle{DrainDelay: 300 * time.Millisecond, DrainTimeout: 3 * second} // of 0.1.0
	for name, test := range map[string]struct {
		lifecycle        droplet.Lifecycle
		callers, servers int
		delay, timeout   time.Duration
	}{
		"nobody":                 {usual, 0, 3, second, 3 * second},
		"a few":                  {usual, 100, 1, second, 3 * second},
		"a thousand, 3 servers":  {usual, 1000, 3, 1533333333, 2466666667},
		"a thousand, 1 server":   {usual, 1000, 1, 3 * second, second},
		"ten thousand":           {usual, 10_000, 3, 3 * second, second},
		"ten thousand, long":     {long, 10_000, 3, 13533333333, 10466666667},
		"no server known":        {usual, 500, 0, 2200 * time.Millisecond, 1800 * time.Millisecond},
		"the timeout is said":    {timeout, 1000, 1, 2 * second, 2 * second},
		"both are said":          {both, 1000, 1, 100 * time.Millisecond, 2 * second},
		"mesh.json of 0.1.0":     {earlier, 1000, 1, 300 * time.Millisecond, 3 * second},
		"the smallest that grow": {timeout, 50, 1, 400 * time.Millisecond, 2 * second},
	} {
		delay, timeout := Drain(test.lifecycle, test.callers, test.servers)
		if delay != test.delay || timeout != test.timeout {
			t.Errorf("%s: %v and %v, want %v and %v", name, delay, timeout, test.delay, test.timeout)
		}
		if longest := LongestDrain(test.lifecycle); delay+timeout > longest {
			t.Errorf("%s: %v and %v are more than %v", name, delay, timeout, longest)
		}
	}
	if got := Within(long, StopBudget); got != 48*second {
		t.Errorf("the app of an instance with a minute is killed after %v", got)
	}
	if got := Within(earlier, StopBudget); got != StopBudget {
		t.Errorf("that of 0.1.0 after %v", got)
	}
}
