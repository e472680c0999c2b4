package consul

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
	"github.com/consul-mesh/mesh-buildpack/src/mesh/instance"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/wait"
)

// Access is how the sidecars prove to Consul who they are: the tokens of the
// bound service, or those that a login gives. Without a bound service, or with
// one that has no tokens, nothing is proved.
type Access struct {
	Dir     string // the private folder
	Consul  *Client
	log     wait.Log
	endless sync.Once // it is said that logins never expire
	// KeepsToken says that an agent keeps the token for nodes, and is told of another.
	KeepsToken bool

	refused chan struct{} // has something when a call was

	mutex   sync.Mutex
	creds   *credentials.Credentials // guarded by mutex
	service credentials.Secret       // guarded by mutex
	agent   credentials.Secret       // guarded by mutex
	login   *Login                   // guarded by mutex: what the tokens come from, if not from the binding
}

// Login is the answer to a login. Its times are those of the servers' clock,
// since is that of this one.
type Login struct {
	SecretID       credentials.Secret
	CreateTime     time.Time
	ExpirationTime *time.Time
	Since          time.Time
}

// NewAccess says once how open the mesh is.
func NewAccess(dir string, creds *credentials.Credentials, unknown []string, log wait.Log) *Access {
	a := &Access{Dir: dir, log: log, creds: creds, refused: make(chan struct{}, 1)}
	switch {
	case creds == nil:
		log("no bound service has credentials: the mesh is as open as Consul's default (docs/security.md)")
		return a
	case len(unknown) > 0:
		log("the bound service %q has keys that mean nothing here: %s", creds.Binding, strings.Join(unknown, ", "))
	}
	a.service, a.agent = creds.ServiceToken, creds.AgentToken
	for _, note := range a.Notes() {
		log("%s", note)
	}
	return a
}

// Notes are what whoever looks at an instance should know of its credentials.
func (a *Access) Notes() []string {
	creds := a.Current()
	if creds == nil || !creds.InClearText() {
		return nil
	}
	return []string{fmt.Sprintf("the tokens of the bound service %q go to the servers in clear text, as it has no ca: the next version refuses that, unless the binding says \"plaintext\": true", creds.Binding)}
}

// Enabled says whether there are tokens.
func (a *Access) Enabled() bool {
	if a == nil {
		return false
	}
	creds := a.Current()
	return creds != nil && creds.UseACL()
}

// Current are the credentials of now, nil without any.
func (a *Access) Current() *credentials.Credentials {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	return a.creds
}

// Use makes credentials those of now.
func (a *Access) Use(creds *credentials.Credentials) {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	a.creds = creds
}

// Refused has something when the servers, or the agent, have refused a call: it may be
// that a token is not good any more.
func (a *Access) Refused() <-chan struct{} { return a.refused }

func (a *Access) noteRefused() {
	if a == nil {
		return
	}
	select {
	case a.refused <- struct{}{}:
	default: // it is known
	}
}

// identity says as whom a call is made, by the token for it.
type identity func(*Access) credentials.Secret

var (
	asService identity = (*Access).ServiceToken // what is about services and sidecars
	asNode    identity = (*Access).AgentToken   // the catalog of nodes
	asSelf    identity = (*Access).local        // what is about the agent itself
	asNobody  identity = func(*Access) credentials.Secret { return "" }
)

// TokenHeader is that of a token in a call of Consul's API, and in a stream of Envoy's.
const TokenHeader = "X-Consul-Token"

// local is the token that the agent has made up for itself, empty while there
// is no agent.
func (a *Access) local() credentials.Secret {
	var overlay struct {
		ACL struct {
			Tokens struct {
				Local string `json:"agent_recovery"`
			} `json:"tokens"`
		} `json:"acl"`
	}
	if err := instance.ReadJSON(filepath.Join(a.Dir, instance.OverlayFile), &overlay); err != nil {
		return ""
	}
	return credentials.Secret(overlay.ACL.Tokens.Local)
}

// Steps are those of a start with tokens, after the agent has joined.
func (a *Access) Steps() (all []wait.Step) {
	if !a.Enabled() {
		return nil
	}
	if a.Current().AuthMethod != "" {
		all = append(all, wait.Step{
			Name:      "logged in",
			Hint:      "does the jwt fit the auth method's binding rules, and has it not expired?",
			Condition: Patient(a.Obtain),
		})
	}
	return append(all, wait.Step{
		Name:      "tokens known to the servers",
		Hint:      "`cf restart` reads the bound service again; docs/security.md says what the tokens need",
		Condition: Patient(a.Verify),
	})
}

// ServiceToken is the token of services and sidecars.
func (a *Access) ServiceToken() credentials.Secret {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	return a.service
}

// AgentToken is the token for nodes.
func (a *Access) AgentToken() credentials.Secret {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	return a.agent
}

