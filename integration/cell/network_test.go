package cell_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/consul-mesh/mesh-buildpack/integration/cell"
	"github.com/consul-mesh/mesh-buildpack/integration/container"
)

// knock tells whether a TCP connection from one guest to an address succeeds.
func knock(t *testing.T, from *cell.Guest, address string) error {
	ctx, cancel := context.WithTimeout(timeout(t), 10*time.Second)
	defer cancel()
	conn, err := from.Dial(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return conn.Close()
}

func echoes(t *testing.T, from *cell.Guest, address string) bool {
	conn, err := from.Dial(timeout(t), "udp", address)
	must(t, err)
	defer conn.Close()
	must(t, conn.SetDeadline(time.Now().Add(time.Second)))
	if _, err := conn.Write([]byte("hi")); err != nil {
		return false
	}
	b := make([]byte, 10)
	n, err := conn.Read(b)
	return err == nil && string(b[:n]) == "hi"
}

func TestPolicies(t *testing.T) {
	c := newCell(t, cell.Options{})
	allowed := cell.Policy{Source: "front", Destination: "back", Protocol: "tcp", Start: 8080, End: 8081}
	must(t, c.Allow(allowed, allowed)) // before the apps exist
	back := app(t, "back", nil)
	back.Instances = 2
	back.Command = "./helper -udp :7000"
	b, f := push(t, c, back), push(t, c, app(t, "front", nil))
	from, to := f.Instance(0).Guest, b.Instance(0).Address()
	refused := func(from *cell.Guest, address string) {
		t.Helper()
		if err := knock(t, from, address); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%s: got %v, want a refused connection", address, err)
		}
	}

	must(t, knock(t, from, to+":8080"))
	refused(from, to+":8082")
	refused(b.Instance(0).Guest, f.Instance(0).Address()+":8080") // not the other way
	refused(b.Instance(0).Guest, b.Instance(1).Address()+":8080") // nor among themselves
	must(t, c.Allow(cell.Policy{Source: "back", Destination: "back", Protocol: "tcp", Start: 8080}))
	must(t, knock(t, b.Instance(0).Guest, b.Instance(1).Address()+":8080"))

	if echoes(t, from, to+":7000") {
		t.Error("UDP passes without a policy")
	}
	must(t, c.Allow(cell.Policy{Source: "front", Destination: "back", Protocol: "udp", Start: 7000}))
	if !echoes(t, from, to+":7000") {
		t.Error("UDP does not pass with a policy")
	}

	must(t, f.Restart(timeout(t)))
	must(t, f.WaitRunning(timeout(t)))
	from = f.Instance(0).Guest
	must(t, knock(t, from, to+":8080"))
	must(t, c.Disallow(allowed))
	refused(from, to+":8080")
	if got := c.Policies(); len(got) != 2 || slices.Contains(got, allowed) {
		t.Errorf("got %v", got)
	}
	// The cell itself is not reached either.
	refused(from, "169.254.0.1:22")
	if err := c.Allow(cell.Policy{Source: "a", Destination: "b", Protocol: "sctp", Start: 1}); err == nil {
		t.Error("a policy for sctp was accepted")
	}
}

func TestCut(t *testing.T) {
	c := newCell(t, cell.Options{})
	policy := cell.Policy{Source: "front", Destination: "back", Protocol: "udp", Start: 7000}
	must(t, c.Allow(policy))
	back := app(t, "back", nil)
	back.Command = "./helper -udp :7000"
	b, f := push(t, c, back), push(t, c, app(t, "front", nil))
	conn, err := f.Instance(0).Dial(timeout(t), "udp", b.Instance(0).Address()+":7000")
	must(t, err)
	defer conn.Close()
	answers := func() bool {
		must(t, conn.SetDeadline(time.Now().Add(time.Second)))
		if _, err := conn.Write([]byte("hi")); err != nil {
			return false
		}
		n, err := conn.Read(make([]byte, 10))
		return err == nil && n == 2
	}
	until(t, "it is connected", answers)
	must(t, c.Disallow(policy))
	if !answers() {
		t.Error("without the policy a connection that exists does not go on")
	}
	must(t, c.Cut(policy))
	if answers() {
		t.Error("a connection that was cut goes on")
	}
	must(t, c.Allow(policy))
	until(t, "it is mended", answers)
}

