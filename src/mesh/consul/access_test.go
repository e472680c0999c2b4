package consul

import (
	"testing"
	"time"
)

// TestDue: a login is renewed in time, however far off the servers' clock is.
func TestDue(t *testing.T) {
	for _, off := range []time.Duration{-time.Hour, 0, time.Hour} {
		for age, want := range map[time.Duration]bool{30 * time.Second: false, 50 * time.Second: true} {
			since := time.Now().Add(-age)
			created := since.Add(off)
			expires := created.Add(time.Minute)
			a := Access{login: &Login{CreateTime: created, ExpirationTime: &expires, Since: since}}
			if got := a.Due(); got != want {
				t.Errorf("servers %s ahead, a minute's login of %s ago: due is %t, want %t", off, age, got, want)
			}
		}
	}
}
