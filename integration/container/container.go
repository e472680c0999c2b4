// Package container runs Linux containers: a root file system, namespaces, and
// an init that starts, signals and reaps processes on request.
//
// A container sees the programs and libraries of the machine, read-only, and
// nothing else of it. Everything in it runs as user vcap (2000) without
// capabilities, whether the caller is root or the root of a user namespace in
// which no other user exists. There are no limits on memory or processors, and
// the container knows no network but what Spec.Net gives it.
package container

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrEnded says that the container has ended.
var ErrEnded = errors.New("the container has ended")

// Container is a running container.
type Container struct {
	cmd   *exec.Cmd
	conn  *net.UnixConn
	ended chan struct{} // init has been reaped, so nothing of the container runs

	write sync.Mutex // one message at a time
	mu    sync.Mutex
	last  uint64          // guarded by mu: ID of the last request
	calls map[uint64]call // guarded by mu: requests without a reply; nil once gone
	procs map[int]*Proc   // guarded by mu: by pid
}

// Start makes a container. It is ready for Run when Start returns. ctx bounds
// the start, not the container's life.
func Start(ctx context.Context, spec Spec) (*Container, error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, fmt.Errorf("failed to make a socket pair: %w", err)
	}
	defer theirs.Close()
	c := &Container{
		conn:  ours,
		ended: make(chan struct{}),
		calls: map[uint64]call{},
		procs: map[int]*Proc{},
	}
	c.cmd = exec.Command(spec.Init, "init")
	c.cmd.Stderr = os.Stderr
	c.cmd.ExtraFiles = []*os.File{theirs}
	c.cmd.Env = []string{}
	if c.cmd.SysProcAttr, err = isolation(); err != nil {
		ours.Close()
		return nil, err
	}
	if err := c.cmd.Start(); err != nil {
		ours.Close()
		return nil, fmt.Errorf("failed to start init: %w", err)
	}
	go c.receive()
	go c.reap()
	if err := c.setUp(ctx, spec); err != nil {
		c.Kill()
		return nil, err
	}
	return c, nil
}

func (c *Container) setUp(ctx context.Context, spec Spec) error {
	if spec.Net != nil {
		if err := spec.Net(c.Pid()); err != nil {
			return fmt.Errorf("failed to set up the network: %w", err)
		}
	}
	_, err := c.call(ctx, message{Spec: &spec}, nil)
	return err
}

// isolation are the namespaces of a container. Inside a user namespace the
// container needs one of its own, in which the only user there is, the caller,
// is vcap; init then keeps its powers as ambient capabilities because it is not
// uid 0.
func isolation() (*syscall.SysProcAttr, error) {
	attr := &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
		Setsid:     true,
	}
	nested, err := InUserNamespace()
	if err != nil || !nested {
		return attr, err
	}
	attr.Cloneflags |= unix.CLONE_NEWUSER
	only := []syscall.SysProcIDMap{{ContainerID: vcapID, HostID: 0, Size: 1}}
	attr.UidMappings, attr.GidMappings = only, only
	last, err := lastCapability()
	if err != nil {
		return nil, err
	}
	for capability := uintptr(0); capability <= last; capability++ {
		attr.AmbientCaps = append(attr.AmbientCaps, capability)
	}
	return attr, nil
}

// InUserNamespace tells whether this process is in a user namespace other than
// the machine's own.
func InUserNamespace() (bool, error) {
	ids, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return false, fmt.Errorf("failed to read the user ids: %w", err)
	}
	fields := strings.Fields(string(ids))
	return len(fields) != 3 || fields[0] != "0" || fields[1] != "0" || fields[2] != "4294967295", nil
}

func lastCapability() (uintptr, error) {
	b, err := os.ReadFile("/proc/sys/kernel/cap_last_cap")
	if err != nil {
		return 0, fmt.Errorf("failed to read the capabilities there are: %w", err)
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 8)
	if err != nil {
		return 0, fmt.Errorf("failed to read the capabilities there are: %w", err)
	}
	return uintptr(n), nil
}

// Pid is init's process id as the caller sees it.
func (c *Container) Pid() int { return c.cmd.Process.Pid }

// Done is closed when nothing of the container runs any more.
func (c *Container) Done() <-chan struct{} { return c.ended }

// Kill ends everything in the container and waits until it is gone. A container
// that has ended already may be killed again.
func (c *Container) Kill() {
	// The kernel ends a process-id namespace with its process 1.
	_ = c.cmd.Process.Kill()
	<-c.ended
}

// call is a request that waits for its reply.
type call struct {
	reply chan incoming
	// proc is what the request starts. It has to be known by its pid before the
	// next message is read, which may already tell of its end.
	proc *Proc
}

// start starts p with the files as its first ones.
func (c *Container) start(p *Proc, r runRequest, files []int) error {
	_, err := c.call(context.Background(), message{Run: &r}, p, files...)
	return err
}

// call sends a request and waits for its reply. p is nil if it starts nothing.
func (c *Container) call(ctx context.Context, m message, p *Proc, files ...int) (incoming, error) {
	reply := make(chan incoming, 1)
	c.mu.Lock()
	if c.calls == nil {
		c.mu.Unlock()
		return incoming{}, ErrEnded
	}
	c.last++
	m.ID = c.last
	c.calls[m.ID] = call{reply, p}
	c.mu.Unlock()

	c.write.Lock()
	err := send(c.conn, m, files...)
	c.write.Unlock()
	if err != nil {
		return incoming{}, fmt.Errorf("%w: %w", ErrEnded, err)
	}
	select {
	case r, ok := <-reply:
		if !ok {
			return incoming{}, ErrEnded
		}
		if r.Error != "" {
			return incoming{}, errors.New(r.Error)
		}
		return r, nil
	case <-ctx.Done():
		return incoming{}, ctx.Err()
	}
}

// receive hands replies and ends of processes to those who wait for them, and
// when init has gone tells them so.
func (c *Container) receive() {
	for {
		m, files, err := receive(c.conn)
		if err != nil {
			break
		}
		c.mu.Lock()
		c.deliver(incoming{m, files})
		c.mu.Unlock()
	}
	c.conn.Close()
	<-c.ended
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, waiting := range c.calls {
		close(waiting.reply)
	}
	c.calls = nil
	for _, p := range c.procs {
		p.end(killedBy(syscall.SIGKILL))
	}
	c.procs = nil
}

func (c *Container) deliver(m incoming) {
	if m.Ended != nil {
		if p := c.procs[m.Ended.Pid]; p != nil {
			delete(c.procs, m.Ended.Pid)
			p.end(m.Ended.Status)
		}
		return
	}
	waiting, ok := c.calls[m.ID]
	if !ok {
		return
	}
	delete(c.calls, m.ID)
	if waiting.proc != nil && m.Pid != 0 {
		waiting.proc.started(m.Pid, m.files)
		c.procs[m.Pid] = waiting.proc
	}
	waiting.reply <- m
}

func (c *Container) reap() {
	_ = c.cmd.Wait() // it ends because it was killed
	close(c.ended)
}
