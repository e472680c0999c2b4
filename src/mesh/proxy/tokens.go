package proxy

import (
	"errors"
	"math/rand/v2"
	"time"

	"github.com/consul-mesh/mesh-buildpack/src/mesh/consul"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/instance"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/wait"
)

// tokens is what is known of the tokens of a running instance, and when the servers
// are asked about them: now and then, and at once when a call was refused.
type tokens struct {
	due     time.Time // when the servers are asked next
	wrong   error     // what they have said last; nil: the tokens are good
	hurried bool      // a call was refused since
	soonest time.Time // when they are asked because of that
	pause   wait.Backoff

	renew time.Time // when a login is renewed, or services are moved to a token
	stuck error     // why that did not come through
	again wait.Backoff
}

// begin is for tokens that the start has found good.
func (t *tokens) begin() {
	t.due = later(instance.TokenLook)
	t.pause.First, t.pause.Most = instance.RefusedLook, instance.TokenLook
	t.again.First, t.again.Most = instance.AgainFirst, instance.ListAgain
}

// later is some time from now, and up to twice as much.
func later(least time.Duration) time.Time { return time.Now().Add(least + rand.N(least)) }

// isTime says that a time has come.
func isTime(when time.Time) bool { return !time.Now().Before(when) }

// hurry has the servers asked soon. Where calls are refused though the tokens are good,
// because a rule is missing, they are not asked each time.
func (t *tokens) hurry() {
	t.hurried = true
	if t.soonest.Before(t.due) {
		t.due = t.soonest
	}
}

// note notes what the servers have said. Servers that cannot be asked are no news of
// the tokens.
func (t *tokens) note(err error) {
	var refused *consul.RefusedError
	hurried := t.hurried
	t.hurried = false
	switch {
	case errors.As(err, &refused):
		t.wrong, t.due = err, later(instance.RefusedLook)
		t.soonest = t.due
	case err != nil:
		t.due = time.Now().Add(rand.N(instance.ListAgain))
		t.soonest = t.due
	default:
		t.wrong, t.due = nil, later(instance.TokenLook)
		if !hurried {
			t.pause.Reset()
			t.soonest = time.Time{}
			return
		}
		t.soonest = time.Now().Add(t.pause.Next())
	}
}
