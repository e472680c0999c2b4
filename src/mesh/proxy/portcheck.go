package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/consul-mesh/mesh-buildpack/src/mesh/consul"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/instance"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/registry"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/wait"
)

// answerPortCheck waits until every check of the instance passes. From then on,
// until ctx ends, it accepts connections to PORT on the container's own address
// and closes them at once: the platform's port check wants to know no more than that,
// and nobody gets past the sidecar. When the instance fails later, the connections are
// still accepted, because the platform would end it; its callers leave it alone.
func (p *proxy) answerPortCheck(ctx context.Context) {
	port := strconv.Itoa(p.Inst.Port)
	if !slices.ContainsFunc(p.Services, func(r *registry.Registration) bool { return r.Holds(port) }) {
		p.Log("port_check: no service of this process is the app on its PORT, so %s is left to the app", port)
		return
	}
	noted := time.Now()
	err := wait.PollUnbounded(ctx, func(ctx context.Context) error {
		err := p.allPass(ctx)
		if err != nil && time.Since(noted) >= instance.WaitingNote {
			noted = time.Now()
			p.Log("port_check: it is not answered yet: %v", err)
		}
		return err
	})
	if ctx.Err() != nil {
		return
	}
	address := net.JoinHostPort(p.Inst.Address.String(), port)
	var config net.ListenConfig
	var listener net.Listener
	if err == nil {
		listener, err = config.Listen(ctx, "tcp", address)
	}
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		p.Log("port_check: somebody listens on %s already, nothing is to be done", address)
		return
	case err != nil:
		p.Log("port_check: nobody answers the platform's port check: %v", err)
		return
	}
	context.AfterFunc(ctx, func() { listener.Close() })
	p.Log("port_check: the platform's port check is answered on %s", address)
	accepting := wait.Steady(listener)
	for {
		conn, err := accepting.Accept()
		if err != nil {
			return // closed
		}
		conn.Close()
	}
}

// allPass returns nil where every check of the instance passes, or warns, that can
// be seen.
func (p *proxy) allPass(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, wait.AttemptTimeout)
	defer cancel()
	for _, r := range p.Services {
		checks, err := p.registry.CheckStatuses(ctx, r)
		if err != nil && !errors.Is(err, consul.ErrHidden) {
			return err
		}
		for _, check := range checks {
			if check.Status == consul.Critical || check.Status == consul.Missing {
				return fmt.Errorf("%s: the check %q is %s", r.ID, check.Name, check.Status)
			}
		}
	}
	return nil
}
