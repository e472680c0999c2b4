package cell

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// insideEnv marks the half of the program that runs in namespaces of its own, and
// has the program's name.
const insideEnv = "CELL_INSIDE"

// firstListener is the file descriptor of the first host listener inside.
const firstListener = 3

// Main runs a program in two halves and exits with the status of the second.
// prepare runs on the machine as it is and may use the internet; what it sets
// with os.Setenv the second half sees. run runs in namespaces of its own, where
// cells can be made; nothing of it is left behind when it ends, however it
// ends.
//
//	func TestMain(m *testing.M) { cell.Main(prepare, m.Run) }
func Main(prepare func() error, run func() int) {
	MainWith(MainOptions{Prepare: prepare, Run: run})
}

// MainOptions are the parts of a program that uses cells.
type MainOptions struct {
	// Prepare runs on the machine as it is. May be nil. TMPDIR is a directory
	// that is removed in the end.
	Prepare func() error
	// Run runs in namespaces of its own, as their root: nothing of the machine's
	// network is there. TMPDIR is a directory that vanishes with the process.
	Run func() int
	// Listen are addresses on the machine's own loopback, e.g. "127.0.0.1:0",
	// which Run gets at with HostListener.
	Listen []string

	cells int      // halves that are run, side by side
	tests *os.File // their queue
}

// MainWith is Main with everything that can be chosen.
func MainWith(o MainOptions) {
	var isInside bool
	if programName, isInside = os.LookupEnv(insideEnv); !isInside {
		os.Exit(outside(o))
	}
	os.Unsetenv(insideEnv)
	// Containers must not inherit what listens on the machine.
	for i := range len(o.Listen) {
		syscall.CloseOnExec(firstListener + i)
	}
	if err := enter(); err != nil {
		fmt.Fprintln(os.Stderr, explain(err))
		os.Exit(1)
	}
	os.Exit(o.Run())
}

// HostListener is the listener for the i-th address of MainOptions.Listen. It
// listens on the machine's loopback though it is used inside. Closing it does not
// give the port up, which is the program's until it ends.
func HostListener(i int) (net.Listener, error) {
	fd, err := unix.FcntlInt(uintptr(firstListener+i), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("failed to find host listener %d: %w", i, err)
	}
	f := os.NewFile(uintptr(fd), "listener")
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("failed to use host listener %d: %w", i, err)
	}
	return l, nil
}

func outside(o MainOptions) int {
	tmp, err := os.MkdirTemp("", "cell")
	if err != nil {
		fmt.Fprintln(os.Stderr, "failed to prepare:", err)
		return 1
	}
	defer os.RemoveAll(tmp)
	programName = filepath.Base(tmp)
	defer removeGroups(programName)
	if err := os.Setenv("TMPDIR", tmp); err != nil {
		fmt.Fprintln(os.Stderr, "failed to prepare:", err)
		return 1
	}
	if o.Prepare != nil {
		if err := o.Prepare(); err != nil {
			fmt.Fprintln(os.Stderr, "failed to prepare:", err)
			return 1
		}
	}
	// The kernel ends the inside when this very thread ends.
	runtime.LockOSThread()
	var files []*os.File
	for _, address := range o.Listen {
		f, err := listenerFile(address)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer f.Close()
		files = append(files, f)
	}
	if o.tests != nil {
		files = append(files, o.tests)
	}
	var halves []*exec.Cmd
	var printing sync.Mutex
	for range max(1, o.cells) {
		cmd := inside()
		cmd.ExtraFiles = files
		if o.cells > 1 {
			out := &blocks{out: os.Stdout, mutex: &printing}
			defer out.flush()
			cmd.Stdout, cmd.Stderr = out, out
		}
		if err := cmd.Start(); err != nil {
			fmt.Fprintln(os.Stderr, explain(err))
			return 1
		}
		halves = append(halves, cmd)
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGHUP)
	go func() {
		for s := range signals {
			for _, cmd := range halves {
				_ = cmd.Process.Signal(s)
			}
		}
	}()
	worst := 0
	for _, cmd := range halves {
		worst = max(worst, status(cmd.Wait()))
	}
	return worst
}

// inside is this program once more, in new namespaces.
func inside() *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), insideEnv+"="+programName)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWPID |
			syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS,
		Pdeathsig: syscall.SIGKILL,
		// A terminal's interrupt reaches it once, by way of this process.
		Setpgid: true,
	}
	if uid := os.Getuid(); uid != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	return cmd
}

func listenerFile(address string) (*os.File, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("failed to listen on the machine: %w", err)
	}
	defer l.Close()
	return l.(*net.TCPListener).File()
}

func status(err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case !errors.As(err, &exit):
		fmt.Fprintln(os.Stderr, "failed to run:", err)
		return 1
	}
	if s, ok := exit.Sys().(syscall.WaitStatus); ok && s.Signaled() {
		return 128 + int(s.Signal())
	}
	return exit.ExitCode()
}

// explain says in one sentence what a machine lacks.
func explain(err error) string {
	for _, refused := range []error{syscall.EPERM, syscall.EACCES, syscall.ENOSPC, syscall.EINVAL, syscall.ENODEV} {
		if errors.Is(err, refused) {
			return fmt.Sprintf("a local cell needs root or unprivileged user namespaces, and overlay, veth and nftables in the kernel (%s): "+
				"run it as root, or allow it with sysctl user.max_user_namespaces=65536, kernel.unprivileged_userns_clone=1 and kernel.apparmor_restrict_unprivileged_userns=0, whichever of them exist", err)
		}
	}
	return "failed to start a local cell: " + err.Error()
}
