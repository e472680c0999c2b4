package cell

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/consul-mesh/mesh-buildpack/integration/container"
)

// Guest is a container with an address on the cell's network.
type Guest struct {
	cell    *Cell
	app     string // GUID of whose policies count for it, if any
	address netip.Addr
	ctr     *container.Container
	wire    wire
	root    string // directory that the container's root was mounted over
	group   memoryGroup
	client  *http.Client

	mu       sync.Mutex
	silenced bool          // guarded by mu
	ended    bool          // guarded by mu
	lost     bool          // guarded by mu: with its cell
	lingers  time.Duration // guarded by mu: for which its address is kept when it has ended
}

// guestSpec says what kind of guest it is.
type guestSpec struct {
	hostname string
	address  netip.Addr
	app      string // GUID of whose policies count for it, if any
	outside  bool   // on the outside network, not a container of an app
	isolated bool   // wired to nothing
	mounts   []container.Mount
	memory   int   // MB that the kernel sees to; 0 is no limit
	ports    []int // taken by the platform
}

// newGuest starts a container at an address that the caller has acquired; what
// it made, end takes away, whether it succeeds or not.
func (c *Cell) newGuest(ctx context.Context, spec guestSpec) (*Guest, error) {
	g := &Guest{cell: c, address: spec.address}
	g.client = &http.Client{Transport: &http.Transport{DialContext: g.Dial, IdleConnTimeout: time.Minute}}
	root, err := os.MkdirTemp(c.dir, "root")
	if err != nil {
		return g, err
	}
	g.root = root
	if spec.app != "" {
		if err := c.network.firewall.join(spec.app, spec.address); err != nil {
			return g, err
		}
		g.app = spec.app
	}
	connect := c.network.connect
	switch {
	case spec.outside:
		connect = c.network.connectOutside
	case spec.isolated:
		connect = func(int, netip.Addr) (wire, error) { return wire{}, nil }
	}
	if spec.memory > 0 {
		if g.group, err = newMemoryGroup(spec.memory); err != nil {
			return g, err
		}
		spec.mounts = append(spec.mounts, g.group.mount())
	}
	g.ctr, err = container.Start(ctx, container.Spec{
		Hostname: spec.hostname,
		Root:     root,
		Init:     c.options.Lifecycle,
		Mounts:   spec.mounts,
		Listen:   spec.ports,
		Files: []container.File{
			{Path: "/etc/hosts", Content: fmt.Sprintf("127.0.0.1 localhost\n%s %s\n", spec.address, spec.hostname)},
			{Path: "/etc/resolv.conf", Content: fmt.Sprintf("nameserver %s\n", nameServer)},
		},
		Net: func(pid int) error {
			if spec.memory > 0 {
				if err := g.group.join(pid); err != nil {
					return err
				}
			}
			g.wire, err = connect(pid, spec.address)
			return err
		},
	})
	if err != nil {
		return g, err
	}
	return g, c.keep(g)
}

