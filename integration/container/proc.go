package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Proc is a process that was started by Run.
type Proc struct {
	container *Container
	spec      Process
	pid       int
	outputs   []*output
	exited    chan struct{} // status is known
	done      chan struct{} // and what was written has been handed on
	status    ExitStatus    // to be read after exited
}

// Run starts a process as vcap. An error means that it could not be started.
func (c *Container) Run(p Process) (*Proc, error) {
	proc := &Proc{container: c, spec: p, exited: make(chan struct{}), done: make(chan struct{})}
	request := runRequest{Path: p.Path, Args: p.Args, Env: p.Env, Dir: p.Dir, TTY: p.TTY}
	if p.TTY {
		return proc, c.start(proc, request, nil)
	}
	if err := proc.runOnPipes(request); err != nil {
		for _, o := range proc.outputs {
			o.from.Close()
		}
		return nil, err
	}
	return proc, nil
}

func (p *Proc) runOnPipes(request runRequest) error {
	var theirs []int
	defer func() { closeAll(theirs) }()
	input, stdin, err := inputFor(p.spec.Stdin)
	if err != nil {
		return fmt.Errorf("failed to make an input: %w", err)
	}
	theirs = append(theirs, stdin)
	stdout, err := p.outputFor(p.spec.Stdout)
	if err != nil {
		return fmt.Errorf("failed to make an output: %w", err)
	}
	theirs = append(theirs, stdout)
	stderr := stdout
	if !same(p.spec.Stdout, p.spec.Stderr) {
		if stderr, err = p.outputFor(p.spec.Stderr); err != nil {
			return fmt.Errorf("failed to make an output: %w", err)
		}
		theirs = append(theirs, stderr)
	}
	err = p.container.start(p, request, []int{stdin, stdout, stderr})
	if input != nil {
		go feed(input, p.spec.Stdin)
	}
	return err
}

// started is called once, before end, with the terminal if there is one.
func (p *Proc) started(pid int, files []int) {
	p.pid = pid
	if !p.spec.TTY || len(files) != 1 {
		closeAll(files)
		return
	}
	terminal, err := pollable(files[0])
	if err != nil {
		return // the process is hung up
	}
	if p.spec.Stdin != nil {
		go func() { _, _ = io.Copy(terminal, p.spec.Stdin) }()
	}
	p.follow(terminal, p.spec.Stdout)
}

// outputFor is a file for the process to write to; what it writes goes to w.
func (p *Proc) outputFor(w io.Writer) (int, error) {
	if w == nil {
		return unix.Open("/dev/null", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	}
	// The process gets an ordinary, blocking end: programs do not expect their
	// output to be busy.
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC); err != nil {
		return 0, err
	}
	ours, err := pollable(ends[0])
	if err != nil {
		unix.Close(ends[1])
		return 0, err
	}
	p.follow(ours, w)
	return ends[1], nil
}

// same tells whether both outputs are one, which then needs no lock and keeps
// the order of what is written.
func same(a, b io.Writer) bool {
	defer func() { _ = recover() }() // some types cannot be compared
	return a == b
}

func inputFor(r io.Reader) (ours *os.File, theirs int, err error) {
	if r == nil {
		theirs, err = unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		return nil, theirs, err
	}
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC); err != nil {
		return nil, 0, err
	}
	ours, err = pollable(ends[1])
	return ours, ends[0], err
}

func feed(to *os.File, from io.Reader) {
	_, _ = io.Copy(to, from) // a process need not read all its input
	to.Close()
}

// pollable takes fd over, as a file whose reads can be interrupted.
func pollable(fd int) (*os.File, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), "stdio"), nil
}

// follow copies what the process writes for as long as anyone can write it.
func (p *Proc) follow(from *os.File, to io.Writer) {
	if to == nil {
		to = io.Discard
	}
	o := &output{from: from, to: to, drained: make(chan struct{})}
	p.outputs = append(p.outputs, o)
	go o.copy()
}

// end is called once, when the process has ended.
func (p *Proc) end(status ExitStatus) {
	p.status = status
	close(p.exited)
	go func() {
		for _, o := range p.outputs {
			o.ended()
			<-o.drained
		}
		close(p.done)
	}()
}

// Pid is the process id in the container.
func (p *Proc) Pid() int { return p.pid }

// Done is closed when the process has ended and everything it wrote has been
// handed on. Only what it has left running may write to its outputs after that.
func (p *Proc) Done() <-chan struct{} { return p.done }

// Wait waits for Done.
func (p *Proc) Wait(ctx context.Context) (ExitStatus, error) {
	select {
	case <-p.done:
		return p.status, nil
	case <-ctx.Done():
		return ExitStatus{}, ctx.Err()
	}
}

// Signal sends a signal to this process only, not to its children. After its
// end the error is os.ErrProcessDone.
func (p *Proc) Signal(sig syscall.Signal) error {
	if p.hasExited() {
		return os.ErrProcessDone
	}
	_, err := p.container.call(context.Background(), message{Signal: &signalOrder{Pid: p.pid, Signal: int(sig)}}, nil)
	if err != nil && p.hasExited() { // meanwhile
		return os.ErrProcessDone
	}
	return err
}

func (p *Proc) hasExited() bool {
	select {
	case <-p.exited:
		return true
	default:
		return false
	}
}

// output copies what a process writes. Others may hold the pipe open after the
// process has ended; then copying goes on, but nobody waits for it.
type output struct {
	from    *os.File
	to      io.Writer
	drained chan struct{}
	once    sync.Once
}

func (o *output) copy() {
	defer o.from.Close()
	defer o.once.Do(func() { close(o.drained) })
	buf := make([]byte, 32<<10)
	for {
		err := o.pass(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			o.drain(buf)
			continue
		}
		if err != nil {
			return
		}
	}
}

// pass hands one read on. Nothing is written when nothing was read: nobody
// expects a write after the end.
func (o *output) pass(buf []byte) error {
	n, err := o.from.Read(buf)
	if n > 0 {
		_, _ = o.to.Write(buf[:n])
	}
	return err
}

// ended interrupts copy, which then reads what is left. A terminal hands over
// what was written a moment late, and then reports its end by itself.
func (o *output) ended() {
	grace := time.Duration(0)
	if isTerminal(o.from) {
		grace = 100 * time.Millisecond
	}
	_ = o.from.SetReadDeadline(time.Now().Add(grace))
}

func (o *output) drain(buf []byte) {
	_ = o.from.SetReadDeadline(time.Time{})
	for buffered(o.from) > 0 {
		if o.pass(buf) != nil {
			break
		}
	}
	o.once.Do(func() { close(o.drained) })
}

func buffered(f *os.File) (n int) {
	control(f, func(fd int) { n, _ = unix.IoctlGetInt(fd, unix.TIOCINQ) })
	return n
}

func isTerminal(f *os.File) (is bool) {
	control(f, func(fd int) {
		_, err := unix.IoctlGetTermios(fd, unix.TCGETS)
		is = err == nil
	})
	return is
}

func control(f *os.File, do func(fd int)) {
	raw, err := f.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) { do(int(fd)) })
}
