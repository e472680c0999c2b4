package mesh

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/consul-mesh/mesh-buildpack/integration/cell"
	"github.com/consul-mesh/mesh-buildpack/integration/foundation"
)

// taskPorts are those of the servers of these tests, as a block of a task.
const taskPorts = "ports {\n  http = 8080\n  grpc = 8081\n}\n"

// tasks are an app whose tasks are in the mesh, as one of a service and as one of its
// own, and a service that they call.
type tasks struct {
	t       *testing.T
	app     cell.App
	droplet *cell.Droplet
	name    string // in Consul
}

// newTasks stages an app with further lines in its block task.
func newTasks(t *testing.T, m mode, name, lines string) *tasks {
	t.Helper()
	backend := name + "-back"
	m.start(t, m.echo(t, backend, `protocol = "http"`))
	k := &tasks{t: t, app: m.echo(t, name, fmt.Sprintf("upstream %q { port = 9001 }\ntask {\n%s%s}", backend, taskPorts, lines)), name: name + "-task"}
	k.droplet = stage(t, k.app)
	policies := foundation.AgentlessPolicies(map[string][]string{name: {backend}})
	if err := shared.Allow(policies...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := shared.Disallow(policies...); err != nil {
			t.Error(err)
		}
	})
	eventually(t, "the backend is in rotation", inRotation(backend))
	return k
}

// call prints what the upstream answers.
const call = "curl --silent --show-error --max-time 20 http://127.0.0.1:9001/"

// start starts a task.
func (k *tasks) start(command string, o cell.TaskOptions) *cell.Task {
	k.t.Helper()
	task, err := shared.StartTask(deadline(k.t), k.app, k.droplet, command, o)
	if err != nil {
		k.t.Fatal(err)
	}
	return task
}

// run runs a task to its end and gives its exit status and what it has said.
func (k *tasks) run(command string, o cell.TaskOptions) (int, string) {
	k.t.Helper()
	task := k.start(command, o)
	return k.end(task), k.said(task)
}

// end is the exit status as a shell has it.
func (k *tasks) end(task *cell.Task) int {
	k.t.Helper()
	status, err := task.Wait(deadline(k.t))
	if err != nil {
		k.t.Fatal(err)
	}
	if status.Signal != 0 {
		return 128 + int(status.Signal)
	}
	return status.Code
}

// said are a task's own lines.
func (k *tasks) said(task *cell.Task) string {
	var text strings.Builder
	for _, line := range shared.Logs(k.app.Name) {
		if strings.Contains(line.String(), "APP/TASK/"+task.Name()+"/0") && !strings.HasPrefix(line.Text, "Exit status") {
			fmt.Fprintln(&text, line.Text)
		}
	}
	return text.String()
}

// nothingLeft returns nil while the catalog has no node, session or key of the tasks.
func (k *tasks) nothingLeft(ctx context.Context) error {
	var nodes, sessions []struct{ Node string }
	var keys []string
	err := errors.Join(
		shared.Consul(ctx, http.MethodGet, "/v1/catalog/nodes?node-meta=cf-app:"+k.app.Name, nil, &nodes),
		shared.Consul(ctx, http.MethodGet, "/v1/session/list", nil, &sessions))
	if err != nil {
		return err
	}
	sessions = slices.DeleteFunc(sessions, func(s struct{ Node string }) bool {
		return !strings.HasPrefix(s.Node, k.app.Name+"-") || strings.HasPrefix(s.Node, k.app.Name+"-back-")
	})
	if len(nodes)+len(sessions)+len(keys) > 0 {
		return fmt.Errorf("left are %v %v %v", nodes, sessions, keys)
	}
	return nil
}

// nothingStays waits until nothing is left.
func (k *tasks) nothingStays() {
	k.t.Helper()
	eventually(k.t, "nothing is left of the tasks", k.nothingLeft)
}

// waitSaid waits until a task has said something.
func (k *tasks) waitSaid(task *cell.Task, text string) {
	k.t.Helper()
	eventually(k.t, "the task says "+text, func(context.Context) error {
		if said := k.said(task); !strings.Contains(said, text) {
			return errors.New(said)
		}
		return nil
	})
}

// TestTaskInTheMesh: a task calls an upstream, its output, exit status and arguments are
// as without a mesh, and nothing is left of it.
func TestTaskInTheMesh(t *testing.T) { inBothModes(t, taskInTheMesh) }

