package mesh

import (
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestAgentEnds: an agent that is killed or hangs is started again on its
// data, and callers do not notice.
func TestAgentEnds(t *testing.T) {
	t.Parallel()
	backend, caller := withAgent.pair(t, 1)
	registered := func() (times int) {
		for _, line := range backend.Logs() {
			if strings.Contains(line.Text, "registered again (") {
				times++
			}
		}
		return times
	}
	for i, how := range []syscall.Signal{syscall.SIGKILL, syscall.SIGSTOP} {
		signal(t, backend.Instance(0), "bin/consul agent", how)
		// Its first synchronisations are done after six seconds.
		sent := 0
		for end := time.Now().Add(10 * time.Second); time.Now().Before(end); sent++ {
			if err := get(deadline(t), caller); err != nil {
				t.Errorf("%v: request %d: %v", how, sent, err)
			}
			<-time.After(5 * time.Millisecond)
		}
		t.Logf("%v: %d requests", how, sent)
		if got := registered(); got != i+1 {
			t.Fatalf("%v: the services were registered again %d times\n%s", how, got, tail(backend))
		}
		eventually(t, "it is in rotation", inRotation(withAgent.back))
	}
}

// TestAgentEndsAtStart: an agent that is killed while its instance starts is
// started again too, and the instance goes on.
func TestAgentEndsAtStart(t *testing.T) {
	t.Parallel()
	app := withAgent.echo(t, "beginner")
	droplet := stage(t, app)
	for _, stage := range []string{"agent up", "joined", "registered", "bootstrapped", "Envoy ready", "passing"} {
		t.Run(stage, func(t *testing.T) {
			running := withAgent.launchDroplet(t, app, droplet)
			waitLog(t, running, stage)
			first := running.Instance(0)
			kill(t, first, "bin/consul agent")
			waitLog(t, running, "it is started again on its data")
			eventually(t, "it is in rotation", inRotation(app.Name))
			wait(t, 2)
			if err := inRotation(app.Name)(t.Context()); err != nil || running.Instance(0) != first {
				t.Errorf("the instance is another one, or %v\n%s", err, tail(running))
			}
		})
	}
}
