package runtime

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/consul-mesh/mesh-buildpack/src/credentials"
)

// refusedPatience is how long ACLs may refuse something at start: a token that a
// broker has just made reaches every server a little later.
const refusedPatience = 5 * time.Second

// access is how the sidecars prove to Consul who they are: the tokens of the
// bound service, or those that a login gives. Without a bound service, or with
// one that has no tokens, nothing is proved.
type access struct {
	dir    string // the private folder
	consul *consul
	log    Log
	// agentless says that the servers are asked, and nobody keeps a token.
	agentless bool

	mutex   sync.Mutex
	creds   *credentials.Credentials // guarded by mutex
	service credentials.Secret       // guarded by mutex
	agent   credentials.Secret       // guarded by mutex
	login   *login                   // guarded by mutex: what the tokens come from, if not from the binding
}

// login is the answer to a login. Its times are those of the servers' clock,
// since is that of this one.
type login struct {
	SecretID       credentials.Secret
	CreateTime     time.Time
	ExpirationTime *time.Time
	since          time.Time
}

// newAccess says once how open the mesh is.
func newAccess(dir string, creds *credentials.Credentials, unknown []string, log Log) *access {
	a := &access{dir: dir, log: log, creds: creds}
	switch {
	case creds == nil:
		log("no bound service has credentials: the mesh is as open as Consul's default (docs/security.md)")
		return a
	case len(unknown) > 0:
		log("the bound service %q has keys that mean nothing here: %s", creds.Binding, strings.Join(unknown, ", "))
	}
	a.service, a.agent = creds.ServiceToken, creds.AgentToken
	return a
}

// enabled says whether there are tokens.
func (a *access) enabled() bool {
	if a == nil {
		return false
	}
	creds := a.current()
	return creds != nil && creds.UseACL()
}

// current are the credentials of now, nil without any.
func (a *access) current() *credentials.Credentials {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	return a.creds
}

// use makes credentials those of now.
func (a *access) use(creds *credentials.Credentials) {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	a.creds = creds
}

// authorize adds to a call of the agent's API the token that it needs: the
// local one for what is about the agent itself, the agent's for the catalog of
// nodes, and otherwise the service's.
func (a *access) authorize(request *http.Request) {
	if request.Header.Get(tokenHeader) != "" || !a.enabled() {
		return
	}
	a.mutex.Lock()
	token := a.service
	if strings.HasPrefix(request.URL.Path, "/v1/catalog/") {
		token = a.agent
	}
	namespace := a.creds.Namespace
	a.mutex.Unlock()
	for _, about := range []string{"/v1/agent/members", "/v1/agent/token/", "/v1/agent/reload", "/v1/agent/version"} {
		if strings.HasPrefix(request.URL.Path, about) {
			token = a.local()
		}
	}
	if token != "" {
		request.Header.Set(tokenHeader, string(token))
	}
	if namespace != "" {
		request.Header.Set("X-Consul-Namespace", namespace)
	}
}

const tokenHeader = "X-Consul-Token"

// local is the token that the agent has made up for itself, empty while there
// is no agent.
func (a *access) local() credentials.Secret {
	var overlay struct {
		ACL aclConfig `json:"acl"`
	}
	if err := readJSON(filepath.Join(a.dir, overlayFile), &overlay); err != nil {
		return ""
	}
	return credentials.Secret(overlay.ACL.Tokens.Local)
}

// secure reads the bound service, and prepares what stands between it and
// Consul and Envoy.
func (p *proxy) secure(ctx context.Context) (err error) {
	if err := p.identify(p.log); err != nil {
		return err
	}
	if p.config.Servers != nil {
		return p.secureServers(ctx)
	}
	p.registry = viaAgent{p}
	if p.access.enabled() {
		var protocols http.Protocols
		protocols.SetUnencryptedHTTP2(true)
		p.xds, err = newXDS(ctx, p.access, &http.Transport{Protocols: &protocols}, address(p.ports.GRPC))
	}
	return err
}

// identify reads the bound service.
func (p *proxy) identify(log Log) error {
	if err := forbidCores(); err != nil {
		return err
	}
	dir, err := p.inst.privateDir()
	if err != nil {
		return err
	}
	creds, unknown, err := p.inst.credentials(p.config)
	if err != nil {
		return err
	}
	p.access = newAccess(dir, creds, unknown, log)
	p.access.agentless = p.config.Servers != nil
	p.access.consul, p.consul.access = p.consul, p.access
	return nil
}

// secureServers is secure without an agent.
func (p *proxy) secureServers(ctx context.Context) (err error) {
	if creds := p.access.current(); creds != nil && creds.Namespace+creds.Partition != "" {
		return fmt.Errorf("the bound service %q has a namespace or a partition, which need an agent\nhint: leave out mode = \"agentless\" in mesh.hcl, or bind a service for Consul's default ones", creds.Binding)
	}
	v := newViaServers(p)
	p.registry = v
	p.xds, err = newXDS(ctx, p.access, v.servers.xds(), serverCluster)
	return err
}

