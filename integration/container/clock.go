package container

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Processes are stopped while their clocks are set, for as short as it takes. If
// one does not stop in time all go on, and it is tried again.
const (
	clockTries = 20
	stopWithin = 100 * time.Millisecond
)

// errBusy: a process has not stopped, or not where its clock can be set.
var errBusy = errors.New("a process does not stop")

// SetClock has every process that runs in the container, init included, see a
// time of day that is so much ahead of the machine's, or behind it: a step, as
// when somebody sets the clock. Whole seconds count. 0 is the machine's time
// again. Monotonic clocks and timers are not touched.
//
// Programs that are started afterwards see the machine's time, also in a process
// whose clock was set, and so do programs that ask the kernel itself
// instead of the functions that it maps into every process (its vDSO). Those of
// Go and of the C library ask the functions. Only amd64 is supported.
func (c *Container) SetClock(ahead time.Duration) error {
	if runtime.GOARCH != "amd64" {
		return fmt.Errorf("failed to set the clock: not supported on %s", runtime.GOARCH)
	}
	seconds := int32(ahead / time.Second)
	if time.Duration(seconds)*time.Second != ahead {
		return fmt.Errorf("failed to set the clock: %s is not a number of seconds that fits 32 bits", ahead)
	}
	var err error
	for range clockTries {
		if err = c.setClocks(seconds); !errors.Is(err, errBusy) {
			break
		}
		<-time.After(10 * time.Millisecond)
	}
	if err != nil {
		return fmt.Errorf("failed to set the clock: %w", err)
	}
	return nil
}

// setClocks stops all processes before the first clock is set: a process that
// is about to run another program shares its memory with it.
func (c *Container) setClocks(seconds int32) error {
	processes, err := c.Processes()
	if err != nil {
		return err
	}
	var pids []int
	for _, p := range processes {
		if p.HostPid == 0 {
			continue
		}
		if p.State != "T" {
			if err := unix.Kill(p.HostPid, unix.SIGSTOP); err != nil {
				continue // it has ended
			}
			defer func() { _ = unix.Kill(p.HostPid, unix.SIGCONT) }()
		}
		pids = append(pids, p.HostPid)
	}
	deadline := time.Now().Add(stopWithin)
	var all []vdso
	for _, pid := range pids {
		v, err := stoppedVDSO(pid, deadline)
		if gone(err) {
			continue // it has ended
		}
		if err != nil {
			return fmt.Errorf("process %d: %w", pid, err)
		}
		all = append(all, v)
	}
	for _, v := range all {
		if err := v.set(seconds); err != nil {
			return fmt.Errorf("process %d: %w", v.pid, err)
		}
	}
	return nil
}

// stoppedVDSO waits until no thread of a process runs.
func stoppedVDSO(pid int, deadline time.Time) (vdso, error) {
	for {
		rests, err := allThreads(pid, threadRests)
		if err != nil {
			return vdso{}, err
		}
		if rests {
			break
		}
		if time.Now().After(deadline) {
			return vdso{}, errBusy
		}
		<-time.After(100 * time.Microsecond)
	}
	v, err := findVDSO(pid)
	if err != nil {
		return v, err
	}
	clear, err := allThreads(pid, func(dir string) (bool, error) {
		pc, err := threadPC(dir)
		return !v.overwrites(pc), err
	})
	if err == nil && !clear {
		err = errBusy
	}
	return v, err
}

// allThreads leaves out threads that end meanwhile.
func allThreads(pid int, is func(dir string) (bool, error)) (bool, error) {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	if err != nil {
		return false, err
	}
	for _, dir := range threads {
		ok, err := is(dir)
		if gone(err) {
			continue
		}
		if !ok || err != nil {
			return false, err
		}
	}
	return true, nil
}

// gone says of what was read of a process or thread that it has ended.
func gone(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) }

// threadRests is about a thread of a process that was told to stop. One that
// waits in the kernel, and cannot be interrupted, stops before it returns.
func threadRests(dir string) (bool, error) {
	stat, err := os.ReadFile(filepath.Join(dir, "stat"))
	return !strings.Contains("RS", stateIn(stat)), err
}

// threadPC is the last field of /proc/PID/task/TID/syscall (proc_pid_syscall(5)).
func threadPC(dir string) (uint64, error) {
	text, err := os.ReadFile(filepath.Join(dir, "syscall"))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(text))
	if len(fields) < 3 {
		return 0, errBusy // "running"
	}
	return strconv.ParseUint(fields[len(fields)-1], 0, 64)
}
