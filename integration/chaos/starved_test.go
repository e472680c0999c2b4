package chaos

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// A starved cell has so many busy loops for each of its processors, for so long.
const (
	busyLoops  = 10
	starvedFor = 30 * time.Second
)

// TestStarvedCell: everything on the cell is run a fraction of the time.
func TestStarvedCell(t *testing.T) {
	if !long {
		t.Skip("in the long form only: other tests run beside the short one")
	}
	inEachMode(t, false, starvedCell)
}

func starvedCell(t *testing.T) {
	unharmed(t, func(ctx context.Context) error {
		var loops errgroup.Group
		for range busyLoops * runtime.NumCPU() {
			// They end by themselves, also where this test is ended.
			loop := exec.CommandContext(ctx, "timeout", fmt.Sprint(starvedFor.Seconds()), "sh", "-c", "while :; do :; done")
			loops.Go(func() error {
				var ended *exec.ExitError
				if err := loop.Run(); !errors.As(err, &ended) || ended.ExitCode() != timedOut {
					return fmt.Errorf("a busy loop has ended otherwise: %w", err)
				}
				return nil
			})
		}
		return loops.Wait()
	})
}

// timedOut is how timeout(1) ends where it has ended the program.
const timedOut = 124
