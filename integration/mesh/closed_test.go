package mesh

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/consul-mesh/mesh-buildpack/integration/cell"
	"github.com/consul-mesh/mesh-buildpack/integration/foundation"
)

// closedMesh is a second control plane on the same cell, with ACLs default
// deny, a gossip key and TLS, for as long as TestClosed runs.
type closedMesh struct {
	*foundation.Foundation

	mutex   sync.Mutex
	secrets map[string]string // guarded by mutex: value → what it is
	apps    map[string]bool   // guarded by mutex: by name
	callers []string          // guarded by mutex: sources of those that rules-back lets in
}

// TestClosed runs what is about a mesh that is closed by default.
func TestClosed(t *testing.T) {
	f, err := shared.Closed()
	if err == nil {
		err = f.StartServers(deadline(t))
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(f.Servers.Delete(context.Background()), os.RemoveAll(f.Servers.Droplet().Dir)); err != nil {
			t.Error(err)
		}
	})
	c := &closedMesh{Foundation: f, secrets: map[string]string{}, apps: map[string]bool{}}
	c.keepSecret("management token", f.Secure.Management)
	expiring := c.expiring(t)
	t.Run("wrong credentials", c.wrong)
	t.Run("while it runs", func(t *testing.T) {
		c.inBothModes(t, "revoked", c.revoked)
		c.inBothModes(t, "exchanged", c.exchanged)
		c.inBothModes(t, "login", c.login)
		t.Run("roots", c.roots)
		c.inBothModes(t, "secrets", c.scan)
		t.Run("sharing", c.sharing)
		t.Run("late", c.late)
	})
	t.Run("policies", c.policies)
	t.Run("without agents", c.agentless)
	t.Run("tasks", c.tasks)
	t.Run("expired", func(t *testing.T) {
		c.inBothModes(t, "token", func(t *testing.T, w closedMode) { c.expired(t, w, expiring) })
	})
	t.Run("servers without their rule", c.servers)
	t.Run("nothing was logged", c.scanLogs)
}

// servers: without the one rule of their own agents' token they cannot keep
// their nodes up to date.
func (c *closedMesh) servers(t *testing.T) {
	policy := foundation.ServersPolicy()
	policy.Rules = nil
	if err := c.Policy(t.Context(), policy); err != nil {
		t.Fatal(err)
	}
	// They write their coordinates every 15 s or so.
	waitLog(t, c.Servers, "blocked by ACLs")
}

func (c *closedMesh) keepSecret(what string, value any) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if text, ok := value.(string); ok && text != "" {
		c.secrets[text] = what
	}
}

func (c *closedMesh) allSecrets() map[string]string {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	return maps.Clone(c.secrets)
}

func (c *closedMesh) allApps() []string {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	return slices.Sorted(maps.Keys(c.apps))
}

// bind gives an app a bound service that says what binding does.
func (c *closedMesh) bind(app *cell.App, binding map[string]any) {
	for _, key := range []string{"token", "agent_token", "service_token", "gossip_key", "jwt"} {
		c.keepSecret(key+" of "+app.Name, binding[key])
	}
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.apps[app.Name] = true
	app.VcapServices = foundation.Bind(binding)
}

// closedMode is a way to be in the closed mesh.
type closedMode struct {
	mode
	// app makes an app of it, with the smallest tokens and the network policies that
	// it needs, and its binding.
	app func(t *testing.T, name string, lines ...string) (cell.App, map[string]any)
}

func (c *closedMesh) modes() []closedMode {
	return []closedMode{{withAgent, c.app}, {agentless, c.alone}}
}

// inBothModes runs a test in each mode, side by side.
func (c *closedMesh) inBothModes(t *testing.T, name string, test func(t *testing.T, w closedMode)) {
	t.Helper()
	for _, w := range c.modes() {
		t.Run(name+"/"+w.name, func(t *testing.T) {
			t.Parallel()
			test(t, w)
		})
	}
}

// app is an app with an agent.
func (c *closedMesh) app(t *testing.T, name string, lines ...string) (cell.App, map[string]any) {
	t.Helper()
	return c.own(t, name, "", lines, c.AccessPolicies(name)...)
}

// alone is one without.
func (c *closedMesh) alone(t *testing.T, name string, lines ...string) (cell.App, map[string]any) {
	t.Helper()
	return c.own(t, name, "consul { mode = \"agentless\" }\n", lines, c.AgentlessAccess(name))
}

// own is an app with one service, tokens of its own and the network policies that
// lead to the servers.
func (c *closedMesh) own(t *testing.T, name, consul string, lines []string, policies ...cell.Policy) (cell.App, map[string]any) {
	t.Helper()
	app := write(t, name, map[string]string{
		"mesh.hcl": fmt.Sprintf("service %q {\n%s\n}\n", name, strings.Join(lines, "\n")) + consul,
		"Procfile": "web: ./echo\n",
	})
	binding, err := c.Binding(t.Context(), name, app.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Allow(policies...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Disallow(policies...); err != nil {
			t.Error(err)
		}
	})
	c.bind(&app, binding)
	return app, binding
}

