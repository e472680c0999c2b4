package mesh

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/consul-mesh/mesh-buildpack/integration/cell"
	"github.com/consul-mesh/mesh-buildpack/integration/container"
)

// TestTaskWithoutServers: it fails in time and says why, or runs where the file says so.
func TestTaskWithoutServers(t *testing.T) {
	for _, required := range []bool{true, false} {
		t.Run(fmt.Sprint(required), func(t *testing.T) {
			name := fmt.Sprintf("serverless-%v", required)
			k := newTasks(t, withAgent, name, fmt.Sprintf("addresses = [%q]\nstart_timeout = \"5s\"\nrequired = %v\n", "nowhere.apps.internal", required))
			status, said := k.run("echo ran; exit 3", cell.TaskOptions{})
			ran := strings.Contains(said, "ran\n")
			if !strings.Contains(said, "nowhere.apps.internal") || ran == required || required && status != 1 || !required && status != 3 {
				t.Errorf("exit status %d, it says:\n%s", status, said)
			}
			task := k.start("echo ran", cell.TaskOptions{})
			time.Sleep(time.Second) // its mesh starts
			if err := task.Terminate(deadline(t)); err != nil {
				t.Fatal(err)
			}
			if status, said := k.end(task), k.said(task); status != 128+int(syscall.SIGTERM) || strings.Contains(said, "ran") {
				t.Errorf("terminated while it starts: exit status %d, it says:\n%s", status, said)
			}
		})
	}
}

// TestTaskServersAway: a task that starts while the servers are away runs when they are
// back, and one that ends meanwhile ends with its own exit status, and soon.
func TestTaskServersAway(t *testing.T) {
	k := newTasks(t, agentless, "away", "")
	running := k.start("echo up; until [ -e /tmp/end ]; do sleep 0.1; done; exit 5", cell.TaskOptions{})
	k.waitSaid(running, "up")
	restore := silenceServers(t)
	starting := k.start("echo ran; "+call+" >/dev/null", cell.TaskOptions{})
	if _, err := running.Exec(deadline(t), container.Process{Path: "/usr/bin/touch", Args: []string{"touch", "/tmp/end"}}); err != nil {
		t.Error(err)
	}
	begun := time.Now()
	if status := k.end(running); status != 5 {
		t.Errorf("exit status %d, it says:\n%s", status, k.said(running))
	}
	if took := time.Since(begun); took > 8*time.Second {
		t.Errorf("it took %v to end", took)
	}
	if said := k.said(starting); said != "" {
		t.Errorf("the task that starts says:\n%s", said)
	}
	for _, undo := range restore {
		if err := undo(); err != nil {
			t.Fatal(err)
		}
	}
	if status, said := k.end(starting), k.said(starting); status != 0 || said != "ran\n" {
		t.Errorf("exit status %d, it says:\n%s", status, said)
	}
}