func taskInTheMesh(t *testing.T, m mode) {
	k := newTasks(t, m, "jobs-"+m.name, "")
	for _, test := range []struct {
		name, command string
		status        int
		said          string
	}{
		{"a call", call + " | grep -o '\"app\": *\"[^\"]*\"' | tr -d ' '; exit 3", 3, fmt.Sprintf("\"app\":%q\n", k.app.Name+"-back")},
		{"ends at once", "true", 0, ""},
		{"output and arguments", `printf '%s\n' "it's" "two  words"; echo err >&2`, 0, "it's\ntwo  words\nerr\n"},
		{"killed", "kill -9 $$", 137, ""},
		{"not found", "nowhere-to-be-found 2>/dev/null", 127, ""},
	} {
		status, said := k.run(test.command, cell.TaskOptions{})
		lines := strings.Split(said, "\n")
		slices.Sort(lines)
		want := strings.Split(test.said, "\n")
		slices.Sort(want)
		if status != test.status || !slices.Equal(lines, want) {
			t.Errorf("%s: exit status %d, it says:\n%s", test.name, status, said)
		}
		if err := k.nothingLeft(t.Context()); err != nil {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}

// TestTaskEnds: however a task ends, nothing is left of it.
func TestTaskEnds(t *testing.T) {
	k := newTasks(t, withAgent, "ending", "")
	t.Run("terminated", func(t *testing.T) {
		task := k.start("trap 'echo trapped; exit 9' TERM; echo up; sleep 60 & wait", cell.TaskOptions{})
		k.waitSaid(task, "up")
		begun := time.Now()
		if err := task.Terminate(deadline(t)); err != nil {
			t.Fatal(err)
		}
		if status, said := k.end(task), k.said(task); status != 9 || said != "up\ntrapped\n" {
			t.Errorf("exit status %d, it says:\n%s", status, said)
		}
		if took := time.Since(begun); took > 8*time.Second {
			t.Errorf("it took %v", took)
		}
		k.nothingStays()
	})
	t.Run("ignores SIGTERM", func(t *testing.T) {
		task := k.start("trap '' TERM; echo up; sleep 60; sleep 60", cell.TaskOptions{})
		k.waitSaid(task, "up")
		if err := task.Terminate(deadline(t)); err != nil {
			t.Fatal(err)
		}
		if status := k.end(task); status != 128+int(syscall.SIGKILL) {
			t.Errorf("exit status %d", status)
		}
		k.nothingStays() // it was not killed by the platform
	})
	t.Run("calls on its way out", func(t *testing.T) {
		task := k.start("trap '"+call+" >/dev/null && echo called; exit 0' TERM; echo up; sleep 60 & wait", cell.TaskOptions{})
		k.waitSaid(task, "up")
		if err := task.Terminate(deadline(t)); err != nil {
			t.Fatal(err)
		}
		if said := k.said(task); said != "up\ncalled\n" {
			t.Errorf("it says:\n%s", said)
		}
	})
	t.Run("its Envoy ends", func(t *testing.T) {
		task := k.start("echo up; exec sleep 60", cell.TaskOptions{})
		k.waitSaid(task, "up")
		killIn(t, task, "/envoy")
		if status, said := k.end(task), k.said(task); status != 128+int(syscall.SIGTERM) || !strings.Contains(said, "the Envoy of ending-task ended") {
			t.Errorf("exit status %d, it says:\n%s", status, said)
		}
		k.nothingStays()
	})
	t.Run("its proxy is killed", func(t *testing.T) {
		task := k.start("echo up; exec sleep 60", cell.TaskOptions{})
		k.waitSaid(task, "up")
		killIn(t, task, "mesh proxy")
		if status := k.end(task); status != 128+int(syscall.SIGTERM) {
			t.Errorf("exit status %d", status)
		}
		k.nothingStays()
	})
	t.Run("killed without a word", func(t *testing.T) {
		task := k.start("echo up; exec sleep 60", cell.TaskOptions{})
		k.waitSaid(task, "up")
		task.Kill()
		k.end(task)
		if k.nothingLeft(t.Context()) == nil {
			t.Fatal("nothing is left, so this shows nothing")
		}
		eventually(t, "another task takes it out", func(ctx context.Context) error {
			if status, said := k.run("true", cell.TaskOptions{}); status != 0 {
				return errors.New(said)
			}
			return k.nothingLeft(ctx)
		})
	})
}

// killIn kills a process of a task.
func killIn(t *testing.T, task *cell.Task, part string) {
	t.Helper()
	processes, err := task.List()
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(find(t, processes, part), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

// TestManyTasks: 20 at once call, and of 100 in all nothing is left.
func TestManyTasks(t *testing.T) {
	k := newTasks(t, agentless, "many", "")
	for range 5 {
		var all []*cell.Task
		for range 20 {
			all = append(all, k.start(call+" >/dev/null", cell.TaskOptions{}))
		}
		for _, task := range all {
			if status := k.end(task); status != 0 {
				t.Errorf("exit status %d:\n%s", status, k.said(task))
			}
		}
	}
	if err := k.nothingLeft(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestTaskIdentity: intentions know the task by its name, and metrics too.
func TestTaskIdentity(t *testing.T) {
	k := newTasks(t, withAgent, "known", "")
	const answered = call + " --output /dev/null --write-out '%{http_code} '"
	if err := shared.Intention(deadline(t), k.name, "known-back", "deny"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := shared.RemoveIntentions(context.Background(), "known-back"); err != nil {
			t.Error(err)
		}
	})
	eventually(t, "the intention denies it", func(context.Context) error {
		if _, said := k.run(answered, cell.TaskOptions{}); !strings.HasPrefix(said, "403") {
			return errors.New(said)
		}
		return nil
	})
	if err := shared.Intention(deadline(t), k.name, "known-back", "allow"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the intention allows it", func(context.Context) error {
		if _, said := k.run(answered, cell.TaskOptions{}); !strings.HasPrefix(said, "200") {
			return errors.New(said)
		}
		return nil
	})
}

// TestOwnTask: an app with tasks alone has no sidecars, and its tasks count their calls
// under their own name.
func TestOwnTask(t *testing.T) {
	agentless.start(t, agentless.echo(t, "alone-back", `protocol = "http"`))
	eventually(t, "the backend is in rotation", inRotation("alone-back"))
	app := write(t, "alone", map[string]string{"mesh.hcl": `task "report" {
  upstream "alone-back" {}
}
envoy {
  metrics { prometheus = "127.0.0.1:9102" }
}
` + agentless.consul})
	policies := foundation.AgentlessPolicies(map[string][]string{app.Name: {"alone-back"}})
	if err := shared.Allow(policies...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := shared.Disallow(policies...); err != nil {
			t.Error(err)
		}
	})
	k := &tasks{t: t, app: app, droplet: stage(t, app), name: "report-task"}
	if n := len(k.droplet.Sidecars); n != 0 {
		t.Errorf("it has %d sidecars", n)
	}
	status, said := k.run(`curl --silent --fail --output /dev/null http://$MESH_UPSTREAM_ALONE_BACK_ADDR/ &&
		curl --silent http://127.0.0.1:9102/metrics | grep 'envoy_cluster_upstream_rq_total{.*consul_destination_service="alone-back"'`, cell.TaskOptions{})
	if status != 0 || !strings.Contains(said, `consul_source_service="report-task"`) || !strings.HasSuffix(said, " 1\n") {
		t.Errorf("exit status %d, it says:\n%s", status, said)
	}
	k.nothingStays()
}

// TestTaskOutOfMemory: a command that takes more memory than the task has is killed, as
// without a mesh, and nothing is left.
func TestTaskOutOfMemory(t *testing.T) {
	if err := cell.MemoryLimits(); err != nil {
		t.Skip("NOT TESTED: ", err)
	}
	k := newTasks(t, agentless, "starving", "")
	k.app.EnforceMemory = true
	task := k.start("exec "+endless, cell.TaskOptions{Memory: 128})
	status := k.end(task)
	if !task.OutOfMemory() || status == 0 {
		t.Errorf("exit status %d, out of memory: %v", status, task.OutOfMemory())
	}
	eventually(t, "nothing is left when another has ended", func(ctx context.Context) error {
		if status, said := k.run("true", cell.TaskOptions{Memory: 256}); status != 0 {
			return errors.New(said)
		}
		return k.nothingLeft(ctx)
	})
}
