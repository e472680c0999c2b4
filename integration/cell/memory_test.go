package cell_test

import (
	"strings"
	"testing"

	"github.com/consul-mesh/mesh-buildpack/integration/cell"
)

// oomKills prints how many processes of an instance were killed for want of memory.
const oomKills = "cat /sys/fs/cgroup/memory.events /sys/fs/cgroup/memory/memory.oom_control 2>/dev/null | grep oom_kill | tail -1"

// TestMemoryLimit: what asks for more than the instance may have is killed, the
// instance sees that it was, and nobody else is bounded.
func TestMemoryLimit(t *testing.T) {
	if err := cell.MemoryLimits(); err != nil {
		t.Skip("NOT TESTED: ", err)
	}
	c := newCell(t, cell.Options{})
	a, b := app(t, "bounded", nil), app(t, "free", nil)
	a.Memory, a.EnforceMemory, b.Memory = 32, true, 32
	bounded, free := push(t, c, a), push(t, c, b)
	// One process: where two ask for more at the same moment, the kernel may kill
	// for each of them.
	if use := memoryUse(t, bounded.Instance(0)); use.Kills != 0 {
		t.Errorf("%d were killed for nothing", use.Kills)
	}
	if _, err := free.Instance(0).MemoryUse(); err == nil {
		t.Error("without a limit there are figures")
	}
	const hungry = `bash -c 'printf -v text %067108864d 0; echo ${#text}' || echo $?`
	if got := ssh(t, free.Instance(0), hungry); got != "67108864" {
		t.Errorf("without a limit: %s", got)
	}
	if got := ssh(t, bounded.Instance(0), hungry); !strings.HasSuffix(got, "137") {
		t.Errorf("with a limit: %s", got)
	}
	if got := ssh(t, bounded.Instance(0), oomKills); got != "oom_kill 1" {
		t.Errorf("it sees %q", got)
	}
	if use := memoryUse(t, bounded.Instance(0)); use.Kills != 1 {
		t.Errorf("%d were killed", use.Kills)
	}
	if state := bounded.Instance(0).State(); state != cell.Running {
		t.Errorf("it is %s", state)
	}
}
