package chaos

import (
	"context"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/consul-mesh/mesh-buildpack/integration/foundation"
)

// hang is how long a stopped process is left alone. It is shorter than what
// makes other members of the gossip give an agent up; longHang is longer than a
// session lives, and a check that nobody passes any more.
const (
	hang     = 4 * time.Second
	longHang = 25 * time.Second
)

// processFault is a signal to one process of one instance. bound is when
// callers have recovered, counted from the signal.
type processFault struct {
	part      foundation.Part
	signal    syscall.Signal
	bound     time.Duration
	agentless time.Duration // the bound without agents, where it is another
	forever   bool          // a stopped process does not go on by itself
	long      bool          // it goes on after longHang
}

// processFaults: what ends by itself is out of rotation a fifth of a second
// later, where there is somebody to say so; what hangs, when it has not
// answered for a second.
var processFaults = []processFault{
	{part: foundation.Consul, signal: syscall.SIGKILL, bound: time.Second},
	{part: foundation.Envoy, signal: syscall.SIGKILL, bound: time.Second},
	{part: foundation.MeshAgent, signal: syscall.SIGKILL, bound: time.Second},
	{part: foundation.MeshProxy, signal: syscall.SIGKILL, bound: 2 * time.Second}, // the agent leaves, or mesh app takes the instance out
	{part: foundation.MeshApp, signal: syscall.SIGKILL, bound: time.Second},
	{part: foundation.Echo, signal: syscall.SIGKILL, bound: time.Second},

	{part: foundation.Consul, signal: syscall.SIGTERM, bound: time.Second},
	{part: foundation.Envoy, signal: syscall.SIGTERM, bound: time.Second},
	{part: foundation.MeshAgent, signal: syscall.SIGTERM, bound: time.Second},
	{part: foundation.MeshProxy, signal: syscall.SIGTERM, bound: time.Second},
	{part: foundation.MeshApp, signal: syscall.SIGTERM, bound: 5 * time.Second, agentless: 7 * time.Second}, // passed on after 4.1 s, or 5.4 s, without the proxy's word
	{part: foundation.Echo, signal: syscall.SIGTERM, bound: time.Second},

	{part: foundation.Consul, signal: syscall.SIGSTOP, bound: time.Second},
	// A hung agent is ended and started again.
	{part: foundation.Consul, signal: syscall.SIGSTOP, bound: time.Second, forever: true},
	{part: foundation.Envoy, signal: syscall.SIGSTOP, bound: 3 * time.Second},
	{part: foundation.MeshAgent, signal: syscall.SIGSTOP, bound: time.Second},
	{part: foundation.MeshProxy, signal: syscall.SIGSTOP, bound: time.Second},
	// One that does not say that it is there goes out of rotation, and comes back.
	{part: foundation.MeshProxy, signal: syscall.SIGSTOP, bound: time.Second, long: true},
	{part: foundation.MeshApp, signal: syscall.SIGSTOP, bound: time.Second},
	{part: foundation.Echo, signal: syscall.SIGSTOP, bound: 4 * time.Second}, // its check: every second, with a second to answer
}

// TestProcesses does all of them in the long form, and one with each signal in
// the short one.
func TestProcesses(t *testing.T) { inEachMode(t, true, processes) }

func processes(t *testing.T) {
	roll(t)
	faults := map[syscall.Signal][]processFault{}
	there, err := foundation.Parts(mesh.service.Instance(0))
	if err != nil {
		t.Fatal(err)
	}
	for _, fault := range processFaults {
		if _, exists := there[fault.part]; !exists {
			t.Logf("%v: an instance has no such process", fault)
			continue
		}
		faults[fault.signal] = append(faults[fault.signal], fault)
	}
	for _, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM, syscall.SIGSTOP} {
		some := faults[signal]
		dice.Shuffle(len(some), func(a, b int) { some[a], some[b] = some[b], some[a] })
		if !long {
			some = some[:1]
		}
		for _, fault := range some {
			t.Run(fault.String(), func(t *testing.T) {
				survive(t, fault.within(), fault.do)
			})
		}
	}
}

func (f processFault) within() time.Duration {
	if mesh.agentless() && f.agentless > 0 {
		return f.agentless
	}
	return f.bound
}

// do sends the signal at a random moment to a random instance. A process that
// was stopped goes on later.
func (f processFault) do(ctx context.Context) (time.Time, error) {
	<-time.After(time.Duration(dice.IntN(1000)) * time.Millisecond)
	index := dice.IntN(instances)
	if f.part == foundation.Consul && f.signal == syscall.SIGTERM {
		// One that ends by itself in its first five seconds ends its instance.
		<-time.After(time.Until(mesh.service.Instance(index).StartedAt().Add(6 * time.Second)))
	}
	found, err := foundation.Parts(mesh.service.Instance(index))
	if err != nil {
		return time.Time{}, err
	}
	pid := found[f.part].HostPid
	if pid == 0 {
		return time.Time{}, fmt.Errorf("instance %d has no %s", index, f.part)
	}
	from := time.Now()
	if err := syscall.Kill(pid, f.signal); err != nil {
		return from, err
	}
	if f.signal != syscall.SIGSTOP {
		return from, changed(ctx, index, f.part, pid)
	}
	switch {
	case f.forever:
		if err = changed(ctx, index, f.part, pid); err == nil {
			return from, nil
		}
	case f.long:
		<-time.After(longHang)
	default:
		<-time.After(hang)
	}
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil && err != syscall.ESRCH { // its keeper may have ended it
		return from, err
	}
	return from, err
}

// changed waits until the instance, or the one after it, has another process as
// that part: before that everything may look well.
func changed(ctx context.Context, index int, part foundation.Part, pid int) error {
	ctx, cancel := context.WithTimeout(ctx, settledWithin)
	defer cancel()
	return foundation.Eventually(ctx, fmt.Sprintf("there is another %s", part), func(context.Context) error {
		now, err := foundation.Parts(mesh.service.Instance(index))
		if err != nil {
			return err
		}
		if now[part].HostPid == pid || now[part].HostPid == 0 {
			return fmt.Errorf("the processes are %v", now)
		}
		return nil
	})
}

func (f processFault) String() string {
	name := map[syscall.Signal]string{syscall.SIGKILL: "kill -9", syscall.SIGTERM: "SIGTERM", syscall.SIGSTOP: "SIGSTOP"}[f.signal]
	switch {
	case f.forever:
		name += " for ever"
	case f.long:
		name += " for long"
	}
	return name + " of " + string(f.part)
}
