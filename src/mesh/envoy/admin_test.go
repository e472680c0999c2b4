package envoy

import (
	"io"
	"net"
	"testing"
	"time"

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
	if n := queued(port); n != 0 {
		t.Errorf("%d bytes before anything was sent", n)
	}
	if err := conn.SetWriteDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	sent, _ := conn.Write(make([]byte, 64<<20)) // until the kernel takes no more
	if n := queued(port); n == 0 || n > sent {
		t.Errorf("%d bytes are queued, and %d were sent", n, sent)
	}
	if _, err := io.CopyN(io.Discard, caller, int64(sent)); err != nil {
		t.Fatal(err)
	}
	meshtest.Eventually(t, "nothing is queued", func() bool { return queued(port) == 0 })
}