// revoke takes a token away.
func (c *closedMesh) revoke(t *testing.T, token any) {
	t.Helper()
	var all []struct{ AccessorID, SecretID string }
	if err := c.Consul(t.Context(), http.MethodGet, "/v1/acl/tokens", nil, &all); err != nil {
		t.Fatal(err)
	}
	for _, one := range all {
		if one.SecretID == token {
			if err := c.Consul(t.Context(), http.MethodDelete, "/v1/acl/token/"+one.AccessorID, nil, nil); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatal("there is no such token")
}

// said are the lines of the app with a text.
func said(app *cell.RunningApp, text string) (lines []cell.Line) {
	for _, line := range app.Logs() {
		if strings.Contains(line.Text, text) {
			lines = append(lines, line)
		}
	}
	return lines
}

const ofTheBinding = ` of the bound service "consul-credentials"`

// notKnown is what the log says of a token that the servers do not take.
func notKnown(token string) string {
	return "the servers do not know the " + token + ofTheBinding + ": it is wrong, expired or revoked"
}

// wrong: each thing that can be wrong with the credentials is one line that
// names it, and nobody is asked again and again.
func (c *closedMesh) wrong(t *testing.T) {
	other, err := foundation.NewSecure()
	if err != nil {
		t.Fatal(err)
	}
	token := func(b map[string]any) { b["service_token"] = uuid.NewString() }
	agentToken := func(b map[string]any) { b["agent_token"] = uuid.NewString() }
	ca := func(b map[string]any) { b["ca"] = other.CA.PEM }
	host := func(b map[string]any) { b["datacenter"] = "elsewhere" }
	gossip := func(b map[string]any) { b["gossip_key"] = other.GossipKey }
	noGossip := func(b map[string]any) { delete(b, "gossip_key") }
	// What the status says while the instance still tries.
	inStatus := map[string]string{
		"gossip":    "the gossip key is not that of the servers",
		"no-gossip": "the servers encrypt gossip and this agent has no key",
	}
	with, without := c.modes()[0], c.modes()[1]
	for name, test := range map[string]struct {
		closedMode
		change func(binding map[string]any)
		want   string
	}{
		"token":       {with, token, notKnown("service_token")},
		"agent-token": {with, agentToken, notKnown("agent_token")},
		"ca":          {with, ca, "is not signed by the ca" + ofTheBinding},
		"gossip":      {with, gossip, "gossip_key" + ofTheBinding + " is not theirs"},
		"no-gossip":   {with, noGossip, "gossip_key" + ofTheBinding + " is missing"},
		"host":        {with, host, "is not for server.elsewhere.consul: is datacenter right"},
		"shape":       {with, func(b map[string]any) { b["gossip_key"] = uuid.NewString() }, `the bound service "consul-credentials" cannot be used: gossip_key: is not the base64 text`},

		"token-agentless":       {without, token, notKnown("service_token")},
		"agent-token-agentless": {without, agentToken, notKnown("agent_token")},
		"ca-agentless":          {without, ca, "is not signed by the ca" + ofTheBinding},
		"host-agentless":        {without, host, "is not for server.elsewhere.…: is datacenter right"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			app, binding := test.app(t, "wrong-"+name)
			test.change(binding)
			c.bind(&app, binding)
			running := test.launch(t, app)
			if want := inStatus[name]; want != "" {
				statusNames(t, running, want)
			}
			waitLog(t, running, test.want)
			if n := len(said(running, test.want)); n > 1 {
				t.Errorf("it is said %d times", n)
			}
			if n := len(running.Logs()); n > 500 {
				t.Errorf("%d lines for one mistake", n)
			}
		})
	}
}

// revoked: a running instance says soon, and once, that its token is
// not good any more, and goes on.
func (c *closedMesh) revoked(t *testing.T, w closedMode) {
	app, binding := w.app(t, "revoked-"+w.name)
	running := w.start(t, app)
	waitLog(t, running, "passing, in rotation")
	c.revoke(t, binding["service_token"])
	const want = "the servers do not know the service_token" + ofTheBinding
	revoked := time.Now()
	waitLog(t, running, want)
	before := len(running.Logs())
	wait(t, 10)
	lines := said(running, want)
	if len(lines) != 1 {
		t.Errorf("it is said %d times", len(lines))
	}
	bound := unrenewed // the session's renewal is refused
	if w.gossip {
		bound = 75 * time.Second // an agent keeps tokens in mind, and the servers are asked each minute
	}
	if took := lines[0].Time.Sub(revoked); took > bound {
		t.Errorf("it is said after %v", took)
	}
	if n := len(running.Logs()) - before; n > 60 {
		t.Errorf("%d lines in ten seconds:\n%s", n, tail(running))
	}
	if state := running.Instance(0).State(); state != cell.Running {
		t.Errorf("the instance is %s", state)
	}
}

// expiring makes a token that is good for Consul's shortest time, a minute.
func (c *closedMesh) expiring(t *testing.T) string {
	t.Helper()
	token := uuid.NewString()
	err := c.Consul(t.Context(), http.MethodPut, "/v1/acl/token", map[string]any{
		"SecretID": token, "ExpirationTTL": "1m", "Policies": []map[string]string{{"Name": "consul-servers"}},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// expired: a token whose time is over is named as one that never was.
func (c *closedMesh) expired(t *testing.T, w closedMode, token string) {
	app, binding := w.app(t, "expired-"+w.name)
	binding["service_token"] = token
	c.bind(&app, binding)
	eventually(t, "the token expires", func(context.Context) error {
		var all []struct{ SecretID string }
		if err := c.Consul(t.Context(), http.MethodGet, "/v1/acl/tokens", nil, &all); err != nil {
			return err
		}
		for _, one := range all {
			if one.SecretID == token {
				return errors.New("it is still there")
			}
		}
		return nil
	})
	waitLog(t, w.launch(t, app), notKnown("service_token"))
}
