package container_test

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/consul-mesh/mesh-buildpack/integration/container"
)

// tellTime in its environment makes of this test program one that answers each
// line with the time of day and how long it has run, both in nanoseconds. With
// the value busy it reads the time all the while, and starts programs.
const tellTime = "TELL_TIME"

func tell() int {
	begun := time.Now()
	if os.Getenv(tellTime) == "busy" {
		for range 4 {
			go func() {
				for time.Now().After(begun) {
				}
			}()
		}
		for {
			if err := exec.Command("/bin/true").Run(); err != nil {
				return 1
			}
		}
	}
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		fmt.Println(time.Now().UnixNano(), int64(time.Since(begun)))
	}
	return 0
}

// teller is a program in a container that answers each line with times.
type teller struct {
	in  io.Writer
	out *bufio.Reader
}

func startTeller(t *testing.T, c *container.Container, p container.Process) teller {
	t.Helper()
	stdin, in := io.Pipe()
	out, stdout := io.Pipe()
	p.Stdin, p.Stdout = stdin, stdout
	if _, err := c.Run(p); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close() })
	return teller{in, bufio.NewReader(out)}
}

// ask returns the answer's numbers, all of them times in the unit that is
// named.
func (o teller) ask(t *testing.T, n int, unit time.Duration) []time.Duration {
	t.Helper()
	if _, err := fmt.Fprintln(o.in, "what time is it?"); err != nil {
		t.Fatal(err)
	}
	line, err := o.out.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	var all []time.Duration
	for _, field := range strings.Fields(line) {
		var number int64
		if _, err := fmt.Sscan(field, &number); err != nil {
			t.Fatalf("got %q: %v", line, err)
		}
		all = append(all, time.Duration(number)*unit)
	}
	if len(all) != n {
		t.Fatalf("got %q, want %d numbers", line, n)
	}
	return all
}

// steps are tried one after the other; the last one is back to the machine's
// time.
var steps = []time.Duration{time.Hour, 26 * time.Hour, -time.Hour, -20 * 365 * 24 * time.Hour, 0}

// near allows for a busy machine, and for times in whole seconds.
const near = 5 * time.Second

func isAhead(t *testing.T, what string, told, by time.Duration) {
	t.Helper()
	if off := told - time.Duration(time.Now().UnixNano()) - by; off.Abs() > near {
		t.Errorf("%s is %s from what a clock that is %s ahead says", what, off, by)
	}
}

func TestClockOfGoPrograms(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := start(t, container.Mount{Source: self, Target: "/tmp/tell", ReadOnly: true})
	o := startTeller(t, c, container.Process{Path: "/tmp/tell", Env: []string{tellTime + "=1"}})
	begun := time.Now().Add(-o.ask(t, 2, 1)[1])
	for _, by := range steps {
		if err := c.SetClock(by); err != nil {
			t.Fatal(err)
		}
		times := o.ask(t, 2, 1)
		isAhead(t, "the time of day", times[0], by)
		if off := times[1] - time.Since(begun); off.Abs() > near {
			t.Errorf("the monotonic clock has stepped as well, by %s", off)
		}
	}
}

// TestClockOfTheCLibrary: bash asks for it with gettimeofday and with time.
func TestClockOfTheCLibrary(t *testing.T) {
	c := start(t)
	o := startTeller(t, c, bash(`while read -r; do printf '%s %(%s)T %s\n' $EPOCHSECONDS -1 ${EPOCHREALTIME%.*}; done`))
	for _, by := range steps {
		if err := c.SetClock(by); err != nil {
			t.Fatal(err)
		}
		for i, told := range o.ask(t, 3, time.Second) {
			isAhead(t, fmt.Sprintf("time %d", i+1), told, by)
		}
	}
}

// TestClockOfWhatComesLater: a new program has the machine's time.
func TestClockOfWhatComesLater(t *testing.T) {
	c := start(t)
	if err := c.SetClock(time.Hour); err != nil {
		t.Fatal(err)
	}
	o := startTeller(t, c, bash(`read -r; echo $EPOCHSECONDS`))
	isAhead(t, "the time of day", o.ask(t, 1, time.Second)[0], 0)
}

// TestClockOfBusyPrograms sets it while threads read it and programs are started.
func TestClockOfBusyPrograms(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := start(t, container.Mount{Source: self, Target: "/tmp/tell", ReadOnly: true})
	busy, err := c.Run(container.Process{Path: "/tmp/tell", Env: []string{tellTime + "=busy"}})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 50 {
		if err := c.SetClock(time.Duration(i) * time.Second); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case <-busy.Done():
		status, _ := busy.Wait(t.Context())
		t.Errorf("it ended: %s", status)
	default:
	}
}

func TestClockRefuses(t *testing.T) {
	c := start(t)
	for _, by := range []time.Duration{time.Second / 2, 100 * 365 * 24 * time.Hour} {
		if err := c.SetClock(by); err == nil {
			t.Errorf("the clock was set %s ahead", by)
		}
	}
}
