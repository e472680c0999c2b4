package runtime

import (
	"context"
	"errors"
	"path/filepath"
	"reflect"
	"time"

	"github.com/consul-mesh/mesh-buildpack/src/credentials"
)

// watchInterval is how often a running instance looks whether its credentials
// are still good, and whether there are new ones.
const watchInterval = 3 * time.Second

// watchCredentials follows the credentials of a running instance: new ones in the file
// that they came from, a login that is about to expire, and tokens that the
// servers do not know any more. Each change is one line.
func (p *proxy) watchCredentials(ctx context.Context) {
	if p.access.current() == nil {
		return
	}
	said := ""
	for pause(ctx, watchInterval) == nil {
		attempt, cancel := context.WithTimeout(ctx, watchInterval)
		state := ""
		if err := p.refresh(attempt); err != nil {
			state = err.Error()
		}
		cancel()
		if ctx.Err() != nil || state == said {
			continue
		}
		if said = state; state == "" {
			state = "the credentials are good again"
		}
		p.log("%s", state)
	}
}

// refresh does what is due, and returns what is wrong with the credentials. The
// servers that cannot be asked are no news of the credentials.
func (p *proxy) refresh(ctx context.Context) error {
	wrong := p.reread(ctx)
	if !p.access.enabled() {
		return wrong
	}
	if p.unmoved { // the last time it did not come through
		if err := p.moveServices(ctx); err != nil {
			return err
		}
	}
	if p.access.due() {
		if err := p.renewLogin(ctx); err != nil {
			return err
		}
	}
	err := p.access.verify(ctx)
	var refused *refusedError
	if wrong == nil && errors.As(err, &refused) {
		wrong = err
	}
	return wrong
}

// pause waits, unless ctx ends.
func pause(ctx context.Context, long time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(long):
		return nil
	}
}

// due says that two thirds of a login's time are over.
func (a *access) due() bool {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	if a.login == nil || a.login.ExpirationTime == nil {
		return false
	}
	whole := a.login.ExpirationTime.Sub(a.login.CreateTime)
	return time.Since(a.login.since) > whole*2/3
}

// renewLogin logs in again, moves everything over to the new token and ends the old
// one.
func (p *proxy) renewLogin(ctx context.Context) error {
	p.access.mutex.Lock()
	old := p.access.login
	p.access.mutex.Unlock()
	if err := p.access.obtain(ctx); err != nil {
		return err
	}
	if err := p.moveServices(ctx); err != nil {
		return err
	}
	if old != nil {
		// It expires by itself soon.
		_ = p.consul.logout(ctx, old.SecretID)
	}
	p.log("logged in again, the old login has ended")
	return nil
}

// moveServices registers everything with the token of now, with the states of
// the checks as they are.
func (p *proxy) moveServices(ctx context.Context) error {
	p.unmoved = true
	for _, r := range p.services {
		if p.access.agentless {
			break // the catalog keeps no tokens
		}
		// A server may hear of a new token a moment after another made it.
		if err := pollUnbounded(ctx, func(ctx context.Context) error { return p.registry.register(ctx, r) }); err != nil {
			return err
		}
	}
	if p.xds != nil {
		p.xds.renew()
	}
	p.unmoved = false
	return nil
}

// reread takes over what has changed in the binding. Tokens, JWT and CA change
// at once; the rest is for the next start.
func (p *proxy) reread(ctx context.Context) error {
	now, _, err := p.inst.credentials(p.config)
	if err != nil {
		return err
	}
	before := p.access.current()
	if now == nil || reflect.DeepEqual(now, p.seen) {
		return nil // unbound: what there is stays until the restart
	}
	next := *before
	if before.CA != "" && now.CA != "" {
		next.CA = now.CA
	}
	if before.AuthMethod == now.AuthMethod && before.UseACL() && now.UseACL() {
		next.JWT, next.AgentToken, next.ServiceToken = now.JWT, now.AgentToken, now.ServiceToken
	}
	if before.CA != next.CA {
		if err := p.exchangeCA(ctx, &next); err != nil {
			return err
		}
	}
	if before.CA != next.CA || before.JWT != next.JWT {
		taken := *before
		taken.CA, taken.JWT = next.CA, next.JWT
		p.access.use(&taken)
		p.seen = nil // the binding of before would be news again
	}
	switch {
	case !before.UseACL():
	case before.AuthMethod == "" && next.ServiceToken != "":
		err = p.exchangeTokens(ctx, before, &next)
	case before.AuthMethod != "" && next.AgentToken != "" && before.AgentToken != next.AgentToken:
		err = p.exchangeAgentToken(ctx, &next)
	}
	if err != nil {
		return err
	}
	p.seen = now
	p.access.use(&next)
	if !reflect.DeepEqual(now, &next) {
		p.log("the bound service %q has changed in more than tokens and ca, which the next start takes over", now.Binding)
	}
	return nil
}

func (p *proxy) exchangeCA(ctx context.Context, next *credentials.Credentials) error {
	// Without an agent the next connection is verified by what is then in use.
	if !p.access.agentless {
		if err := replaceFile(filepath.Join(p.access.dir, caFile), []byte(next.CA)); err != nil {
			return err
		}
		if err := p.consul.reload(ctx); err != nil {
			return err
		}
	}
	p.log("the new ca of the bound service %q is in use", next.Binding)
	return nil
}

func (p *proxy) exchangeTokens(ctx context.Context, before, next *credentials.Credentials) error {
	if before.AgentToken == next.AgentToken && before.ServiceToken == next.ServiceToken {
		return nil
	}
	// What there is goes on until the servers know what is new.
	if err := p.access.known(ctx, next.Binding, tokensOf(next.ServiceToken, next.AgentToken)); err != nil {
		return err
	}
	if before.AgentToken != next.AgentToken {
		if err := p.access.setAgentToken(ctx, next.AgentToken); err != nil {
			return err
		}
	}
	p.access.mutex.Lock()
	p.access.service, p.access.agent = next.ServiceToken, next.AgentToken
	p.access.mutex.Unlock()
	if err := p.moveServices(ctx); err != nil {
		return err
	}
	p.log("the new tokens of the bound service %q are in use", next.Binding)
	return nil
}

// exchangeAgentToken is for a binding that has a token for the agent, and a login
// for the services.
func (p *proxy) exchangeAgentToken(ctx context.Context, next *credentials.Credentials) error {
	if err := p.access.known(ctx, next.Binding, []namedToken{{"agent_token", next.AgentToken}}); err != nil {
		return err
	}
	if err := p.access.setAgentToken(ctx, next.AgentToken); err != nil {
		return err
	}
	p.access.mutex.Lock()
	p.access.agent = next.AgentToken
	p.access.mutex.Unlock()
	p.log("the new agent_token of the bound service %q is in use", next.Binding)
	return nil
}

// logout ends the login of an instance that is out of rotation, while the agent
// still answers. The one use that is left of a token is to sweep the node, if
// the login is the agent's too; then it ends by itself. Without an agent it is
// needed until the node is gone, and ends then.
func (p *proxy) logout() {
	if p.access.agentless {
		return
	}
	p.access.mutex.Lock()
	swept := p.access.agent == p.access.service && p.syncing() > 0
	p.access.mutex.Unlock()
	if swept {
		return
	}
	p.access.logout(deregisterBudget)
}
