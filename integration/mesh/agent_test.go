package mesh

import (
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/consul-mesh/mesh-buildpack/integration/foundation"
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
	// What the app registers by itself, as Spring Cloud Consul does.
	const itsOwn = `{"Name": "by-itself", "Port": 7000, "Check": {"Name": "listens", "TCP": "127.0.0.1:8500", "Interval": "1s"}}`
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://127.0.0.1:8500/v1/agent/service/register", strings.NewReader(itsOwn))
	if err != nil {
		t.Fatal(err)
	}
	response, err := backend.Instance(0).HTTPClient().Do(request)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("%v, %v", response, err)
	}
	response.Body.Close()
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
		eventually(t, "what the app has registered is passing", func(ctx ctx) error {
			var found []struct{ Node struct{ Node string } }
			err := shared.Consul(ctx, http.MethodGet, "/v1/health/service/by-itself?passing", nil, &found)
			if err == nil && (len(found) != 1 || found[0].Node.Node != foundation.NodeOf(backend.Instance(0))) {
				err = fmt.Errorf("the catalog has %v", found)
			}
			return err
		})
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
