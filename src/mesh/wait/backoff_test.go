package wait

import (
	"testing"
	"time"
)

// TestBackoff: each wait is a random part of a bound, which doubles up to a most and
// begins anew when something has worked.
func TestBackoff(t *testing.T) {
	t.Parallel()
	const many = 1000
	bounds := []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 5 * time.Second, 5 * time.Second}
	sums := make([]time.Duration, len(bounds))
	b := &Backoff{First: time.Second, Most: 5 * time.Second}
	for range many {
		for i, bound := range bounds {
			next := b.Next()
			if next < 0 || next >= bound {
				t.Fatalf("wait %d is %v, bound %v", i, next, bound)
			}
			sums[i] += next
		}
		b.Reset()
	}
	for i, bound := range bounds {
		if mean := sums[i] / many; mean < bound*4/10 || mean > bound*6/10 {
			t.Errorf("wait %d is %v on average, bound %v", i, mean, bound)
		}
	}
}
