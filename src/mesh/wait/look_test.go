package wait

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// TestLook: one look without an answer is no verdict, two are, after the same time.
func TestLook(t *testing.T) {
	t.Parallel()
	refused := errors.New("refused")
	const long = time.Second
	for name, test := range map[string]struct {
		answers []time.Duration // of the looks, 0 for none
		err     error
		after   time.Duration
		want    error
	}{
		"at once":                {[]time.Duration{1}, nil, 1, nil},
		"refused":                {[]time.Duration{1}, refused, 1, refused},
		"the first is slow":      {[]time.Duration{long - 100*time.Millisecond, 0}, nil, long - 100*time.Millisecond, nil},
		"the first is lost":      {[]time.Duration{0, 100 * time.Millisecond}, nil, long/2 + 100*time.Millisecond, nil},
		"the second is refused":  {[]time.Duration{0, 1}, refused, long/2 + 1, refused},
		"both are lost":          {[]time.Duration{0, 0}, nil, long, ErrLate},
		"both come after a hang": {[]time.Duration{2 * long, 2 * long}, nil, long, ErrLate},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begun := time.Now()
				var looks atomic.Int32
				err := Look(t.Context(), long, func(ctx context.Context) error {
					after := test.answers[looks.Add(1)-1]
					if after == 0 {
						<-ctx.Done()
						return ctx.Err()
					}
					if err := Pause(ctx, after); err != nil {
						return err
					}
					return test.err
				})
				took := time.Since(begun)
				if !errors.Is(err, test.want) || err != nil && test.want == nil || took < test.after || took > test.after+2*lookTick {
					t.Errorf("%v after %v, want %v after %v", err, took, test.want, test.after)
				}
			})
		})
	}
}

// asksInVain has the test's own program look at somebody who answers when a line comes.
const asksInVain = "WAIT_TEST_ASKS"

// TestNotRunInTime: the time in which the one who looks is not run itself does not
// count against who was asked.
func TestNotRunInTime(t *testing.T) {
	const long = 2 * time.Second
	if os.Getenv(asksInVain) != "" {
		input := bufio.NewScanner(os.Stdin)
		answered := make(chan struct{})
		go func() {
			input.Scan()
			close(answered)
		}()
		fmt.Println("asks")
		err := Look(t.Context(), long, func(ctx context.Context) error {
			select {
			case <-answered:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
		fmt.Println("result:", err)
		return
	}
	t.Parallel()
	cmd := exec.Command(os.Args[0], "-test.run=^TestNotRunInTime$")
	cmd.Env = append(os.Environ(), asksInVain+"=1")
	input, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	output, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	lines := bufio.NewScanner(output)
	lines.Scan() // it asks
	if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * long)
	if err := cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	time.Sleep(long / 4) // who was asked had to be run, too
	fmt.Fprintln(input)
	for lines.Scan() {
		if result, is := strings.CutPrefix(lines.Text(), "result: "); is {
			if result != "<nil>" {
				t.Errorf("it says %q of who had no time to answer", result)
			}
			return
		}
	}
	t.Error("it says nothing")
}
