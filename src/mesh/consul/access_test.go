package consul

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/consul-mesh/mesh-buildpack/src/credentials"
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

// TestClearTextIsSaid at every start, and to whoever looks.
func TestClearTextIsSaid(t *testing.T) {
	t.Parallel()
	for _, plaintext := range []bool{false, true} {
		said := 0
		log := func(format string, args ...any) {
			if strings.Contains(fmt.Sprintf(format, args...), `the tokens of the bound service "mesh" go to the servers in clear text`) {
				said++
			}
		}
		a := NewAccess("", &credentials.Credentials{Binding: "mesh", ServiceToken: "t", AgentToken: "t", Plaintext: plaintext}, nil, log)
		if want := map[bool]int{false: 1}[plaintext]; said != want || len(a.Notes()) != want {
			t.Errorf("plaintext %t: said %d times, notes %q", plaintext, said, a.Notes())
		}
	}
}
