package container

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// controlFD is where init finds the connection to its creator.
const controlFD = 3

// Init is process 1 of a container. It builds the root file system that it is
// told to, starts and signals processes on request, and reaps whatever ends. It
// returns, with an exit code, when its creator has gone; everything in the
// container ends with it.
func Init() int {
	// One thread starts all processes, so that what it gives up here none of
	// them has.
	runtime.LockOSThread()
	conn, err := unixConn(controlFD)
	if err != nil {
		fmt.Fprintln(os.Stderr, "init: not started as a container's init:", err)
		return 1
	}
	s := server{conn: conn, running: map[int]bool{}}
	if err := s.setUp(); err != nil {
		return 1
	}
	if err := s.serve(); err != nil && !errors.Is(err, io.EOF) {
		return 1
	}
	return 0
}

type server struct {
	conn    *net.UnixConn
	running map[int]bool // started on request, not yet ended
}

func (s *server) setUp() error {
	m, _, err := receive(s.conn)
	if err != nil {
		return err
	}
	if m.Spec == nil {
		return errors.New("the first message has to be the spec")
	}
	err = become(m.Spec)
	return errors.Join(err, s.reply(message{ID: m.ID}, err))
}

// become turns this process into the container's init.
func become(spec *Spec) error {
	if err := unix.Sethostname([]byte(spec.Hostname)); err != nil {
		return fmt.Errorf("failed to set the host name: %w", err)
	}
	if err := loopbackUp(); err != nil {
		return fmt.Errorf("failed to bring lo up: %w", err)
	}
	if err := listen(spec.Listen); err != nil {
		return fmt.Errorf("failed to listen: %w", err)
	}
	if err := (rootFS{dir: spec.Root, userNS: os.Getuid() != 0}).build(spec); err != nil {
		return fmt.Errorf("failed to build the root file system: %w", err)
	}
	return dropInheritedCapabilities()
}

// incoming is a message with its files.
type incoming struct {
	message
	files []int
}

// serve answers requests and reaps. Both are done by one goroutine: a process
// cannot be reaped before it was recorded.
func (s *server) serve() error {
	// Every signal is caught, none ignored: an ignored one would be ignored by
	// all processes of the container too.
	signals := make(chan os.Signal, 64)
	signal.Notify(signals)
	requests := make(chan incoming)
	ended := make(chan error, 1)
	go func() {
		for {
			m, files, err := receive(s.conn)
			if err != nil {
				ended <- err
				return
			}
			requests <- incoming{m, files}
		}
	}()
	for {
		select {
		case err := <-ended:
			return err
		case r := <-requests:
			if err := s.handle(r); err != nil {
				return err
			}
		case sig := <-signals:
			if sig != syscall.SIGCHLD {
				continue
			}
			if err := s.reap(); err != nil {
				return err
			}
		}
	}
}

func (s *server) handle(r incoming) error {
	reply := message{ID: r.ID}
	switch {
	case r.Run != nil && r.Run.TTY:
		pid, master, err := startOnTerminal(*r.Run)
		if err != nil {
			return s.reply(reply, err)
		}
		defer unix.Close(master)
		s.running[pid] = true
		reply.Pid = pid
		return send(s.conn, reply, master)
	case r.Run != nil:
		defer closeAll(r.files)
		pid, err := start(*r.Run, r.files, false)
		if err == nil {
			s.running[pid] = true
		}
		reply.Pid = pid
		return s.reply(reply, err)
	case r.Signal != nil:
		err := error(unix.ESRCH)
		if s.running[r.Signal.Pid] {
			err = unix.Kill(r.Signal.Pid, unix.Signal(r.Signal.Signal))
		}
		return s.reply(reply, err)
	}
	return s.reply(reply, errors.New("unknown request"))
}

func (s *server) reply(m message, err error) error {
	if err != nil {
		m.Error = err.Error()
		m.Pid = 0
	}
	return send(s.conn, m)
}

func (s *server) reap() error {
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil || pid == 0 {
			return nil
		}
		if !s.running[pid] {
			continue
		}
		delete(s.running, pid)
		end := endEvent{Pid: pid, Status: ExitStatus{Code: status.ExitStatus()}}
		if status.Signaled() {
			end.Status = killedBy(syscall.Signal(status.Signal()))
		}
		if err := send(s.conn, message{Ended: &end}); err != nil {
			return err
		}
	}
}

func killedBy(sig syscall.Signal) ExitStatus {
	return ExitStatus{Code: 128 + int(sig), Signal: sig}
}

// start runs a process as vcap with the given files as its first ones.
func start(r runRequest, files []int, terminal bool) (pid int, err error) {
	attr := &syscall.ProcAttr{Dir: r.Dir, Env: r.Env, Sys: &syscall.SysProcAttr{Setsid: true, Setctty: terminal}}
	for _, fd := range files {
		attr.Files = append(attr.Files, uintptr(fd))
	}
	// In a user namespace init is vcap itself.
	if os.Getuid() == 0 {
		attr.Sys.Credential = &syscall.Credential{Uid: vcapID, Gid: vcapID}
	}
	if attr.Dir == "" {
		attr.Dir = "/"
	}
	args := r.Args
	if len(args) == 0 {
		args = []string{r.Path}
	}
	pid, err = syscall.ForkExec(r.Path, args, attr)
	if err != nil {
		return 0, fmt.Errorf("failed to run %s: %w", r.Path, err)
	}
	return pid, nil
}

func startOnTerminal(r runRequest) (pid, master int, err error) {
	master, slave, err := openTerminal()
	if err != nil {
		return 0, 0, fmt.Errorf("failed to open a terminal: %w", err)
	}
	defer unix.Close(slave)
	pid, err = start(r, []int{slave, slave, slave}, true)
	if err != nil {
		unix.Close(master)
	}
	return pid, master, err
}

func openTerminal() (master, slave int, err error) {
	master, err = unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, 0, err
	}
	defer func() {
		if err != nil {
			unix.Close(master)
		}
	}()
	if err = unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err != nil {
		return 0, 0, err
	}
	number, err := unix.IoctlGetInt(master, unix.TIOCGPTN)
	if err != nil {
		return 0, 0, err
	}
	slave, err = unix.Open("/dev/pts/"+strconv.Itoa(number), unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, 0, err
	}
	if err = unix.Fchown(slave, vcapID, -1); err != nil {
		unix.Close(slave)
	}
	return master, slave, err
}

// dropInheritedCapabilities takes from this thread what its children would
// inherit. Only in a user namespace is there anything to take: init is not uid
// 0 there and has its own capabilities as ambient ones.
func dropInheritedCapabilities() error {
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("failed to drop ambient capabilities: %w", err)
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return fmt.Errorf("failed to read capabilities: %w", err)
	}
	data[0].Inheritable, data[1].Inheritable = 0, 0
	if err := unix.Capset(&header, &data[0]); err != nil {
		return fmt.Errorf("failed to drop inheritable capabilities: %w", err)
	}
	return nil
}

// loopbackUp needs no netlink library, which keeps init small.
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo)
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}
