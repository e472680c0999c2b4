package mesh

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

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