// TestCutInstance: packets between one instance and another app vanish, those of its
// sibling do not, and neither do its own to others.
func TestCutInstance(t *testing.T) {
	c := newCell(t, cell.Options{})
	for _, to := range []string{"back", "other"} {
		must(t, c.Allow(cell.Policy{Source: "front", Destination: to, Protocol: "tcp", Start: 8080}))
	}
	two := app(t, "front", nil)
	two.Instances = 2
	front, back, other := push(t, c, two), push(t, c, app(t, "back", nil)), push(t, c, app(t, "other", nil))
	to := back.Instance(0).Address() + ":8080"
	open, err := front.Instance(0).Dial(timeout(t), "tcp", to)
	must(t, err)
	defer open.Close()
	restore, err := c.CutInstance(front.Instance(0), "back")
	must(t, err)
	_, err = fmt.Fprint(open, "GET / HTTP/1.0\r\n\r\n")
	must(t, err)
	must(t, open.SetReadDeadline(time.Now().Add(300*time.Millisecond)))
	if _, err := open.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the open connection says %v", err)
	}
	ctx, cancel := context.WithTimeout(timeout(t), 300*time.Millisecond)
	defer cancel()
	var timedOut net.Error
	if _, err := front.Instance(0).Dial(ctx, "tcp", to); !errors.As(err, &timedOut) || !timedOut.Timeout() {
		t.Errorf("a new connection says %v", err)
	}
	must(t, knock(t, front.Instance(1).Guest, to))
	must(t, knock(t, front.Instance(0).Guest, other.Instance(0).Address()+":8080"))
	must(t, restore())
	must(t, knock(t, front.Instance(0).Guest, to))
}

// lookup asks the name server from an instance. Where there is nothing it finds
// nothing.
func lookup(ctx context.Context, from *cell.Instance, name string) (found []string, err error) {
	resolver := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return from.Dial(ctx, network, "169.254.0.2:53")
	}}
	addresses, err := resolver.LookupNetIP(ctx, "ip", name)
	var missing *net.DNSError
	if errors.As(err, &missing) && missing.IsNotFound {
		err = nil
	}
	for _, a := range addresses {
		found = append(found, a.Unmap().String())
	}
	slices.Sort(found)
	return found, err
}

func TestInternalRoutes(t *testing.T) {
	c := newCell(t, cell.Options{})
	a := app(t, "back", nil)
	a.Instances = 2
	a.InternalRoute = "inside"
	r := push(t, c, a)
	expect := func(name string, want ...string) {
		t.Helper()
		slices.Sort(want)
		got, err := lookup(timeout(t), r.Instance(0), name)
		if must(t, err); !slices.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", name, got, want)
		}
	}
	zero, one := r.Instance(0), r.Instance(1)
	expect("inside.apps.internal.", zero.Address(), one.Address())
	expect("1.inside.apps.internal.", one.Address())
	expect("2.inside.apps.internal.")
	expect("back.apps.internal.")
	expect("example.com.")
	if out := ssh(t, zero, "getent ahostsv4 1.inside.apps.internal | head -1"); !strings.HasPrefix(out, one.Address()) {
		t.Errorf("got %q", out)
	}
	_, err := one.Stop(timeout(t))
	must(t, err)
	expect("inside.apps.internal.", zero.Address())
	expect("1.inside.apps.internal.")
}

func TestAppThatNeverRunsHasNoRoute(t *testing.T) {
	c := newCell(t, cell.Options{})
	a := app(t, "lonely", nil)
	a.Command = "./helper -addr 127.0.0.1:8080"
	a.HealthTimeout = 3 * time.Second
	d, err := c.Stage(timeout(t), a)
	must(t, err)
	r, err := c.Start(timeout(t), a, d)
	must(t, err)
	first := r.Instance(0)
	until(t, "it listens on loopback", func() bool { return knock(t, first.Guest, "127.0.0.1:8080") == nil })
	if _, err := first.Dial(timeout(t), "tcp", "lonely.apps.internal:8080"); err == nil {
		t.Error("an instance that is not running has a name")
	}
	err = first.WaitRunning(timeout(t))
	if err == nil || !strings.Contains(err.Error(), "never healthy") {
		t.Errorf("got %v", err)
	}
	until(t, "another try", func() bool { return r.Instance(0) != first })
}

func TestOutside(t *testing.T) {
	c := newCell(t, cell.Options{})
	r := push(t, c, app(t, "app", nil))
	inside := r.Instance(0)
	host := serveOutside(t, c, "example.com")
	for name, url := range map[string]string{"by name": "http://example.com:8080/remote", "by address": "http://" + host.Address() + ":8080/remote"} {
		if got := get(inside.HTTPClient(), url); !strings.HasPrefix(got, "198.51.100.2:") {
			t.Errorf("%s: the host sees %q, want the cell's address", name, got)
		}
	}
	if err := knock(t, host, inside.Address()+":8080"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("from outside: got %v, want a refused connection", err)
	}

	l, err := net.Listen("tcp", c.Outside()+":0")
	must(t, err)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write([]byte(r.RemoteAddr))
	})}
	defer server.Close()
	go func() { _ = server.Serve(l) }()
	got, err := netip.ParseAddrPort(get(inside.HTTPClient(), "http://"+l.Addr().String()))
	if err != nil || got.Addr().String() != "198.51.100.2" {
		t.Errorf("the outside address sees %v %v, want the cell's address", got, err)
	}
	// Staging reaches the outside too.
	a := app(t, "staged", nil)
	a.Buildpacks = append([]cell.Buildpack{buildpack(t, "fetch", files{
		"bin/supply": "#!/bin/bash\nexec 3<>/dev/tcp/198.51.100.1/" + port(l) + "\nprintf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3\n",
	})}, a.Buildpacks...)
	d, err := c.Stage(timeout(t), a)
	must(t, err)
	if !strings.Contains(d.Log, "200 OK") {
		t.Errorf("got %s", d.Log)
	}
}

