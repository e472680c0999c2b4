package container

import (
	"fmt"
	"io"
	"io/fs"
	"syscall"
)

// Spec says what a container is made of.
type Spec struct {
	// Hostname of the container's UTS namespace.
	Hostname string
	// Root is an empty directory of the caller; the container's root file
	// system is built on a tmpfs mounted over it, seen by the container only.
	Root string
	// Mounts are made in order on top of the base file system.
	Mounts []Mount
	// Files are written into the base file system before it becomes read-only,
	// e.g. /etc/hosts and /etc/resolv.conf.
	Files []File
	// Net moves the container into its network. It is called with the pid of
	// init, as the caller sees it, before anything runs in the container. Nil
	// leaves the container with its loopback device only.
	Net func(pid int) error `json:"-"`
	// Listen are TCP ports that init takes, so that no process has them.
	Listen []int
	// Init is the path of the static program that is run as "PROGRAM init" and
	// becomes process 1. It has to call Init.
	Init string
}

// Mount is something of the caller's file system, or a new file system, at
// Target in the container. Exactly one of Source, Lower and Tmpfs is used.
type Mount struct {
	// Target is an absolute path; missing directories are made.
	Target string
	// Source is a file or directory to bind.
	Source string
	// ReadOnly forbids writing below Target.
	ReadOnly bool
	// Lower are directories, the topmost first, of an overlay whose changes are
	// kept in memory for as long as the container lives.
	Lower []string
	// Size is how much the changes to Lower may take, in MB; 0 is no limit.
	Size int
	// Tmpfs mounts an empty writable directory that belongs to vcap.
	Tmpfs bool
}

// File is a file with a given content.
type File struct {
	Path    string
	Content string
	Mode    fs.FileMode
}

// Process is a program to run in a container, as vcap.
type Process struct {
	// Path is absolute, in the container.
	Path string
	// Args include the name the process sees as its own (argv[0]). Empty means
	// Path alone.
	Args []string
	// Env is the whole environment, in the form "key=value".
	Env []string
	// Dir is the working directory; "" means /.
	Dir string
	// Stdin is copied to the process; nil is an empty input.
	Stdin io.Reader
	// Stdout and Stderr receive what the process writes; nil discards it. If
	// they are the same they are written to by one goroutine at a time. With a
	// terminal there is only Stdout.
	Stdout, Stderr io.Writer
	// TTY gives the process a terminal of its own as its controlling terminal.
	TTY bool
}

// ExitStatus tells how a process ended.
type ExitStatus struct {
	// Code is the exit code, or 128 + the signal's number.
	Code int
	// Signal is what ended the process, 0 if it exited by itself.
	Signal syscall.Signal
}

// String is "exit status N" or "signal: NAME".
func (s ExitStatus) String() string {
	if s.Signal != 0 {
		return "signal: " + s.Signal.String()
	}
	return fmt.Sprintf("exit status %d", s.Code)
}

// ProcessInfo describes one process of a container.
type ProcessInfo struct {
	// Pid is the process id inside the container.
	Pid int
	// HostPid is the process id as the caller sees it; 0 for a zombie.
	HostPid int
	// State is the letter of /proc/PID/stat: R, S, D, Z, T, …
	State string
	// Args is the command line, empty for a zombie.
	Args []string
}
