package proxy

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/consul-mesh/mesh-buildpack/src/droplet"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/envoy"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/gate"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/meshtest"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/wait"
)

// logged is what a proxy says.
type logged struct {
	mutex sync.Mutex
	text  strings.Builder // guarded by mutex
}

func (l *logged) log(format string, args ...any) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	fmt.Fprintf(&l.text, format+"\n", args...)
}

func (l *logged) String() string {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return l.text.String()
}

// serving is a proxy in rotation, with a program as its Envoy, and what its app hears,
// which has started. What the agent is told, answer answers.
func serving(t *testing.T, program string, answer meshtest.RoundTripper) (p *proxy, hears *bufio.Scanner, said *logged) {
	t.Helper()
	p, said = starting(t, &meshtest.Script{}, "", program), &logged{}
	p.Log = said.log
	p.Config.Lifecycle.DrainDelay, p.Config.Lifecycle.DrainTimeout = 300*time.Millisecond, 3*time.Second
	p.Consul.HTTP.Transport = answer
	e, err := envoy.Start(p.Inst, p.Config.Envoy, p.Services[0].EnvoySidecar(), []byte("{}"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Signal(syscall.SIGKILL) })
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
	hears = bufio.NewScanner(app)
	if !hears.Scan() || hears.Text() != gate.SayStart {
		t.Fatalf("the app was told %q", hears.Text())
	}
	return p, hears, said
}

// TestNothingHoldsAStopUp: an agent that does not answer, an Envoy that neither
// answers nor ends, and an app that ignores its end: the instance has said what it
// leaves behind before the platform kills it.
func TestNothingHoldsAStopUp(t *testing.T) {
	t.Parallel()
	p, hears, said := serving(t, "trap '' TERM; while :; do sleep 0.1; done", func(r *http.Request) (*http.Response, error) {
		<-r.Context().Done()
		return nil, r.Context().Err()
	})
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
	case <-p.envoys[0].Exited:
	case <-time.After(time.Second):
		t.Error("Envoy was left behind")
	}
	for _, want := range []string{
		"one: callers still find it after ", "one: failed to deregister", "one: stopping with ", "the app has not ended, leaving it to the platform", "stopped (",
	} {
		if !strings.Contains(said.String(), want) {
			t.Errorf("the log lacks %q:\n%s", want, said)
		}
	}
	if strings.Contains(said.String(), "out of rotation") {
		t.Errorf("it was never out of rotation:\n%s", said)
	}
}

// TestASlowGoodbye: an instance that slow servers take out of the catalog long after
// it was told to stop says so then, and the app goes on until its callers have heard.
func TestASlowGoodbye(t *testing.T) {
	t.Parallel()
	const slow = 400 * time.Millisecond
	var gone atomic.Pointer[time.Time]
	p, hears, said := serving(t, "exec sleep 60", func(r *http.Request) (*http.Response, error) {
		if err := wait.Pause(r.Context(), slow); err != nil {
			return nil, err
		}
		if r.URL.Path == meshtest.TellGone+"one" {
			now := time.Now()
			gone.CompareAndSwap(nil, &now)
		}
		return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: http.NoBody}, nil
	})
	told := make(chan time.Time, 1)
	go func() {
		hears.Scan()
		told <- time.Now()
		p.gate.Listener.Close()
	}()
	stopped, cancel := context.WithCancel(t.Context())
	cancel()
	p.stop(stopped)
	out := gone.Load()
	if out == nil {
		t.Fatalf("it was never out of the catalog:\n%s", said)
	}
	if after := (<-told).Sub(*out); after < p.Config.Lifecycle.DrainDelay {
		t.Errorf("the app was told to stop %v after the catalog:\n%s", after, said)
	}
	var seconds float64
	_, line, _ := strings.Cut(said.String(), "\nout of rotation (")
	if n, err := fmt.Sscanf(line, "%f s)", &seconds); n != 1 || seconds < 2*slow.Seconds() {
		t.Errorf("it says %v (%v), and it takes two answers:\n%s", seconds, err, said)
	}
	if strings.Contains(said.String(), "failed to deregister") {
		t.Errorf("it was given up:\n%s", said)
	}
}

// TestCallersAreCounted: a stop knows how many callers are connected, from wherever,
// and asks how many servers tell them where these are many.
func TestCallersAreCounted(t *testing.T) {
	t.Parallel()
	for connected, want := range map[int]audience{3: {3, 1}, 60: {60, 2}} {
		p := starting(t, &meshtest.Script{Answers: map[string]func(int) (int, string){
			"/v1/status/peers": func(int) (int, string) { return http.StatusOK, `["10.0.0.1:8300", "10.0.0.2:8300"]` },
		}}, "", "")
		p.Config.Lifecycle = droplet.Lifecycle{DrainDelay: 300 * time.Millisecond, DrainTimeout: 3 * time.Second, LongestDrainDelay: 3 * time.Second}
		sidecar, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { sidecar.Close() })
		for i := range 2 * connected {
			from := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(i%connected))}}
			conn, err := from.Dial("tcp", sidecar.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { conn.Close() })
		}
		e := &envoy.Envoy{Sidecar: envoy.Sidecar{Port: sidecar.Addr().(*net.TCPAddr).Port}}
		p.envoys = append(p.envoys, &served{Envoy: e, service: p.Services[0]})
		if got := <-p.countCallers(); got != want {
			t.Errorf("%d callers: %v", connected, got)
		}
	}
}
