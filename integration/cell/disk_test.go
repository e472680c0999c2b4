package cell_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/consul-mesh/mesh-buildpack/integration/cell"
)

const mb = 1 << 20

// heavy is an app with a file of so many MB, none of which can be left out.
func heavy(t *testing.T, size int) cell.App {
	t.Helper()
	a := app(t, "heavy", nil)
	must(t, os.WriteFile(filepath.Join(a.Dir, "big"), bytes.Repeat([]byte("full"), size*mb/4), 0o644))
	return a
}

// TestDiskQuota: the droplet counts into the quota. One that is larger does not
// start, and what an instance may write is the rest.
func TestDiskQuota(t *testing.T) {
	c := newCell(t, cell.Options{})
	a := heavy(t, 24)
	a.Disk = 20
	droplet, err := c.Stage(timeout(t), a)
	must(t, err)
	_, err = c.Start(timeout(t), a, droplet)
	if err == nil || !strings.Contains(err.Error(), "disk quota exceeded") {
		t.Errorf("started with a quota below the droplet: %v", err)
	}
	if _, err := c.Task(timeout(t), a, droplet, "true"); err == nil {
		t.Error("a task ran with a quota below the droplet")
	}
	a.Disk = 64 // the droplet has 24 MB and a program
	r, err := c.Start(timeout(t), a, droplet)
	must(t, err)
	must(t, r.WaitRunning(timeout(t)))
	writeAll(t, r.Instance(0), 64-24, 16)
	announced := environment(t, r.Instance(0), r.Instance(0).Processes()[0].Pid)["VCAP_APPLICATION"]
	if limits := vcapApplication(t, announced)["limits"]; !strings.Contains(fmt.Sprint(limits), "disk:64") {
		t.Errorf("announced are %v", limits)
	}
}

// writeAll fails unless an instance may write at least some MB, and less than most.
func writeAll(t *testing.T, i *cell.Instance, most, least int) {
	t.Helper()
	written, err := strconv.Atoi(ssh(t, i, "cat /dev/zero > ~/tmp/full 2>/dev/null; stat -c %s ~/tmp/full; rm ~/tmp/full"))
	must(t, err)
	if written >= most*mb || written < least*mb {
		t.Errorf("%.1f MB could be written, want %d to %d", float64(written)/mb, least, most)
	}
}

// TestOwnDroplet: where memory is enforced, an instance pays for what it reads of
// its droplet and for what it writes, which the kernel gives up where it is short.
func TestOwnDroplet(t *testing.T) {
	if err := cell.MemoryLimits(); err != nil {
		t.Skip("NOT TESTED: ", err)
	}
	c := newCell(t, cell.Options{})
	a := heavy(t, 48)
	a.EnforceMemory, a.Memory, a.Disk, a.Instances = true, 512, 128, 2
	droplet, err := c.Stage(timeout(t), a)
	must(t, err)
	r, err := c.Start(timeout(t), a, droplet)
	must(t, err)
	must(t, r.WaitRunning(timeout(t)))
	for _, i := range r.Instances() { // each, whoever was first
		before := memoryUse(t, i).Files
		ssh(t, i, "cat ~/app/big > /dev/null")
		if grown := memoryUse(t, i).Files - before; grown < 44*mb || grown > 60*mb {
			t.Errorf("instance %d pays for %d MB more after it has read 48", i.Index(), grown/mb)
		}
	}
	one := r.Instance(0)
	before := memoryUse(t, one).Files
	ssh(t, one, "head -c 20M /dev/zero > ~/tmp/written")
	if grown := memoryUse(t, one).Files - before; grown < 16*mb {
		t.Errorf("it pays for %d MB more after it has written 20", grown/mb)
	}
	ssh(t, one, "rm ~/tmp/written; echo changed > ~/app/big")
	if got := ssh(t, r.Instance(1), "stat -c '%s %U' ~/app/big"); got != strconv.Itoa(48*mb)+" vcap" {
		t.Errorf("the other instance has it as %s", got)
	}
	writeAll(t, r.Instance(1), 128-48, 48)

	a.Memory = 32
	small, err := c.Start(timeout(t), a, droplet)
	must(t, err)
	must(t, small.WaitRunning(timeout(t)))
	ssh(t, small.Instance(0), "cat ~/app/big > /dev/null; cat ~/app/big > ~/tmp/copy")
	use := memoryUse(t, small.Instance(0))
	if use.Kills != 0 || use.Peak > 32*mb || use.Peak < 24*mb || use.Own == 0 || use.Reads == 0 || use.Total < use.Own+use.Files {
		t.Errorf("it had %+v", use)
	}
}

// memoryUse is what an instance is charged for.
func memoryUse(t *testing.T, i *cell.Instance) cell.MemoryUse {
	t.Helper()
	use, err := i.MemoryUse()
	must(t, err)
	return use
}
