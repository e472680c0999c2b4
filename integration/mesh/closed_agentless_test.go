package mesh

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/consul-mesh/mesh-buildpack/integration/cell"
)

// agentless: the rules that meshctl acl prints for apps without agents are
// enough, over TLS, and without any one of them something fails and is named.
func (c *closedMesh) agentless(t *testing.T) {
	back := c.direct(t, "direct-back", "", `protocol = "http"`)
	leaveBare(t, c.Foundation, back.Name)
	waitLog(t, agentless.start(t, back), "the instance direct-back-bare has died")
	callers := []string{}
	caller := func(t *testing.T, name, without string, intention bool) *cell.RunningApp {
		t.Helper()
		app := c.direct(t, name, without, `upstream "direct-back" { port = 9001 }`)
		if intention {
			callers = append(callers, app.Dir)
		}
		if err := c.Intend(t.Context(), callers...); err != nil {
			t.Fatal(err)
		}
		return agentless.launch(t, app, "direct-back")
	}
	whole := caller(t, "direct-none", "", true)
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
			waitLog(t, caller(t, "direct-"+test.name, test.rule, true), test.log)
		})
	}
	for _, test := range []struct{ name, rule, problem string }{
		{"upstream", `service "direct-back" { policy = "read" }`, "direct-back"},
		{"proxy", `service "direct-back-sidecar-proxy" { policy = "read" }`, "direct-back"},
		{"nodes", `node_prefix "" { policy = "read" }`, "direct-back"},
		{"intent", "", "intentions deny calls to direct-back"},
	} {
		t.Run(test.name, func(t *testing.T) {
			blind := caller(t, "direct-"+test.name, test.rule, test.name != "intent")
			waitLog(t, blind, "passing, in rotation")
			eventually(t, "the problem is named", func(ctx context.Context) error {
				if c.answered(blind)(ctx) == nil {
					return fmt.Errorf("the call is answered")
				}
				s, text, _ := statusOf(t, blind)
				if !strings.Contains(strings.Join(s.Problems, " "), test.problem) {
					return fmt.Errorf("%s", text)
				}
				return nil
			})
		})
	}
	for _, line := range whole.Logs() {
		if strings.Contains(line.Text, "may call it") {
			t.Errorf("these servers deny what no intention allows: %v", line)
		}
	}
	t.Run("login", c.loginAlone)
	alone := c.direct(t, "direct-alone", `node_prefix "direct-alone-" { policy = "read" }`)
	lonely := agentless.launch(t, alone)
	waitLog(t, lonely, "the other instances of direct-alone cannot be seen")
	if s, text, _ := statusOf(t, lonely); !strings.Contains(strings.Join(s.Problems, " "), "nobody tells how its checks are") {
		t.Errorf("the status does not say that ACLs hide the checks:\n%s", text)
	}
}

// loginAlone: an instance may have nothing but a login, for its node too, from
// a folder of bindings with a file for each key, and trust what the platform does.
func (c *closedMesh) loginAlone(t *testing.T) {
	back := c.direct(t, "direct-login", "", `protocol = "http"`)
	const root, trusted = "/home/vcap/app/bindings", "/home/vcap/app/trusted"
	back.VcapServices, back.Env = "-", map[string]string{"SERVICE_BINDING_ROOT": root, "CF_SYSTEM_CERT_PATH": trusted}
	jwt := c.authMethod(t, "direct-jwt", back)
	c.keepSecret("jwt of "+back.Name, jwt)
	// The platform's own files are not in the app's source. These stand for them.
	files := map[string]string{filepath.Base(trusted) + "/servers.crt": c.Secure.CA.PEM}
	for key, value := range map[string]string{
		"type": "consul", "instance_name": "mesh", "auth-method": "direct-jwt", "jwt": jwt, "ca": "system", "datacenter": "cf",
		"addresses": "secure-server.apps.internal",
	} {
		files[filepath.Base(root)+"/mesh/"+key] = value
	}
	for name, text := range files {
		path := filepath.Join(back.Dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text+"\n"), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	backend := agentless.start(t, back)
	waitLog(t, backend, "logged in (")
	front := c.direct(t, "direct-login-caller", "", `upstream "direct-login" { port = 9001 }`)
	c.policyInForce(t, agentless.start(t, front, "direct-login"), "direct-login")
	if n := len(c.logins(t, "direct-jwt")); n != 1 {
		t.Errorf("there are %d logins", n)
	}
	if err := backend.Stop(deadline(t)); err != nil {
		t.Fatal(err)
	}
	if n := len(c.logins(t, "direct-jwt")); n != 0 {
		t.Errorf("a login has outlived its instance")
	}
	// Where the proxy is killed, the app's process logs in to say so.
	if err := backend.Restart(deadline(t)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is in rotation again", inRotationOf(c.Foundation, back.Name))
	dead := backend.Instance(0)
	kill(t, dead, "mesh proxy")
	within(t, unrenewed, "the catalog does not have it", notInCatalog(c.Foundation, dead))
	waitLog(t, backend, takenOut)
}

// sharing: two apps may have one service, and neither see the other's nodes. Each
// takes out its own dead.
func (c *closedMesh) sharing(t *testing.T) {
	t.Parallel()
	one, _ := c.alone(t, "sharing-one", `name = "shared"`)
	other, _ := c.alone(t, "sharing-other", `name = "shared"`)
	one.Instances = 2
	backend, beside := agentless.start(t, one), agentless.start(t, other)
	eventually(t, "all three are in rotation", func(ctx context.Context) error {
		healthy, err := c.Healthy(ctx, "shared")
		if err == nil && len(healthy) != 3 {
			err = fmt.Errorf("there are %v", healthy)
		}
		return err
	})
	dead := vanish(t, backend, 1)[0]
	eventually(t, "the dead instance is out of the catalog", notInCatalog(c.Foundation, dead))
	for _, app := range []*cell.RunningApp{backend, beside} {
		if lines := said(app, "cannot be seen"); len(lines) > 0 {
			t.Errorf("%v", lines)
		}
	}
}

// direct is an app of the closed mesh without an agent, whose policies lack one
// rule.
func (c *closedMesh) direct(t *testing.T, name, without string, lines ...string) cell.App {
	t.Helper()
	app, _ := c.alone(t, name, lines...)
	c.take(t, app, without)
	return app
}
