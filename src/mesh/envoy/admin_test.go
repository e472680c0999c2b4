package envoy

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/consul-mesh/mesh-buildpack/src/mesh/instance"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/meshtest"
)

// TestQueued: what a caller has not read yet is in the kernel, until it has.
func TestQueued(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	port := listener.Addr().(*net.TCPAddr).Port
	caller, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer caller.Close()
	conn, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if n := instance.Unreceived(port); n != 0 {
		t.Errorf("%d bytes before anything was sent", n)
	}
	if err := conn.SetWriteDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	sent, _ := conn.Write(make([]byte, 64<<20)) // until the kernel takes no more
	if n := instance.Unreceived(port); n == 0 || n > sent {
		t.Errorf("%d bytes are queued, and %d were sent", n, sent)
	}
	if _, err := io.CopyN(io.Discard, caller, int64(sent)); err != nil {
		t.Fatal(err)
	}
	meshtest.Eventually(t, "nothing is queued", func() bool { return instance.Unreceived(port) == 0 })
}

// counting is an Envoy whose callers have sent some requests, none of which is in
// flight.
type counting struct{ requests int }

func (c *counting) RoundTrip(*http.Request) (*http.Response, error) {
	text := fmt.Sprintf("%s: 0\n%s: %d\n", statRequests, statAllRequests, c.requests)
	return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader(text))}, nil
}

// TestIdle: where no request is in flight, the next may be on its way from a caller
// that has not heard of the end: an Envoy is idle when none has come for a while.
func TestIdle(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		callers := &counting{}
		e := &Envoy{Admin: "http://envoy", Exited: make(chan struct{}), Sidecar: Sidecar{Protocol: "http"}}
		e.HTTP.Transport = callers
		const gap = instance.QuietFor / 4
		for range 10 {
			callers.requests++
			if err := e.Idle(t.Context()); err == nil {
				t.Fatalf("it is idle %v after a request", gap)
			}
			time.Sleep(gap)
		}
		time.Sleep(instance.QuietFor)
		if err := e.Idle(t.Context()); err != nil {
			t.Errorf("long after the last request: %v", err)
		}
	})
}
