package mesh

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/consul-mesh/mesh-buildpack/integration/cell"
)

// tasks: what meshctl acl prints is enough for the tasks of an app with an agent, over
// TLS, and without any rule a task ends before its command and names it. A task that logs
// in logs out.
func (c *closedMesh) tasks(t *testing.T) {
	back, _ := c.app(t, "rules-task-back", `protocol = "http"`)
	start(t, back)
	job := func(t *testing.T, name, without string) *tasks {
		t.Helper()
		app, _ := c.app(t, name, `upstream "rules-task-back" { port = 9001 }`, "task {}")
		c.take(t, app, without)
		if err := c.Intend(t.Context(), app.Dir); err != nil {
			t.Fatal(err)
		}
		policies := []cell.Policy{c.AgentlessAccess(name), {Source: name, Destination: back.Name, Protocol: "tcp", Start: 21000}}
		if err := c.Allow(policies...); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := c.Disallow(policies...); err != nil {
				t.Error(err)
			}
		})
		return &tasks{t: t, app: app, droplet: stage(t, app)}
	}
	const called = call + " >/dev/null && echo called"
	whole := job(t, "rules-task", "")
	eventually(t, "the task calls", func(ctx ctx) error {
		status, said := whole.run(called, cell.TaskOptions{})
		if status != 0 || said != "called\n" {
			return fmt.Errorf("exit status %d: %s", status, said)
		}
		nodes, err := c.Nodes(ctx)
		for _, node := range nodes {
			if strings.HasPrefix(node, "rules-task-") && !strings.HasPrefix(node, "rules-task-back") {
				err = errors.Join(err, fmt.Errorf("the node %s is left", node))
			}
		}
		return err
	})
	for _, test := range []struct{ name, rule, said string }{
		{"node", `node_prefix "rules-task-node-" { policy = "write" }`, "node:write"},
		{"session", `session_prefix "rules-task-session-" { policy = "write" }`, "failed to make a session: Consul answers 403"},
		{"sidecar", `service "rules-task-sidecar-task-sidecar-proxy" { policy = "write" }`, `lacks permission 'service:write' on "rules-task-sidecar-task-sidecar-proxy"`},
		{"service", `service "rules-task-service-task" { policy = "write" }`, `rules-task-service-task`},
	} {
		t.Run(test.name, func(t *testing.T) {
			status, said := job(t, "rules-task-"+test.name, test.rule).run("echo ran", cell.TaskOptions{})
			if status != 1 || strings.Contains(said, "ran\n") || !strings.Contains(said, test.said) {
				t.Errorf("exit status %d, it says:\n%s", status, said)
			}
		})
	}
	t.Run("login", func(t *testing.T) {
		k := job(t, "logged-in-task", "")
		jwt := c.authMethod(t, "task-jwt", k.app)
		c.bind(&k.app, map[string]any{
			"auth_method": "task-jwt", "jwt": jwt, "ca": c.Secure.CA.PEM, "gossip_key": c.Secure.GossipKey,
			"addresses": []string{"secure-server.apps.internal"}, "datacenter": "cf",
		})
		if status, said := k.run(called, cell.TaskOptions{}); status != 0 {
			t.Errorf("exit status %d, it says:\n%s", status, said)
		}
		if n := len(c.logins(t, "task-jwt")); n != 0 {
			t.Errorf("%d logins have outlived their task", n)
		}
	})
}