// Obtain logs in where the binding says so, and makes the agent's own token
// known to it where it comes from there.
func (a *Access) Obtain(ctx context.Context) error {
	creds := a.Current()
	if creds == nil || creds.AuthMethod == "" {
		return nil
	}
	got := &Login{Since: time.Now()}
	err := a.Consul.call(ctx, asNobody, http.MethodPost, "/v1/acl/login", map[string]any{
		"AuthMethod": creds.AuthMethod, "BearerToken": string(creds.JWT),
	}, got)
	switch {
	case !Passes(err):
		return Refused(fmt.Errorf("the auth method %q of the bound service %q refuses the jwt: %w", creds.AuthMethod, creds.Binding, err))
	case err != nil:
		return err
	}
	if got.ExpirationTime == nil {
		a.endless.Do(func() {
			a.log("the tokens of the auth method %q never expire, so those of instances that are killed stay for ever: give it a MaxTokenTTL", creds.AuthMethod)
		})
	}
	agent := creds.AgentToken
	if agent == "" {
		agent = got.SecretID
		if err := a.SetAgentToken(ctx, agent); err != nil {
			_ = a.Consul.Logout(ctx, got.SecretID) // the next attempt logs in anew
			return fmt.Errorf("the agent does not take its token: %w", err)
		}
	}
	a.mutex.Lock()
	defer a.mutex.Unlock()
	a.login, a.service, a.agent = got, got.SecretID, agent
	return nil
}

// SetAgentToken gives the agent its token, also for when it is started again.
func (a *Access) SetAgentToken(ctx context.Context, token credentials.Secret) error {
	if !a.KeepsToken {
		return nil
	}
	if err := a.Consul.setAgentToken(ctx, token); err != nil {
		return err
	}
	path := filepath.Join(a.Dir, instance.OverlayFile)
	var overlay map[string]any
	if err := instance.ReadJSON(path, &overlay); err != nil {
		return err
	}
	acl, _ := overlay["acl"].(map[string]any)
	tokens, _ := acl["tokens"].(map[string]any)
	tokens["agent"] = string(token)
	return instance.WriteJSON(path, overlay)
}

// UseTokens makes tokens those of now.
func (a *Access) UseTokens(service, agent credentials.Secret) {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	a.service, a.agent = service, agent
}

// LoginToken is what a login has given, empty without one.
func (a *Access) LoginToken() credentials.Secret {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	if a.login == nil {
		return ""
	}
	return a.login.SecretID
}

// NamedToken is a token, and how the bound service calls it.
type NamedToken struct {
	Name  string
	Token credentials.Secret
}

// TokensOf names the tokens of a binding, one where both are the same.
func TokensOf(service, agent credentials.Secret) []NamedToken {
	if agent == service {
		return []NamedToken{{"token", service}}
	}
	return []NamedToken{{"service_token", service}, {"agent_token", agent}}
}

// Verify returns nil if the servers know every token.
func (a *Access) Verify(ctx context.Context) error {
	a.mutex.Lock()
	binding, tokens := a.creds.Binding, TokensOf(a.service, a.agent)
	if a.login != nil {
		tokens[0].Name = "token of the login"
	}
	a.mutex.Unlock()
	return a.Known(ctx, binding, tokens)
}

// Known returns nil if the servers know the tokens of a binding.
func (a *Access) Known(ctx context.Context, binding string, tokens []NamedToken) error {
	for _, t := range tokens {
		err := a.Consul.readToken(ctx, t.Token)
		var status *StatusError
		switch {
		case errors.As(err, &status) && status.Status == http.StatusForbidden:
			return Refused(fmt.Errorf("the servers do not know the %s of the bound service %q: it is wrong, expired or revoked", t.Name, binding))
		case errors.As(err, &status) && strings.Contains(status.Text, "ACL support disabled"):
			return wait.Final(fmt.Errorf("the bound service %q has tokens, but the servers have ACLs turned off", binding))
		case err != nil:
			return err
		}
	}
	return nil
}

// RefusedError says that the servers were asked and do not know a token.
type RefusedError struct{ error }

// Patient is for the condition of a step: what ACLs refuse may be allowed in a
// moment, when a new token or policy has reached every server. Where they go on
// refusing, asking for longer is of no use.
func Patient(condition func(context.Context) error) func(context.Context) error {
	var since time.Time
	return func(ctx context.Context) error {
		err := condition(ctx)
		var refused *RefusedError
		var status *StatusError
		if errors.As(err, &refused) || errors.As(err, &status) && status.Status == http.StatusForbidden {
			if since.IsZero() {
				since = time.Now()
			}
			if time.Since(since) > instance.RefusedPatience {
				return wait.Final(err)
			}
		}
		return err
	}
}

// Logout ends a login, so that its token is of no use to anybody.
func (a *Access) Logout(budget time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), budget)
	defer cancel()
	a.mutex.Lock()
	got := a.login
	a.login = nil
	a.mutex.Unlock()
	if got == nil {
		return
	}
	if err := a.Consul.Logout(ctx, got.SecretID); err != nil {
		a.log("failed to log out, the token lives until it expires: %v", err)
	}
}

// WithTokenFile has work read the token of services from a file, which is there
// for that long.
func (a *Access) WithTokenFile(work func(path string) error) error {
	file, err := os.CreateTemp(a.Dir, "token-")
	if err != nil {
		return fmt.Errorf("failed to hand a token on: %w", err)
	}
	defer os.Remove(file.Name())
	_, err = file.WriteString(string(a.ServiceToken()))
	if err := errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("failed to hand a token on: %w", err)
	}
	return work(file.Name())
}

// Due says that two thirds of a login's time are over.
func (a *Access) Due() bool {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	if a.login == nil || a.login.ExpirationTime == nil {
		return false
	}
	whole := a.login.ExpirationTime.Sub(a.login.CreateTime)
	return time.Since(a.login.Since) > whole*2/3
}

// Refused says that servers were asked, and do not know a token.
func Refused(err error) error { return &RefusedError{err} }
