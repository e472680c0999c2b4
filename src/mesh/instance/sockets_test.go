package instance

import (
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// TestListens: who listens is seen without a connection, on the address, on all
// addresses and on a Unix socket, and so is that nobody does any more.
func TestListens(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "app.sock")
	for _, test := range []struct{ network, listen, host string }{
		{"tcp", "127.0.0.1:0", "127.0.0.1"},
		{"tcp", "127.0.0.2:0", "127.0.0.2"},
		{"tcp4", "0.0.0.0:0", "127.0.0.1"},
		{"tcp", ":0", "127.0.0.1"},
		{"tcp", "[::1]:0", "::1"},
		{"unix", path, ""},
	} {
		listener, err := net.Listen(test.network, test.listen)
		if err != nil {
			t.Logf("not run: %v", err) // a machine without IPv6
			continue
		}
		network, address := "unix", path
		if tcp, ok := listener.Addr().(*net.TCPAddr); ok {
			network, address = "tcp", net.JoinHostPort(test.host, strconv.Itoa(tcp.Port))
			if elsewhere := net.JoinHostPort("127.0.0.9", strconv.Itoa(tcp.Port)); !tcp.IP.IsUnspecified() && Listens(network, elsewhere) {
				t.Errorf("somebody listens on %s, who listens on %s", elsewhere, tcp)
			}
		}
		if !Listens(network, address) {
			t.Errorf("nobody listens on %s, who listens on %s", address, listener.Addr())
		}
		listener.Close()
		if Listens(network, address) {
			t.Errorf("somebody listens on %s, who has closed it", address)
		}
	}
}

// TestCallers: who has several connections is one caller.
func TestCallers(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	port := listener.Addr().(*net.TCPAddr).Port
	if got := Callers(port); len(got) != 0 {
		t.Errorf("callers before any: %v", got)
	}
	for _, from := range []string{"127.0.0.3", "127.0.0.3", "127.0.0.4"} {
		dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: 5 * time.Second}
		conn, err := dialer.Dial("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
	}
	got := Callers(port, port+1)
	if len(got) != 2 || !got[netip.MustParseAddr("127.0.0.3")] || !got[netip.MustParseAddr("127.0.0.4")] {
		t.Errorf("callers: %v", got)
	}
}
