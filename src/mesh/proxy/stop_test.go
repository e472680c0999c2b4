package proxy

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/consul-mesh/mesh-buildpack/src/mesh/envoy"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/gate"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/meshtest"
)

// TestNothingHoldsAStopUp: an agent that does not answer, an Envoy that neither
// answers nor ends, and an app that ignores its end: the instance has said what it
// leaves behind before the platform kills it.
func TestNothingHoldsAStopUp(t *testing.T) {
	t.Parallel()
	p := starting(t, &meshtest.Script{}, "", "trap '' TERM; while :; do sleep 0.1; done")
	var mutex sync.Mutex
	var said strings.Builder
	p.Log = func(format string, args ...any) {
		mutex.Lock()
		defer mutex.Unlock()
		fmt.Fprintf(&said, format+"\n", args...)
	}
	p.Config.Lifecycle.DrainDelay, p.Config.Lifecycle.DrainTimeout = 300*time.Millisecond, 3*time.Second
	p.Consul.HTTP.Transport = meshtest.RoundTripper(func(r *http.Request) (*http.Response, error) {
		<-r.Context().Done()
		return nil, r.Context().Err()
	})
	e, err := envoy.Start(p.Inst, p.Config.Envoy, p.Services[0].EnvoySidecar(), []byte("{}"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Process.Process.Kill() })
	p.envoys = append(p.envoys, &served{Envoy: e, service: p.Services[0]})
	p.Services[0].Registered.Store(true)
	if p.gate, err = gate.New(t.Context(), p.Inst.Gate()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.gate.Listener.Close() })
	app, err := net.Dial("unix", p.Inst.Gate())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { app.Close() })
	fmt.Fprintln(app, gate.KindApp)
	p.gate.Open()
	hears := bufio.NewScanner(app)
	if !hears.Scan() || hears.Text() != gate.SayStart {
		t.Fatalf("the app was told %q", hears.Text())
	}

	const killed = 10 * time.Second
	begun := time.Now()
	stopped, cancel := context.WithCancel(t.Context())
	cancel()
	p.stop(stopped)
	if took := time.Since(begun); took >= killed {
		t.Errorf("it took %v", took)
	}
	if !hears.Scan() || hears.Text() != gate.SayStop {
		t.Errorf("the app was told %q", hears.Text())
	}
	select {
	case <-e.Exited:
	case <-time.After(time.Second):
		t.Error("Envoy was left behind")
	}
	for _, want := range []string{"one: failed to deregister", "one: stopping with ", "the app has not ended, leaving it to the platform", "stopped ("} {
		if !strings.Contains(said.String(), want) {
			t.Errorf("the log lacks %q:\n%s", want, said.String())
		}
	}
}
