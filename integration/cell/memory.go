package cell

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/consul-mesh/mesh-buildpack/integration/container"
)

// groupPrefix begins the names of all control groups and disks of cells. The name of
// the program that makes them follows.
const groupPrefix = "mesh-cell-"

// programName tells this program from others that have cells at the same time.
var programName string

// memoryGroup is a container's own control group, which bounds its memory as
// Garden's does: the kernel kills what asks for more.
type memoryGroup struct {
	dir  string
	view string // where the container sees it
}

// MemoryLimits says why the memory of an app cannot be bounded here; nil: it
// can.
func MemoryLimits() error {
	g, err := newMemoryGroup(1)
	if err := errors.Join(err, g.remove()); err != nil {
		return err
	}
	empty, err := os.MkdirTemp(workDir, "empty")
	if err != nil {
		return err
	}
	defer os.Remove(empty)
	disk, err := newDisk(empty, 8)
	if err == nil {
		leaveDisk(disk)
	}
	return err
}

// newMemoryGroup makes a group with a limit in MB. It needs the machine's root.
func newMemoryGroup(limit int) (g memoryGroup, err error) {
	hierarchy, limits := memoryHierarchy()
	g.view = hierarchy
	if g.dir, err = os.MkdirTemp(hierarchy, groupPrefix+programName+"-"); err != nil {
		return g, fmt.Errorf("failed to make a control group: %w", err)
	}
	// For the container's user to look into.
	if err := os.Chmod(g.dir, 0o755); err != nil {
		return g, err
	}
	for i, name := range limits {
		bytes := limit << 20
		if name == "memory.swap.max" { // on top of the memory
			bytes = 0
		}
		err := g.write(name, bytes)
		if err != nil && (i == 0 || !errors.Is(err, fs.ErrNotExist)) { // a kernel may have no swap
			return g, fmt.Errorf("failed to bound the memory of a control group: %w", err)
		}
	}
	return g, nil
}

// memoryHierarchy is where groups are made, and the files that hold the limits of
// memory and swap, in the order in which they have to be written: those of version
// 2, or of 1.
func memoryHierarchy() (dir string, limits []string) {
	const mounted = "/sys/fs/cgroup"
	if _, err := os.Stat(mounted + "/cgroup.controllers"); err == nil {
		return mounted, []string{"memory.max", "memory.swap.max"}
	}
	return mounted + "/memory", []string{"memory.limit_in_bytes", "memory.memsw.limit_in_bytes"}
}

// mount shows the group in its container, where Garden does.
func (g memoryGroup) mount() container.Mount {
	return container.Mount{Source: g.dir, Target: g.view, ReadOnly: true}
}

// join moves a process, with all that it will start, into the group.
func (g memoryGroup) join(pid int) error { return g.write("cgroup.procs", pid) }

func (g memoryGroup) write(name string, value int) error {
	f, err := os.OpenFile(filepath.Join(g.dir, name), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(strconv.Itoa(value))
	return errors.Join(err, f.Close())
}

// hasKilled tells whether the kernel has killed something that asked for more.
func (g memoryGroup) hasKilled() bool {
	for _, name := range []string{"memory.events", "memory.oom_control"} { // of version 2, or of 1
		text, _ := os.ReadFile(filepath.Join(g.dir, name))
		for line := range strings.Lines(string(text)) {
			if n, ok := strings.CutPrefix(line, "oom_kill "); ok {
				return strings.TrimSpace(n) != "0"
			}
		}
	}
	return false
}

// remove takes the group away. Nothing runs in it any more, but the kernel may
// take a moment to see that.
func (g memoryGroup) remove() (err error) {
	for range 100 {
		if err = os.Remove(g.dir); !errors.Is(err, unix.EBUSY) {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if errors.Is(err, fs.ErrNotExist) { // was never made
		return nil
	}
	return err
}

// removeGroups takes away the groups that a program has left, and those of others
// that were killed: a group is not without a process for long. The kernel keeps
// the ones in which something runs.
func removeGroups(program string) {
	hierarchy, _ := memoryHierarchy()
	groups, _ := filepath.Glob(filepath.Join(hierarchy, groupPrefix+"*"))
	for _, dir := range groups {
		if strings.HasPrefix(filepath.Base(dir), groupPrefix+program+"-") {
			_ = memoryGroup{dir: dir}.remove()
		} else if info, err := os.Stat(dir); err == nil && time.Since(info.ModTime()) > time.Minute {
			_ = os.Remove(dir)
		}
	}
}

// MemoryUse is the memory that the kernel charges to an instance, in bytes.
type MemoryUse struct {
	// Own is what processes have for themselves, Files are pages of files, which
	// the kernel gives up where memory is short unless they are in memory only.
	Own, Files int
	// Total has the kernel's own for the instance too. Peak is the most it was.
	Total, Peak int
	// Reads is how often a page had to be read before a process could go on.
	Reads int
	// Kills is how many processes were killed for want of memory.
	Kills int
}

// MemoryUse is that of an instance with App.EnforceMemory.
func (g *Guest) MemoryUse() (u MemoryUse, err error) {
	if g.group.dir == "" {
		return u, errors.New("its memory is not bounded")
	}
	text := ""
	for _, name := range memoryFiles {
		content, err := os.ReadFile(filepath.Join(g.group.dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue // the other version's
		} else if err != nil {
			return u, fmt.Errorf("failed to read a control group: %w", err)
		}
		if fields := strings.Fields(string(content)); len(fields) == 1 {
			text += name + " "
		}
		text += string(content)
	}
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		n, err := strconv.Atoi(value)
		if err != nil {
			continue // none of ours
		}
		switch name {
		case "rss", "anon":
			u.Own = n
		case "cache", "file":
			u.Files = n
		case "memory.usage_in_bytes", "memory.current":
			u.Total = n
		case "memory.max_usage_in_bytes", "memory.peak":
			u.Peak = n
		case "pgmajfault":
			u.Reads = n
		case "oom_kill":
			u.Kills = n
		}
	}
	return u, nil
}

// memoryFiles are a group's files with figures, those of version 1 and of 2.
var memoryFiles = []string{
	"memory.usage_in_bytes", "memory.max_usage_in_bytes", "memory.oom_control",
	"memory.current", "memory.peak", "memory.events", "memory.stat",
}
