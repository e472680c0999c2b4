package mesh

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/consul-mesh/mesh-buildpack/integration/cell"
	"github.com/consul-mesh/mesh-buildpack/integration/foundation"
)

// agentless: the rules that meshctl acl prints for apps without agents are
// enough, over TLS, and without any one of them something fails and is named.
func (c *closedMesh) agentless(t *testing.T) {
	back := c.direct(t, "direct-back", "", `protocol = "http"`)
	start(t, back)
	callers := []string{}
	caller := func(t *testing.T, name, without string) *cell.RunningApp {
		t.Helper()
		app := c.direct(t, name, without, `upstream "direct-back" { port = 9001 }`)
		callers = append(callers, app.Dir)
		if err := c.Intend(t.Context(), callers...); err != nil {
			t.Fatal(err)
		}
		return launch(t, app, "direct-back")
	}
	whole := caller(t, "direct-none", "")
	eventually(t, "everything works", c.answered(whole))
	eventually(t, "the status says so", func(context.Context) error {
		if s, text, _ := statusOf(t, whole); !s.Healthy() {
			return fmt.Errorf("%s", text)
		}
		return nil
	})
	for _, test := range []struct{ name, rule, log string }{
		{"node", `node_prefix "direct-node-" { policy = "write" }`, "node:write"},
		{"session", `session_prefix "direct-session-" { policy = "write" }`, "failed to make a session: Consul answers 403"},
		{"key", `key_prefix "consul-mesh-buildpack/direct-key/" { policy = "write" }`, "failed to hold the key of this instance: Consul answers 403"},
		{"service", `service "direct-service" { policy = "write" }`, "service:write"},
		{"sidecar", `service "direct-sidecar-sidecar-proxy" { policy = "write" }`, "service:write"},
	} {
		t.Run(test.name, func(t *testing.T) {
			waitLog(t, caller(t, "direct-"+test.name, test.rule), test.log)
		})
	}
	for _, test := range []struct{ name, rule string }{
		{"upstream", `service "direct-back" { policy = "read" }`},
		{"proxy", `service "direct-back-sidecar-proxy" { policy = "read" }`},
		{"nodes", `node_prefix "" { policy = "read" }`},
	} {
		t.Run(test.name, func(t *testing.T) {
			blind := caller(t, "direct-"+test.name, test.rule)
			waitLog(t, blind, "passing, in rotation")
			eventually(t, "the problem is named", func(ctx context.Context) error {
				if c.answered(blind)(ctx) == nil {
					return fmt.Errorf("the call is answered")
				}
				s, text, _ := statusOf(t, blind)
				if !strings.Contains(strings.Join(s.Problems, " "), "direct-back") {
					return fmt.Errorf("%s", text)
				}
				return nil
			})
		})
	}
	alone := c.direct(t, "direct-alone", `node_prefix "direct-alone-" { policy = "read" }`)
	waitLog(t, launch(t, alone), "the other instances of direct-alone cannot be seen")
}

// direct is an app of the closed mesh without an agent, whose policies lack one
// rule.
func (c *closedMesh) direct(t *testing.T, name, without string, lines ...string) cell.App {
	t.Helper()
	app, _ := c.own(t, write(t, name, map[string]string{
		"mesh.hcl": fmt.Sprintf("service %q {\n%s\n}\nconsul { mode = \"agentless\" }\n", name, strings.Join(lines, "\n")),
		"Procfile": "web: ./echo\n",
	}))
	policy := cell.Policy{Source: name, Destination: foundation.SecureApp, Protocol: "tcp", Start: 8501, End: 8503}
	if err := c.Allow(policy); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Disallow(policy); err != nil {
			t.Error(err)
		}
	})
	c.take(t, app, without)
	return app
}
