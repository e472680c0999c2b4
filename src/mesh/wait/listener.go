package wait

import (
	"errors"
	"net"
	"time"
)

// Steady gives a listener that fails only when it is closed. What Accept says
// otherwise, such as that the process has too many files open, passes.
func Steady(listener net.Listener) net.Listener { return steadyListener{listener} }

type steadyListener struct{ net.Listener }

// acceptAgain is how long a listener waits after a failure.
const acceptAgain = 100 * time.Millisecond

// Accept implements net.Listener.
func (l steadyListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err == nil || errors.Is(err, net.ErrClosed) {
			return conn, err
		}
		<-time.After(acceptAgain)
	}
}