// stages are those of a start with tokens, after the agent has joined.
func (a *access) stages() (all []stage) {
	if !a.enabled() {
		return nil
	}
	if a.current().AuthMethod != "" {
		all = append(all, stage{
			name:      "logged in",
			hint:      "does the jwt fit the auth method's binding rules, and has it not expired?",
			condition: patient(a.obtain),
		})
	}
	return append(all, stage{
		name:      "tokens known to the servers",
		hint:      "`cf restart` reads the bound service again; docs/security.md says what the tokens need",
		condition: patient(a.verify),
	})
}

// serviceToken is the token of services and sidecars.
func (a *access) serviceToken() credentials.Secret {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	return a.service
}

// agentToken is the token for nodes.
func (a *access) agentToken() credentials.Secret {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	return a.agent
}

// obtain logs in where the binding says so, and makes the agent's own token
// known to it where it comes from there.
func (a *access) obtain(ctx context.Context) error {
	creds := a.current()
	if creds == nil || creds.AuthMethod == "" {
		return nil
	}
	got := &login{since: time.Now()}
	err := a.consul.call(ctx, http.MethodPost, "/v1/acl/login", map[string]any{
		"AuthMethod": creds.AuthMethod, "BearerToken": string(creds.JWT),
	}, got)
	switch {
	case !passes(err):
		return &refusedError{fmt.Errorf("the auth method %q of the bound service %q refuses the jwt: %w", creds.AuthMethod, creds.Binding, err)}
	case err != nil:
		return err
	}
	agent := creds.AgentToken
	if agent == "" {
		agent = got.SecretID
		if err := a.setAgentToken(ctx, agent); err != nil {
			_ = a.consul.logout(ctx, got.SecretID) // the next attempt logs in anew
			return fmt.Errorf("the agent does not take its token: %w", err)
		}
	}
	a.mutex.Lock()
	defer a.mutex.Unlock()
	a.login, a.service, a.agent = got, got.SecretID, agent
	return nil
}

// setAgentToken gives the agent its token, also for when it is started again.
func (a *access) setAgentToken(ctx context.Context, token credentials.Secret) error {
	if a.agentless {
		return nil
	}
	if err := a.consul.setAgentToken(ctx, token); err != nil {
		return err
	}
	path := filepath.Join(a.dir, overlayFile)
	var overlay map[string]any
	if err := readJSON(path, &overlay); err != nil {
		return err
	}
	object(object(overlay["acl"])["tokens"])["agent"] = string(token)
	return writeJSON(path, overlay)
}

// namedToken is a token, and how the bound service calls it.
type namedToken struct {
	name  string
	token credentials.Secret
}

func tokensOf(service, agent credentials.Secret) []namedToken {
	if agent == service {
		return []namedToken{{"token", service}}
	}
	return []namedToken{{"service_token", service}, {"agent_token", agent}}
}

// verify returns nil if the servers know every token.
func (a *access) verify(ctx context.Context) error {
	a.mutex.Lock()
	binding, tokens := a.creds.Binding, tokensOf(a.service, a.agent)
	if a.login != nil {
		tokens[0].name = "token of the login"
	}
	a.mutex.Unlock()
	return a.known(ctx, binding, tokens)
}

// known returns nil if the servers know the tokens of a binding.
func (a *access) known(ctx context.Context, binding string, tokens []namedToken) error {
	for _, t := range tokens {
		err := a.consul.readToken(ctx, t.token)
		var status *statusError
		switch {
		case errors.As(err, &status) && status.status == http.StatusForbidden:
			return &refusedError{fmt.Errorf("the servers do not know the %s of the bound service %q: it is wrong, expired or revoked", t.name, binding)}
		case errors.As(err, &status) && strings.Contains(status.text, "ACL support disabled"):
			return &finalError{fmt.Errorf("the bound service %q has tokens, but the servers have ACLs turned off", binding)}
		case err != nil:
			return err
		}
	}
	return nil
}

// refusedError says that the servers were asked and do not know a token.
type refusedError struct{ error }

// patient is for the condition of a stage: what ACLs refuse may be allowed in a
// moment, when a new token or policy has reached every server. Where they go on
// refusing, asking for longer is of no use.
func patient(condition func(context.Context) error) func(context.Context) error {
	var since time.Time
	return func(ctx context.Context) error {
		err := condition(ctx)
		var refused *refusedError
		var status *statusError
		if errors.As(err, &refused) || errors.As(err, &status) && status.status == http.StatusForbidden {
			if since.IsZero() {
				since = time.Now()
			}
			if time.Since(since) > refusedPatience {
				return &finalError{err}
			}
		}
		return err
	}
}

// logout ends a login, so that its token is of no use to anybody.
func (a *access) logout(budget time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), budget)
	defer cancel()
	a.mutex.Lock()
	got := a.login
	a.login = nil
	a.mutex.Unlock()
	if got == nil {
		return
	}
	if err := a.consul.logout(ctx, got.SecretID); err != nil {
		a.log("failed to log out, the token lives until it expires: %v", err)
	}
}

// withTokenFile has work read the token of services from a file, which is there
// for that long.
func (a *access) withTokenFile(work func(path string) error) error {
	file, err := os.CreateTemp(a.dir, "token-")
	if err != nil {
		return fmt.Errorf("failed to hand a token on: %w", err)
	}
	defer os.Remove(file.Name())
	_, err = file.WriteString(string(a.serviceToken()))
	if err := errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("failed to hand a token on: %w", err)
	}
	return work(file.Name())
}
