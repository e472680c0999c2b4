package cell

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"
)

const (
	// tcpDomain is the platform's TCP router, to containers too.
	tcpDomain = "tcp.localhost"
	// tcpConnectTimeout is how long it tries to reach an instance.
	tcpConnectTimeout = 30 * time.Second
)

// TCPRoute leads from a port of the TCP router, which listens on the outside
// network (Cell.Outside, "tcp.localhost" to containers), to a port of the app's
// routable instances in turn. Bytes pass both ways, each of which ends by itself. A
// connection stays with its instance until one side ends it, also when routes no
// longer lead there; one that finds no instance is reset.
type TCPRoute struct {
	// Port outside. Apps with the same one share its connections.
	Port int
	// AppPort in containers. Defaults to 8080.
	AppPort int
}

func (r TCPRoute) appPort() string {
	if r.AppPort == 0 {
		return appPort
	}
	return fmt.Sprint(r.AppPort)
}

// tcpRouter listens on the ports of all started apps.
type tcpRouter struct {
	cell *Cell

	mu        sync.Mutex
	closed    bool                 // guarded by mu
	listeners map[int]net.Listener // guarded by mu: by port
}

func newTCPRouter(c *Cell) *tcpRouter { return &tcpRouter{cell: c, listeners: map[int]net.Listener{}} }

// update listens on the ports that apps have, and on no others.
func (t *tcpRouter) update() error {
	wanted := map[int]bool{}
	for _, r := range t.cell.apps() {
		for _, route := range r.app.TCPRoutes {
			wanted[route.Port] = true
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for port, l := range t.listeners {
		if !wanted[port] {
			l.Close()
			delete(t.listeners, port)
		}
	}
	for port := range wanted {
		if t.closed || t.listeners[port] != nil {
			continue
		}
		l, err := net.Listen("tcp", net.JoinHostPort(outsideAddress.String(), fmt.Sprint(port)))
		if err != nil {
			return fmt.Errorf("failed to listen on TCP route %d: %w", port, err)
		}
		t.listeners[port] = l
		t.cell.loops.Go(func() { t.serve(l, port) })
	}
	return nil
}

// close has no more connections come in; those that are there end with the cell.
func (t *tcpRouter) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	for l := range maps.Values(t.listeners) {
		l.Close()
	}
}

func (t *tcpRouter) serve(l net.Listener, port int) {
	for turn := rand.IntN(1 << 16); ; turn++ {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // the caller has given up
		}
		t.cell.loops.Go(func() { t.connect(conn.(*net.TCPConn), port, turn) })
	}
}

// connect takes a connection to an instance, and is back when it has ended.
func (t *tcpRouter) connect(caller *net.TCPConn, port, turn int) {
	ctx, cancel := context.WithTimeout(context.Background(), tcpConnectTimeout)
	defer cancel()
	over := make(chan struct{})
	defer close(over)
	go func() {
		select {
		case <-t.cell.closing:
			cancel()
			reset(caller)
		case <-over:
		}
	}()
	endpoints := t.endpoints(port)
	if len(endpoints) == 0 {
		reset(caller)
		return
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", endpoints[turn%len(endpoints)])
	if err != nil {
		reset(caller)
		return
	}
	instance := conn.(*net.TCPConn)
	var ways sync.WaitGroup
	ways.Go(func() { pass(instance, caller) })
	ways.Go(func() { pass(caller, instance) })
	ways.Wait()
	caller.Close()
	instance.Close()
}

// endpoints are the addresses, with ports, of the instances behind a port.
func (t *tcpRouter) endpoints(port int) (addresses []string) {
	for _, r := range t.cell.apps() {
		for _, route := range r.app.TCPRoutes {
			if route.Port != port {
				continue
			}
			for _, i := range r.routable() {
				addresses = append(addresses, net.JoinHostPort(i.Address(), route.appPort()))
			}
		}
	}
	slices.Sort(addresses)
	return addresses
}

// pass passes bytes on until their sender ends, which the receiver is told, or
// either has gone, which ends the other way too.
func pass(to, from *net.TCPConn) {
	_, err := io.Copy(to, from)
	if err == nil {
		err = to.CloseWrite()
	}
	if err != nil {
		reset(to)
		reset(from)
	}
}

// reset has the other side see that this is no orderly end.
func reset(c *net.TCPConn) {
	_ = c.SetLinger(0)
	c.Close()
}