// serveOutside starts a host that says on /remote who asks it, at port 8080.
func serveOutside(t *testing.T, c *cell.Cell, name string) *cell.Guest {
	t.Helper()
	host, err := c.OutsideHost(timeout(t), name, container.Mount{Source: os.Getenv(helperEnv), Target: "/tmp/helper", ReadOnly: true})
	must(t, err)
	_, err = host.Exec(timeout(t), container.Process{Path: "/tmp/helper", Args: []string{"helper", "-addr", ":8080"}})
	must(t, err)
	until(t, "the host serves", func() bool { return knock(t, host, host.Address()+":8080") == nil })
	return host
}

// TestOutsideSeesOneClient: who limits what one address may do limits all apps of a
// cell together.
func TestOutsideSeesOneClient(t *testing.T) {
	c := newCell(t, cell.Options{})
	host := serveOutside(t, c, "example.com")
	one, two := app(t, "one", nil), app(t, "two", nil)
	one.Instances = 2
	seen := map[string]int{}
	for _, i := range append(push(t, c, one).Instances(), push(t, c, two).Instances()...) {
		from, err := netip.ParseAddrPort(get(i.HTTPClient(), "http://"+host.Address()+":8080/remote"))
		must(t, err)
		seen[from.Addr().String()]++
		if got := ssh(t, i, "echo $CF_INSTANCE_IP"); got != from.Addr().String() {
			t.Errorf("the host sees %s, CF_INSTANCE_IP is %s", from, got)
		}
	}
	if len(seen) != 1 || seen["198.51.100.2"] != 3 {
		t.Errorf("the host sees %v", seen)
	}
}

func port(l net.Listener) string {
	_, p, _ := net.SplitHostPort(l.Addr().String())
	return p
}

func TestSilence(t *testing.T) {
	c := newCell(t, cell.Options{})
	must(t, c.Allow(cell.Policy{Source: "app", Destination: "app", Protocol: "tcp", Start: 8080}))
	a := app(t, "app", nil)
	a.Instances = 2
	r := push(t, c, a)
	from, to := r.Instance(0), r.Instance(1)
	restore, err := c.Silence(to)
	must(t, err)
	ctx, cancel := context.WithTimeout(timeout(t), 200*time.Millisecond)
	defer cancel()
	var timedOut net.Error
	if _, err := from.Dial(ctx, "tcp", to.Address()+":8080"); !errors.As(err, &timedOut) || !timedOut.Timeout() {
		t.Errorf("got %v, want a timeout", err)
	}
	must(t, restore())
	must(t, knock(t, from.Guest, to.Address()+":8080"))
	// What silenced the address must not stay with it.
	_, err = c.Silence(to)
	must(t, err)
	must(t, r.Restart(timeout(t)))
	must(t, r.WaitRunning(timeout(t)))
	must(t, knock(t, r.Instance(0).Guest, r.Instance(1).Address()+":8080"))
}

func TestAddressesAreUsedAgainAtOnce(t *testing.T) {
	c := newCell(t, cell.Options{})
	r, other := push(t, c, app(t, "one", nil)), push(t, c, app(t, "two", nil))
	address := r.Instance(0).Address()
	if address != "10.255.0.1" || other.Instance(0).Address() != "10.255.0.2" {
		t.Errorf("got %s and %s", address, other.Instance(0).Address())
	}
	must(t, r.Delete(timeout(t)))
	must(t, other.Scale(timeout(t), 2))
	must(t, other.WaitRunning(timeout(t)))
	if got := other.Instance(1).Address(); got != address {
		t.Errorf("got %s, want %s again", got, address)
	}
	if got := get(other.Instance(1).HTTPClient(), "http://"+address+":8080/"); got != "1 "+other.Instance(1).GUID() {
		t.Errorf("got %q", got)
	}
}

func TestManyConnectionsFromInside(t *testing.T) {
	c := newCell(t, cell.Options{})
	i := push(t, c, app(t, "app", nil)).Instance(0)
	client := i.HTTPClient()
	for range 20 {
		if got := get(client, "http://"+i.Address()+":8080/"); !strings.HasPrefix(got, "0 ") {
			t.Fatal(got)
		}
	}
	var out bytes.Buffer
	p, err := i.Exec(timeout(t), container.Process{Path: "/bin/cat", Args: []string{"cat", "/proc/net/dev"}, Stdout: &out})
	must(t, err)
	_, err = p.Wait(timeout(t))
	must(t, err)
	if got := strings.Count(out.String(), ":"); got != 2 {
		t.Errorf("want lo and eth0 only:\n%s", out.String())
	}
}
