package gate

import (
	"io"
	"net"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/consul-mesh/mesh-buildpack/src/mesh/wait"
)

// shortOfFiles fails as many times as it says before it accepts.
type shortOfFiles struct {
	net.Listener
	failures int
}

func (l *shortOfFiles) Accept() (net.Conn, error) {
	if l.failures > 0 {
		l.failures--
		return nil, &net.OpError{Op: "accept", Err: syscall.EMFILE}
	}
	return l.Listener.Accept()
}

// TestOutOfFiles: a process that had too many files open for a moment answers who
// comes later, and stops when its listener is closed.
func TestOutOfFiles(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "socket")
	unix, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	listener := &shortOfFiles{unix, 2}
	ended := make(chan struct{})
	g := &Gate{Listener: wait.Steady(listener), waiting: map[net.Conn]string{}, running: map[net.Conn]bool{}, Ended: make(chan struct{})}
	go func() {
		defer close(ended)
		g.accept()
	}()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	say(conn, KindApp)
	g.Open()
	answer := make([]byte, len(SayStart))
	if _, err := io.ReadFull(conn, answer); err != nil || string(answer) != SayStart {
		t.Errorf("the app hears %q, %v", answer, err)
	}
	listener.Close()
	<-ended
}
