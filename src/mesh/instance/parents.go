package instance

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// sshDaemon is what Cloud Foundry runs in a container for `cf ssh` (Diego,
// diego-ssh).
const sshDaemon = "diego-sshd"

// UnderSSH says that this process descends from the ssh daemon: it is a
// person's, whatever it runs.
func UnderSSH() bool {
	for pid := os.Getppid(); pid > 1; {
		parent, name := ParentOf(pid)
		if name == sshDaemon {
			return true
		}
		pid = parent
	}
	return false
}

// ParentOf gives the parent of a process, and the process's own name: 0 where
// there is none.
func ParentOf(pid int) (parent int, name string) {
	// pid (name) state parent …; the name may have anything in it.
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, after, _ := strings.Cut(string(text), "(")
	end := strings.LastIndex(after, ")")
	if end < 0 {
		return 0, ""
	}
	if fields := strings.Fields(after[end+1:]); len(fields) > 1 {
		parent, _ = strconv.Atoi(fields[1])
	}
	return parent, after[:end]
}

// AdoptChildren waits for the children that a process had before it became this
// one, such as what a profile script left in the background: nobody else would,
// and each would stay as a zombie.
func AdoptChildren() {
	text, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/children", os.Getpid()))
	if err != nil {
		return // a kernel that does not tell
	}
	for field := range strings.FieldsSeq(string(text)) {
		pid, err := strconv.Atoi(field)
		if err != nil {
			continue
		}
		if process, err := os.FindProcess(pid); err == nil {
			go func() { _, _ = process.Wait() }()
		}
	}
}
