package runtime

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestNothingHoldsAStopUp: an agent that does not answer, an Envoy that neither
// answers nor ends, and an app that ignores its end: the instance has said what it
// leaves behind before the platform kills it.
func TestNothingHoldsAStopUp(t *testing.T) {
	t.Parallel()
	p := starting(t, &script{}, "", "trap '' TERM; while :; do sleep 0.1; done")
	var mutex sync.Mutex
	var said strings.Builder
	p.log = func(format string, args ...any) {
		mutex.Lock()
		defer mutex.Unlock()
		fmt.Fprintf(&said, format+"\n", args...)
	}
	p.config.Lifecycle.DrainDelay, p.config.Lifecycle.DrainTimeout = 300*time.Millisecond, 3*time.Second
	p.consul.http.Transport = roundTripper(func(r *http.Request) (*http.Response, error) {
		<-r.Context().Done()
		return nil, r.Context().Err()
	})
	e, err := p.inst.startEnvoy(p.config.Envoy, p.services[0], []byte("{}"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.process.Process.Kill() })
	p.envoys = append(p.envoys, e)
	p.services[0].registered.Store(true)
	if p.gate, err = newGate(t.Context(), p.inst.gate()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.gate.listener.Close() })
	app, err := net.Dial("unix", p.inst.gate())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { app.Close() })
	fmt.Fprintln(app, kindApp)
	p.gate.open()
	hears := bufio.NewScanner(app)
	if !hears.Scan() || hears.Text() != sayStart {
		t.Fatalf("the app was told %q", hears.Text())
	}

	const killed = 10 * time.Second
	begun := time.Now()
	p.stop()
	if took := time.Since(begun); took >= killed {
		t.Errorf("it took %v", took)
	}
	if !hears.Scan() || hears.Text() != sayStop {
		t.Errorf("the app was told %q", hears.Text())
	}
	select {
	case <-e.exited:
	case <-time.After(time.Second):
		t.Error("Envoy was left behind")
	}
	for _, want := range []string{"one: failed to deregister", "one: stopping with ", "the app has not ended, leaving it to the platform", "stopped ("} {
		if !strings.Contains(said.String(), want) {
			t.Errorf("the log lacks %q:\n%s", want, said.String())
		}
	}
}
