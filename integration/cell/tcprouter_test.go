package cell_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/consul-mesh/mesh-buildpack/integration/cell"
)

// caller is a connection to the helper's TCP server.
type caller struct {
	net.Conn
	lines *bufio.Reader
	index string // of the instance that has answered
}

type dialer func(ctx context.Context, network, address string) (net.Conn, error)

func call(t *testing.T, dial dialer, address string) *caller {
	t.Helper()
	conn, err := dial(timeout(t), "tcp", address)
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	must(t, conn.SetDeadline(time.Now().Add(30*time.Second)))
	c := &caller{Conn: conn, lines: bufio.NewReader(conn)}
	c.index = c.line(t)
	return c
}

func (c *caller) line(t *testing.T) string {
	t.Helper()
	line, err := c.lines.ReadString('\n')
	must(t, err)
	return strings.TrimSpace(line)
}

func (c *caller) echo(t *testing.T, text string) {
	t.Helper()
	_, err := io.WriteString(c, text+"\n")
	must(t, err)
	if got := c.line(t); got != text {
		t.Errorf("got %q, want %q", got, text)
	}
}

// TestTCPRoute: everybody outside, and every container, gets at the app's own port,
// instances in turn, and a connection stays where it is.
func TestTCPRoute(t *testing.T) {
	c := newCell(t, cell.Options{HealthInterval: 50 * time.Millisecond})
	a := app(t, "app", nil)
	a.Instances = 2
	a.Command = "exec ./helper -tcp :7000"
	a.ReadinessCheck, a.ReadinessPath = cell.HealthHTTP, "/well?file=unready"
	a.TCPRoutes = []cell.TCPRoute{{Port: 1024, AppPort: 7000}, {Port: 1025}}
	r := push(t, c, a)
	for _, i := range r.Instances() {
		must(t, i.WaitRoutable(timeout(t)))
	}
	uris := vcapApplication(t, environment(t, r.Instance(0), r.Instance(0).Processes()[0].Pid)["VCAP_APPLICATION"])["uris"].([]any)
	if !slices.Equal(uris, []any{"app.localhost", "tcp.localhost:1024", "tcp.localhost:1025"}) {
		t.Errorf("its URIs are %v", uris)
	}
	host, err := c.OutsideHost(timeout(t), "host.example")
	must(t, err)
	address := c.Outside() + ":1024"
	here := dialer(new(net.Dialer).DialContext)
	call(t, host.Dial, address).echo(t, "from outside")
	call(t, r.Instance(0).Dial, "tcp.localhost:1024").echo(t, "from a container")
	if got := get(host.HTTPClient(), "http://"+c.Outside()+":1025/"); !strings.HasPrefix(got, "0 ") && !strings.HasPrefix(got, "1 ") {
		t.Errorf("port 8080 answers %q", got)
	}

	first, second := call(t, here, address), call(t, here, address)
	if first.index == second.index {
		t.Errorf("both are at instance %s", first.index)
	}
	first.echo(t, "one way")
	must(t, first.Conn.(*net.TCPConn).CloseWrite())
	if rest, err := io.ReadAll(first.lines); err != nil || string(rest) != "bye\n" {
		t.Errorf("the other way has ended with %q %v", rest, err)
	}

	held := call(t, here, address)
	for _, i := range r.Instances() {
		ssh(t, i, "touch /home/vcap/tmp/unready")
		until(t, "not routable", func() bool { return !i.Routable() })
	}
	conn, err := here(timeout(t), "tcp", address)
	if err == nil { // it may be reset at once
		defer conn.Close()
		_, err = conn.Read(make([]byte, 1))
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("without instances: %v", err)
	}
	held.echo(t, "still there")
	must(t, r.Delete(timeout(t)))
	if rest, err := io.ReadAll(held.lines); len(rest) > 0 || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the instance's end: %q %v", rest, err)
	}
	if _, err := here(timeout(t), "tcp", address); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("without the app: %v", err)
	}
}

// TestTCPRouteThatIsTaken fails the start and leaves no app.
func TestTCPRouteThatIsTaken(t *testing.T) {
	c := newCell(t, cell.Options{})
	l, err := net.Listen("tcp", c.Outside()+":1024")
	must(t, err)
	defer l.Close()
	a := app(t, "app", nil)
	a.TCPRoutes = []cell.TCPRoute{{Port: 1024}}
	if _, err := c.Push(timeout(t), a); !errors.Is(err, syscall.EADDRINUSE) || c.App("app") != nil {
		t.Errorf("got %v, and the app is %v", err, c.App("app"))
	}
}
