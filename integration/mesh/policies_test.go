package mesh

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/consul-mesh/mesh-buildpack/integration/cell"
	"github.com/consul-mesh/mesh-buildpack/integration/foundation"
	"github.com/consul-mesh/mesh-buildpack/src/meshfile"
	"github.com/consul-mesh/mesh-buildpack/src/render"
)

// policies: the rules that meshctl acl and the intentions that meshctl
// intentions prints are enough, and without any one of them something fails and
// is named.
func (c *closedMesh) policies(t *testing.T) {
	back, _ := c.app(t, "rules-back", `protocol = "http"`)
	start(t, back)
	whole := c.caller(t, "rules-none", "", true)
	eventually(t, "everything works", c.answered(whole))
	eventually(t, "the status says so", func(context.Context) error {
		if s, text, _ := statusOf(t, whole); !s.Healthy() {
			return fmt.Errorf("%s", text)
		}
		return nil
	})
	for name, test := range map[string]struct{ rule, log, problem string }{
		"node":     {rule: `node_prefix "rules-node-" { policy = "write" }`, log: "node:write"},
		"service":  {rule: `service "rules-service" { policy = "write" }`, log: `lacks permission 'service:write' on \"rules-service\"`},
		"sidecar":  {rule: `service "rules-sidecar-sidecar-proxy" { policy = "write" }`, log: `lacks permission 'service:write' on \"rules-sidecar-sidecar-proxy\"`},
		"upstream": {rule: `service "rules-back" { policy = "read" }`, problem: "rules-back"},
		"proxy":    {rule: `service "rules-back-sidecar-proxy" { policy = "read" }`, problem: "rules-back"},
		"nodes":    {rule: `node_prefix "" { policy = "read" }`, problem: "rules-back"},
		"intent":   {problem: "intentions deny calls to rules-back"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			caller := c.caller(t, "rules-"+name, test.rule, name != "intent")
			if test.log != "" {
				waitLog(t, caller, test.log)
				return
			}
			waitLog(t, caller, "passing, in rotation")
			eventually(t, "the problem is named", func(ctx context.Context) error {
				if c.answered(caller)(ctx) == nil {
					return fmt.Errorf("the call is answered")
				}
				s, text, _ := statusOf(t, caller)
				if !strings.Contains(strings.Join(s.Problems, " "), test.problem) {
					return fmt.Errorf("%s", text)
				}
				return nil
			})
		})
	}
}

// caller is an app that calls rules-back, and whose policies lack one rule.
func (c *closedMesh) caller(t *testing.T, name, without string, intention bool) *cell.RunningApp {
	t.Helper()
	app, _ := c.app(t, name, `upstream "rules-back" { port = 9001 }`)
	c.take(t, app, without)
	if intention {
		if err := c.allow(t, name); err != nil {
			t.Fatal(err)
		}
	}
	return launch(t, app, "rules-back")
}

// take takes a rule out of the policies of an app, where it is not empty.
func (c *closedMesh) take(t *testing.T, app cell.App, rule string) {
	t.Helper()
	mesh, _, err := meshfile.Load(app.Dir, meshfile.Context{})
	if err != nil {
		t.Fatal(err)
	}
	found := rule == ""
	for _, policy := range []render.Policy{render.AgentPolicy(app.Name), render.ServicePolicy(mesh, app.Name)} {
		if !slices.Contains(policy.Rules, rule) {
			continue
		}
		found = true
		policy.Rules = slices.DeleteFunc(policy.Rules, func(other string) bool { return other == rule })
		if err := c.Policy(t.Context(), policy); err != nil {
			t.Fatal(err)
		}
	}
	if !found {
		t.Fatalf("there is no rule %s", rule)
	}
}

// allow adds a caller to those of rules-back: an entry has all of them.
func (c *closedMesh) allow(t *testing.T, name string) error {
	t.Helper()
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.callers = append(c.callers, c.source(t, name))
	return c.Intend(t.Context(), c.callers...)
}

// source is a file of an app that calls rules-back.
func (c *closedMesh) source(t *testing.T, name string) string {
	t.Helper()
	return write(t, name, map[string]string{
		"mesh.hcl": fmt.Sprintf("service %q {\n  upstream \"rules-back\" {}\n}\n", name),
	}).Dir
}

func (c *closedMesh) answered(caller *cell.RunningApp) func(context.Context) error {
	return func(ctx context.Context) error {
		_, err := foundation.From(ctx, caller.Instance(0), "http://127.0.0.1:9001/")
		return err
	}
}
