package container

import (
	"fmt"
	"io"
	"net"
)

// listen takes TCP ports of every address of the container. Who connects is
// accepted and gets no answer.
func listen(ports []int) error {
	for _, port := range ports {
		l, err := net.Listen("tcp4", fmt.Sprintf("0.0.0.0:%d", port))
		if err != nil {
			return err
		}
		go accept(l)
	}
	return nil
}

func accept(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			_, _ = io.Copy(io.Discard, conn)
		}()
	}
}
