package runtime

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// sshDaemon is what Cloud Foundry runs in a container for `cf ssh` (Diego,
// diego-ssh).
const sshDaemon = "diego-sshd"

// underSSH says that this process descends from the ssh daemon: it is a
// person's, whatever it runs.
func underSSH() bool {
	for pid := os.Getppid(); pid > 1; {
		// pid (name) state parent …; the name may have anything in it.
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return false
		}
		before, after, _ := strings.Cut(string(text), "(")
		end := strings.LastIndex(after, ")")
		fields := strings.Fields(after[end+1:])
		if before == "" || end < 0 || len(fields) < 2 {
			return false
		}
		if after[:end] == sshDaemon {
			return true
		}
		if pid, err = strconv.Atoi(fields[1]); err != nil {
			return false
		}
	}
	return false
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
