package wait

import (
	"context"
	"errors"
	"time"
)

// ErrLate says that who was asked twice has answered neither time.
var ErrLate = errors.New("no answer, asked twice")

// lookTick is how exactly the time is told that somebody has had for an answer.
const lookTick = 25 * time.Millisecond

// Look asks somebody who may hang, and gives the answer. Where there is none after half
// of the time it asks once more, beside the first, which may have been lost; ErrLate is
// that neither was answered. Only time counts in which this process was run itself: on
// a machine that is short of processors, or in a container that has used up its share,
// who was asked had no time either.
func Look(ctx context.Context, long time.Duration, ask func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answers := make(chan error, 2)
	look := func() { answers <- ask(ctx) }
	go look()
	ticker := time.NewTicker(lookTick)
	defer ticker.Stop()
	again := long / 2
	for last := time.Now(); ; {
		select {
		case err := <-answers:
			return err
		case <-ticker.C:
		}
		now := time.Now()
		had := min(now.Sub(last), 2*lookTick) // a tick may be a little late
		last, long, again = now, long-had, again-had
		if again <= 0 && again+had > 0 {
			go look()
		}
		if long > 0 {
			continue
		}
		select {
		case err := <-answers: // while this process was not run
			return err
		default:
			return ErrLate
		}
	}
}
