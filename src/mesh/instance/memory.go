package instance

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// MemoryProblems looks whether the kernel has killed for want of memory
// (control groups, version 2 and 1).
func MemoryProblems() []string {
	for _, file := range []string{"/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"} {
		text, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		if problem := memoryProblem(string(text)); problem != "" {
			return []string{problem}
		}
	}
	return nil
}

// Thrashing looks whether the memory is so full that the kernel keeps giving up pages
// of programs, and reads them again: it need not kill anybody then, but nothing starts.
func Thrashing() []string {
	for _, group := range []struct{ dir, limit string }{
		{"/sys/fs/cgroup/", "memory.max"}, {"/sys/fs/cgroup/memory/", "memory.limit_in_bytes"},
	} {
		stat, err := os.ReadFile(group.dir + "memory.stat")
		if err != nil {
			continue
		}
		limit, _ := os.ReadFile(group.dir + group.limit)
		if problem := thrashing(string(stat), string(limit)); problem != "" {
			return []string{problem}
		}
	}
	return nil
}

// readAgain is how often as much as fits is read again where memory is too small to
// start; where it is just enough, it is once or twice.
const readAgain = 10

// thrashing says what a memory control group's pages mean that were read again; the
// limit is in bytes, or "max".
func thrashing(stat, limit string) string {
	bytes, _ := strconv.Atoi(strings.TrimSpace(limit))
	for line := range strings.Lines(stat) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if pages, _ := strconv.Atoi(value); name == "workingset_refault_file" && bytes > 0 && pages/readAgain > bytes/os.Getpagesize() {
			return fmt.Sprintf("not enough memory: the kernel keeps reading programs again, which do not fit into the %d MB of this container: %s", bytes>>20, moreMemory)
		}
	}
	return ""
}

// moreMemory is what to do.
const moreMemory = "cf scale -m gives more, memory in mesh.hcl says what the sidecars take"

// memoryProblem says what the counters of a memory control group mean, empty where all is well.
func memoryProblem(events string) string {
	for line := range strings.Lines(events) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if n, _ := strconv.Atoi(value); name == "oom_kill" && n > 0 {
			return fmt.Sprintf("not enough memory: the kernel has killed %d processes of this container for it: %s", n, moreMemory)
		}
	}
	return ""
}
