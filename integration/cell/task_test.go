package cell_test

import (
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/consul-mesh/mesh-buildpack/integration/cell"
	"github.com/consul-mesh/mesh-buildpack/integration/container"
)

func TestTask(t *testing.T) {
	c := newCell(t, cell.Options{})
	r := push(t, c, sidecarApp(t))
	status, err := r.Task(timeout(t), `echo "$TRACE"; echo "$VCAP_APPLICATION"; echo "guid:$CF_INSTANCE_GUID"; ps ax 2>/dev/null | grep -c "[s]leep 1000"; exit 6`)
	if err != nil || status.Code != 6 {
		t.Fatalf("got %s %v", status, err)
	}
	var printed []string
	for _, l := range r.Logs() {
		if strings.HasPrefix(l.Label, "APP/TASK/") {
			printed = append(printed, l.Text)
		}
	}
	if len(printed) < 3 || !strings.HasPrefix(printed[0], "platform:") || printed[2] != "guid:" {
		t.Fatalf("got %q", printed)
	}
	if _, has := vcapApplication(t, printed[1])["process_type"]; has {
		t.Error("a task has a process type")
	}
}

// said are the lines that a task has logged.
func said(r *cell.RunningApp, task *cell.Task) (lines []string) {
	for _, l := range r.Logs() {
		if l.Label == "APP/TASK/"+task.Name()+"/0" {
			lines = append(lines, l.Text)
		}
	}
	return lines
}

func startTask(t *testing.T, r *cell.RunningApp, command string, o cell.TaskOptions) *cell.Task {
	t.Helper()
	task, err := r.StartTask(timeout(t), command, o)
	must(t, err)
	return task
}

// TestSeveralTasks run at once, each with its name, id and environment.
func TestSeveralTasks(t *testing.T) {
	c := newCell(t, cell.Options{})
	a := app(t, "app", nil)
	a.Memory = 256
	r := push(t, c, a)
	const waits = "env; while ! [ -e /tmp/go ]; do sleep 0.05; done; exit 3"
	one := startTask(t, r, waits, cell.TaskOptions{Name: "one"})
	two := startTask(t, r, waits, cell.TaskOptions{Memory: 64})
	if one.ID() != 1 || two.ID() != 2 || one.Name() != "one" || len(two.Name()) != 8 || one.GUID() == two.GUID() || len(one.GUID()) != 36 {
		t.Errorf("%d %s %s, %d %s %s", one.ID(), one.Name(), one.GUID(), two.ID(), two.Name(), two.GUID())
	}
	for task, memory := range map[*cell.Task]string{one: "256", two: "64"} {
		until(t, "it runs", func() bool { return slices.Contains(said(r, task), "CF_INSTANCE_INTERNAL_IP="+task.Address()) })
		until(t, "it has said all", func() bool { return slices.Contains(said(r, task), "MEMORY_LIMIT="+memory+"m") })
		for _, line := range said(r, task) {
			key, value, _ := strings.Cut(line, "=")
			if slices.Contains([]string{"CF_INSTANCE_GUID", "CF_INSTANCE_INDEX", "CF_INSTANCE_PORT", "PORT"}, key) {
				t.Errorf("a task has %s", line)
			}
			if key == "VCAP_APPLICATION" && !strings.Contains(value, `"mem":`+memory+"}") {
				t.Errorf("%s has limits otherwise: %s", task.Name(), value)
			}
		}
	}
	for _, task := range []*cell.Task{two, one} {
		if output, err := task.ReadFile("/tmp/go"); err == nil {
			t.Errorf("it has another's file: %s", output)
		}
		_, err := task.Exec(timeout(t), container.Process{Path: "/bin/touch", Args: []string{"touch", "/tmp/go"}})
		must(t, err)
		if status, err := task.Wait(timeout(t)); err != nil || status.Code != 3 || status.Signal != 0 || task.OutOfMemory() {
			t.Errorf("%s: %v %v", task.Name(), status, err)
		}
		if got := said(r, task); got[len(got)-1] != "Exit status 3" {
			t.Errorf("it has said last: %s", got[len(got)-1])
		}
	}
	if r.Instance(0).State() != cell.Running {
		t.Error("the end of a task has ended an instance")
	}
}

// TestTerminateTask: SIGTERM to the top process, SIGKILL when the grace is over.
func TestTerminateTask(t *testing.T) {
	const grace = 2 * time.Second
	c := newCell(t, cell.Options{StopGrace: grace})
	r := push(t, c, app(t, "app", nil))
	for command, want := range map[string]struct {
		code  int
		kills bool
	}{
		"trap 'exit 9' TERM; echo ready; while :; do sleep 0.01; done": {9, false},
		"echo ready; exec sleep 1000":                                  {128 + int(syscall.SIGTERM), false},
		"trap '' TERM; echo ready; while :; do sleep 0.01; done":       {128 + int(syscall.SIGKILL), true},
	} {
		task := startTask(t, r, command, cell.TaskOptions{})
		until(t, "it is ready", func() bool { return slices.Contains(said(r, task), "ready") })
		began := time.Now()
		must(t, task.Terminate(timeout(t)))
		status, err := task.Wait(timeout(t))
		if took := time.Since(began); err != nil || status.Code != want.code || (took >= grace) != want.kills {
			t.Errorf("%s: %v %v after %s", command, status, err, took)
		}
		must(t, task.Terminate(timeout(t)))
	}
}

// TestTaskDisk: a task may have less than an instance, or more.
func TestTaskDisk(t *testing.T) {
	c := newCell(t, cell.Options{})
	a := app(t, "app", nil)
	a.Disk = 16
	r := push(t, c, a)
	for disk, want := range map[int]int{0: 1, 64: 0} {
		task := startTask(t, r, "head -c 32M /dev/zero > /home/vcap/tmp/file || exit 1", cell.TaskOptions{Disk: disk})
		if status, err := task.Wait(timeout(t)); err != nil || status.Code != want {
			t.Errorf("%d MB: %v %v", disk, status, err)
		}
	}
}

// TestTaskOutOfMemory: the kernel kills a task that takes more than its own memory,
// whatever the app has.
func TestTaskOutOfMemory(t *testing.T) {
	if err := cell.MemoryLimits(); err != nil {
		t.Skip("NOT TESTED: ", err)
	}
	c := newCell(t, cell.Options{})
	a := app(t, "app", nil)
	a.Memory, a.EnforceMemory = 256, true
	r := push(t, c, a)
	const hungry = "printf -v text %067108864d 0; echo ${#text}"
	for memory, want := range map[int]bool{32: true, 256: false} {
		task := startTask(t, r, hungry, cell.TaskOptions{Memory: memory})
		status, err := task.Wait(timeout(t))
		if err != nil || (status.Code == 137) != want || task.OutOfMemory() != want {
			t.Errorf("%d MB: %v %v, out of memory %t", memory, status, err, task.OutOfMemory())
		}
	}
}