// end ends the container and gives back what it had. It may be called again.
func (g *Guest) end() {
	if g.ctr != nil {
		g.ctr.Kill()
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ended {
		return
	}
	g.ended = true
	g.client.CloseIdleConnections()
	c := g.cell
	c.forget(g)
	if err := g.wire.cut(); err != nil {
		fmt.Fprintf(os.Stderr, "cell: failed to remove the device of %s: %s\n", g.address, err)
	}
	if err := g.group.remove(); err != nil {
		fmt.Fprintf(os.Stderr, "cell: failed to remove the control group of %s: %s\n", g.address, err)
	}
	if g.root != "" {
		_ = os.Remove(g.root)
	}
	silenced, lost, lingers := g.silenced, g.lost, g.lingers
	if !lost {
		g.giveBack(silenced)
		return
	}
	c.loops.Go(func() {
		c.sleep(lingers)
		_ = netlink.RouteDel(blackhole(g.address))
		g.giveBack(silenced)
	})
}

// giveBack lets others have the address.
func (g *Guest) giveBack(silenced bool) {
	if silenced {
		_ = g.cell.network.firewall.unsilence(g.address)
	}
	if g.app != "" {
		_ = g.cell.network.firewall.leave(g.app, g.address)
	}
	g.cell.network.release(g.address)
}

// Address is the IPv4 address, e.g. "10.255.0.1".
func (g *Guest) Address() string { return g.address.String() }

// Kill ends the guest at once and waits until nothing of it runs.
func (g *Guest) Kill() { g.ctr.Kill() }

// Exec runs a process as it is, without any script. ctx bounds the start.
func (g *Guest) Exec(ctx context.Context, p container.Process) (*container.Proc, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return g.ctr.Run(p)
}

// ReadFile reads a file of the guest's file system.
func (g *Guest) ReadFile(path string) ([]byte, error) { return g.ctr.ReadFile(path) }

// List lists every process of the guest, init included.
func (g *Guest) List() ([]container.ProcessInfo, error) { return g.ctr.Processes() }

// SetClock has every process that runs in the guest see a time of day that is
// so much ahead of the machine's, or behind it, until it is set to 0 ahead.
// Processes that start later see the machine's time.
func (g *Guest) SetClock(ahead time.Duration) error { return g.ctr.SetClock(ahead) }

// HTTPClient is a client whose requests come from inside the guest.
func (g *Guest) HTTPClient() *http.Client { return g.client }

// Dial opens a connection from inside the guest; names are resolved by the
// cell's name server, which also is asked from inside.
func (g *Guest) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	if host == "localhost" {
		host = "127.0.0.1"
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return g.dialIP(ctx, network, address)
	}
	resolver := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return g.dialIP(ctx, network, netip.AddrPortFrom(nameServer, 53).String())
	}}
	addresses, err := resolver.LookupNetIP(ctx, "ip4", host)
	if err != nil {
		return nil, err
	}
	for _, a := range addresses {
		var conn net.Conn
		if conn, err = g.dialIP(ctx, network, net.JoinHostPort(a.String(), port)); err == nil {
			return conn, nil
		}
	}
	return nil, err
}

func (g *Guest) dialIP(ctx context.Context, network, address string) (conn net.Conn, err error) {
	if err := g.within(func() { conn, err = new(net.Dialer).DialContext(ctx, network, address) }); err != nil {
		return nil, err
	}
	return conn, err
}

// Listen listens inside the guest.
func (g *Guest) Listen(ctx context.Context, network, address string) (listener net.Listener, err error) {
	if err := g.within(func() { listener, err = new(net.ListenConfig).Listen(ctx, network, address) }); err != nil {
		return nil, err
	}
	return listener, err
}

// within makes a socket on a thread that is in the guest's network namespace. The
// thread stays there, so it is never unlocked and ends with its goroutine.
func (g *Guest) within(work func()) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		ns, err := netns.GetFromPid(g.ctr.Pid())
		if err != nil {
			done <- fmt.Errorf("guest %s has ended: %w", g.address, err)
			return
		}
		defer ns.Close()
		if err := netns.Set(ns); err != nil {
			done <- fmt.Errorf("failed to enter the network of %s: %w", g.address, err)
			return
		}
		work()
		done <- nil
	}()
	return <-done
}

// Silence drops every packet from and to an instance, as a dead network would,
// until restore is called or the instance has ended. Connections stay open.
func (c *Cell) Silence(i *Instance) (restore func() error, err error) {
	g := i.Guest
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ended || g.silenced {
		return nil, fmt.Errorf("instance %s has ended or is silenced already", i.guid)
	}
	if err := c.network.firewall.silence(g.address); err != nil {
		return nil, err
	}
	g.silenced = true
	return func() error {
		g.mu.Lock()
		defer g.mu.Unlock()
		if !g.silenced || g.ended {
			return nil
		}
		g.silenced = false
		return c.network.firewall.unsilence(g.address)
	}, nil
}
