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

// memoryProblem says what the counters of a memory control group mean, empty where all is well.
func memoryProblem(events string) string {
	for line := range strings.Lines(events) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if n, _ := strconv.Atoi(value); name == "oom_kill" && n > 0 {
			return fmt.Sprintf("not enough memory: the kernel has killed %d processes of this container for it: cf scale -m gives more, memory in mesh.hcl says what the sidecars take", n)
		}
	}
	return ""
}
