package runtime

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"syscall"
)

// answerPortCheck accepts connections to PORT on the container's own address
// until ctx ends, and closes them at once: more the platform's port check does not
// want to know, and more nobody gets past the sidecar. That an instance fails
// later is for its callers: the platform would end it.
func (p *proxy) answerPortCheck(ctx context.Context) {
	if p.inst.Port == 0 {
		p.log("port_check: the platform gave the process no PORT to answer on")
		return
	}
	address := netip.AddrPortFrom(p.inst.Address, uint16(p.inst.Port)).String()
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", address)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		p.log("port_check: the app listens on %s itself, nothing is to be done", address)
		return
	case err != nil:
		p.log("port_check: nobody answers the platform's port check: %v", err)
		return
	}
	context.AfterFunc(ctx, func() { listener.Close() })
	p.log("port_check: the platform's port check is answered on %s", address)
	for ctx.Err() == nil {
		conn, err := listener.Accept()
		if err != nil {
			_ = pause(ctx, beat) // out of file descriptors, most likely
			continue
		}
		conn.Close()
	}
}
