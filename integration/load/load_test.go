package load

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"
)

func dial(ctx context.Context, network, address string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, network, address)
}

// carry sends for a while.
func carry(plan Plan, during time.Duration) Result {
	plan.Dial = dial
	l := Start(plan)
	<-time.After(during)
	return l.Stop()
}

func TestEveryRequestIsCounted(t *testing.T) {
	t.Parallel()
	var seen atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			t.Errorf("got a %s, which Go's client may repeat", r.Method)
		}
		seen.Add(1)
	}))
	defer server.Close()
	r := carry(Plan{Kind: HTTP, Target: server.URL, Rate: 200}, 500*time.Millisecond)
	if r.Lost != 0 || int64(r.Sent) != seen.Load() || r.Sent < 50 || r.Sent > 110 {
		t.Errorf("the server has seen %d: %v", seen.Load(), r)
	}
	if r.Median <= 0 || r.Median > r.P99 || r.P99 > r.Max {
		t.Error(r)
	}
}

func TestReasons(t *testing.T) {
	t.Parallel()
	stop := make(chan struct{})
	var n atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		switch n.Add(1) % 4 {
		case 0:
			http.Error(w, "no", http.StatusServiceUnavailable)
		case 1:
			panic(http.ErrAbortHandler)
		case 2:
			<-stop
		}
	}))
	defer server.Close()
	defer close(stop)
	before := time.Now()
	r := carry(Plan{Kind: HTTP, Target: server.URL, Rate: 100, Timeout: 200 * time.Millisecond}, 400*time.Millisecond)
	for _, reason := range []string{"status 503: no", "connection closed", "timeout"} {
		if r.Reasons[reason] < r.Sent/5 {
			t.Errorf("%q is too rare: %v", reason, r)
		}
	}
	if r.Lost == r.Sent || r.FirstLoss.Before(before) || !r.LastLoss.After(r.FirstLoss) {
		t.Error(r)
	}
}

// TestAStallIsManyLateRequests: the rate is kept while nothing is answered.
func TestAStallIsManyLateRequests(t *testing.T) {
	t.Parallel()
	begun := time.Now()
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		<-time.After(time.Until(begun.Add(300 * time.Millisecond)))
	}))
	defer server.Close()
	r := carry(Plan{Kind: HTTP, Target: server.URL, Rate: 200}, 500*time.Millisecond)
	if r.Sent < 50 || r.Lost != 0 || r.Median < 20*time.Millisecond {
		t.Error(r)
	}
}

// lineServer echoes lines, and closes a connection without an answer after so
// many; 0 is never.
func lineServer(t *testing.T, linesEach int) (address string, connections *atomic.Int64) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	connections = new(atomic.Int64)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			connections.Add(1)
			go func() {
				defer conn.Close()
				lines := bufio.NewScanner(conn)
				for n := 0; lines.Scan() && (linesEach == 0 || n < linesEach); n++ {
					fmt.Fprintln(conn, lines.Text())
				}
			}()
		}
	}()
	return listener.Addr().String(), connections
}

func TestLines(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		kind      Kind
		linesEach int
		lost      func(Result) bool
		opened    func(Result) int
	}{
		{TCPNew, 0, func(r Result) bool { return r.Lost == 0 }, func(r Result) int { return r.Sent }},
		{TCPLong, 0, func(r Result) bool { return r.Lost == 0 }, func(Result) int { return 5 }},
		// Each connection carries four lines and loses the fifth.
		{TCPLong, 4, func(r Result) bool {
			return r.Reasons["connection closed"]+r.Reasons["connection reset"] == r.Lost && r.Lost >= 15
		}, nil},
	} {
		address, connections := lineServer(t, c.linesEach)
		r := carry(Plan{Kind: c.kind, Target: address, Rate: 200, Connections: 5}, 500*time.Millisecond)
		if !c.lost(r) || r.Sent < 50 {
			t.Errorf("%s, %d lines for each connection: %v", c.kind, c.linesEach, r)
		}
		if c.opened != nil && c.opened(r) != int(connections.Load()) {
			t.Errorf("%s opened %d connections: %v", c.kind, connections.Load(), r)
		}
	}
}

func TestNobodyListens(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	listener.Close()
	for _, kind := range []Kind{HTTP, TCPNew, TCPLong} {
		target := address
		if kind == HTTP {
			target = "http://" + address
		}
		r := carry(Plan{Kind: kind, Target: target, Rate: 100}, 100*time.Millisecond)
		if r.Sent == 0 || r.Reasons["connection refused"] != r.Sent {
			t.Errorf("%s: %v", kind, r)
		}
	}
}
