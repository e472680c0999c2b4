package runtime

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"syscall"
	"time"
)

// answerPortCheck waits until every check of the instance passes. From then on,
// until ctx ends, it accepts connections to PORT on the container's own address
// and closes them at once: more the platform's port check does not want to know,
// and more nobody gets past the sidecar. That an instance fails later is for its
// callers: the platform would end it.
func (p *proxy) answerPortCheck(ctx context.Context) {
	port := strconv.Itoa(p.inst.Port)
	if !slices.ContainsFunc(p.services, func(r *registration) bool { return r.holds(port) }) {
		p.log("port_check: no service of this process is the app on its PORT, so %s is left to the app", port)
		return
	}
	noted := time.Now()
	err := pollUnbounded(ctx, func(ctx context.Context) error {
		err := p.allPass(ctx)
		if err != nil && time.Since(noted) >= waitingNote {
			noted = time.Now()
			p.log("port_check: it is not answered yet: %v", err)
		}
		return err
	})
	if ctx.Err() != nil {
		return
	}
	address := net.JoinHostPort(p.inst.Address.String(), port)
	var config net.ListenConfig
	var listener net.Listener
	if err == nil {
		listener, err = config.Listen(ctx, "tcp", address)
	}
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		p.log("port_check: somebody listens on %s already, nothing is to be done", address)
		return
	case err != nil:
		p.log("port_check: nobody answers the platform's port check: %v", err)
		return
	}
	context.AfterFunc(ctx, func() { listener.Close() })
	p.log("port_check: the platform's port check is answered on %s", address)
	listener = steady(listener)
	for {
		conn, err := listener.Accept()
		if err != nil {
			return // closed
		}
		conn.Close()
	}
}

// holds says that the app, which has passed, keeps anybody else from a port on
// loopback, or needs none.
func (r *registration) holds(port string) bool {
	_, its, err := net.SplitHostPort(r.address)
	return r.network == "unix" || r.network == "tcp" && err == nil && its == port
}

// allPass returns nil where every check of the instance passes, or warns, that can
// be seen.
func (p *proxy) allPass(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	for _, r := range p.services {
		checks, err := p.registry.checks(ctx, r)
		if err != nil && !errors.Is(err, errHidden) {
			return err
		}
		for _, check := range checks {
			if check.Status == critical || check.Status == missing {
				return fmt.Errorf("%s: the check %q is %s", r.ID, check.Name, check.Status)
			}
		}
	}
	return nil
}
