package chaos

import (
	"context"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/consul-mesh/mesh-buildpack/integration/cell"
	"github.com/consul-mesh/mesh-buildpack/integration/foundation"
)

// hang is how long a stopped process is left alone. It is shorter than what
// makes other members of the gossip give an agent up.
const hang = 4 * time.Second

// processFault is a signal to one process of one instance. bound is when
// callers have recovered, counted from the signal.
type processFault struct {
	part   foundation.Part
	signal syscall.Signal
	bound  time.Duration
}

// processFaults: what ends by itself is out of rotation a fifth of a second
// later, where there is somebody to say so; what hangs, when it has not
// answered for a second.
var processFaults = []processFault{
	{foundation.Consul, syscall.SIGKILL, time.Second},
	{foundation.Envoy, syscall.SIGKILL, time.Second},
	{foundation.MeshAgent, syscall.SIGKILL, 2 * time.Second},
	{foundation.MeshProxy, syscall.SIGKILL, 2 * time.Second}, // nobody deregisters, the agent leaves
	{foundation.MeshApp, syscall.SIGKILL, time.Second},
	{foundation.Echo, syscall.SIGKILL, time.Second},

	{foundation.Consul, syscall.SIGTERM, time.Second},
	{foundation.Envoy, syscall.SIGTERM, time.Second},
	{foundation.MeshAgent, syscall.SIGTERM, time.Second},
	{foundation.MeshProxy, syscall.SIGTERM, time.Second},
	{foundation.MeshApp, syscall.SIGTERM, 5 * time.Second}, // passed on after 3.8 s without the proxy's word
	{foundation.Echo, syscall.SIGTERM, time.Second},

	{foundation.Consul, syscall.SIGSTOP, time.Second},
	{foundation.Envoy, syscall.SIGSTOP, 3 * time.Second},
	{foundation.MeshAgent, syscall.SIGSTOP, time.Second},
	{foundation.MeshProxy, syscall.SIGSTOP, time.Second},
	{foundation.MeshApp, syscall.SIGSTOP, time.Second},
	{foundation.Echo, syscall.SIGSTOP, 4 * time.Second}, // its check: every second, with a second to answer
}

// TestProcesses does all of them in the long form, and one with each signal in
// the short one.
func TestProcesses(t *testing.T) {
	t.Logf("CHAOS_SEED=%d", seed)
	faults := map[syscall.Signal][]processFault{}
	for _, fault := range processFaults {
		if _, exists := parts(t, mesh.service.Instance(0))[fault.part]; exists {
			faults[fault.signal] = append(faults[fault.signal], fault)
		}
	}
	for _, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM, syscall.SIGSTOP} {
		some := faults[signal]
		dice.Shuffle(len(some), func(a, b int) { some[a], some[b] = some[b], some[a] })
		if !long {
			some = some[:1]
		}
		for _, fault := range some {
			t.Run(fmt.Sprintf("%s of %s", signalName(signal), fault.part), func(t *testing.T) {
				survive(t, fault.bound, fault.do)
			})
		}
	}
}

// do sends the signal at a random moment to a random instance. A process that
// was stopped goes on later.
func (f processFault) do(ctx context.Context) (time.Time, error) {
	<-time.After(time.Duration(dice.IntN(1000)) * time.Millisecond)
	victim := mesh.service.Instance(dice.IntN(instances))
	found, err := foundation.Parts(victim)
	if err != nil {
		return time.Time{}, err
	}
	pid := found[f.part].HostPid
	if pid == 0 {
		return time.Time{}, fmt.Errorf("instance %d has no %s", victim.Index(), f.part)
	}
	from := time.Now()
	if err := syscall.Kill(pid, f.signal); err != nil {
		return from, err
	}
	if f.signal != syscall.SIGSTOP {
		return from, changed(ctx, victim, f.part, pid)
	}
	<-time.After(hang)
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil && err != syscall.ESRCH { // its keeper may have ended it
		return from, err
	}
	return from, nil
}

// changed waits until an instance has another process as that part, or has
// ended: before that everything may look well.
func changed(ctx context.Context, victim *cell.Instance, part foundation.Part, pid int) error {
	return foundation.Eventually(ctx, fmt.Sprintf("the %s has ended", part), func(context.Context) error {
		select {
		case <-victim.Done():
			return nil
		default:
		}
		now, err := foundation.Parts(victim)
		if err == nil && now[part].HostPid == pid {
			return fmt.Errorf("it runs as process %d", pid)
		}
		return nil
	})
}

func parts(t *testing.T, i *cell.Instance) map[foundation.Part]struct{} {
	t.Helper()
	found, err := foundation.Parts(i)
	if err != nil {
		t.Fatal(err)
	}
	names := map[foundation.Part]struct{}{}
	for part := range found {
		names[part] = struct{}{}
	}
	return names
}

func signalName(s syscall.Signal) string {
	return map[syscall.Signal]string{syscall.SIGKILL: "kill -9", syscall.SIGTERM: "SIGTERM", syscall.SIGSTOP: "SIGSTOP"}[s]
}
