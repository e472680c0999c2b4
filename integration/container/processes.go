package container

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Processes lists every process in the container, init included, by pid.
func (c *Container) Processes() ([]ProcessInfo, error) {
	// The container's own /proc has its pids, the caller's has the caller's.
	inside := fmt.Sprintf("/proc/%d/root/proc", c.Pid())
	entries, err := os.ReadDir(inside)
	if err != nil {
		return nil, fmt.Errorf("failed to list processes: %w", err)
	}
	outside := c.hostPids()
	var all []ProcessInfo
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		p, err := processInfo(filepath.Join(inside, e.Name()), pid)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			continue // it ended meanwhile
		}
		if err != nil {
			return nil, fmt.Errorf("failed to read about process %d: %w", pid, err)
		}
		p.HostPid = outside[pid]
		all = append(all, p)
	}
	return all, nil
}

func processInfo(dir string, pid int) (ProcessInfo, error) {
	stat, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return ProcessInfo{}, err
	}
	cmdline, err := os.ReadFile(filepath.Join(dir, "cmdline"))
	if err != nil {
		return ProcessInfo{}, err
	}
	p := ProcessInfo{Pid: pid, State: stateIn(stat)}
	if s := strings.TrimSuffix(string(cmdline), "\x00"); s != "" {
		p.Args = strings.Split(s, "\x00")
	}
	return p, nil
}

// stateIn is the state that /proc/PID/stat tells.
func stateIn(stat []byte) string {
	// The name before it is in parentheses and may have spaces.
	if end := strings.LastIndexByte(string(stat), ')'); end >= 0 && len(stat) > end+2 {
		return string(stat[end+2])
	}
	return ""
}

// hostPids maps pids of the container to pids of the caller.
func (c *Container) hostPids() map[int]int {
	pids := map[int]int{}
	namespace, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", c.Pid()))
	if err != nil {
		return pids
	}
	links, _ := filepath.Glob("/proc/[0-9]*/ns/pid")
	for _, link := range links {
		if other, err := os.Readlink(link); err != nil || other != namespace {
			continue
		}
		dir := filepath.Dir(filepath.Dir(link))
		status, err := os.ReadFile(filepath.Join(dir, "status"))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(status)) {
			if ids, ok := strings.CutPrefix(line, "NSpid:"); ok {
				all := strings.Fields(ids)
				host, _ := strconv.Atoi(filepath.Base(dir))
				inner, _ := strconv.Atoi(all[len(all)-1])
				pids[inner] = host
			}
		}
	}
	return pids
}

// ReadFile reads a file of the container, whoever may read it there.
func (c *Container) ReadFile(path string) ([]byte, error) {
	root, err := unix.Open(fmt.Sprintf("/proc/%d/root", c.Pid()), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(root)
	// Absolute links of the container must not lead into the caller's files.
	fd, err := unix.Openat2(root, path, &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT})
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	return io.ReadAll(f)
}
