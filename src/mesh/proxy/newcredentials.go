package proxy

import (
	"cmp"
	"context"
	"reflect"
	"time"

	"github.com/consul-mesh/mesh-buildpack/src/credentials"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/consul"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/instance"
)

// watchCredentials follows the credentials of a running instance: new ones in the file
// that they came from, a login that is about to expire, and tokens that the
// servers do not know any more. Each change is one line.
func (p *proxy) watchCredentials(ctx context.Context) {
	if p.Access.Current() == nil {
		return
	}
	said := ""
	p.tokens.begin()
	for p.awaitLook(ctx) == nil {
		attempt, cancel := context.WithTimeout(ctx, instance.WatchInterval)
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
		p.Log("%s", state)
	}
}

// awaitLook waits until it is time to look at the credentials, or a call was refused.
func (p *proxy) awaitLook(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(instance.WatchInterval):
	case <-p.Access.Refused():
		p.tokens.hurry()
	}
	return nil
}

// refresh does what is due, and returns what is wrong with the credentials. The
// servers that cannot be asked are no news of the credentials.
func (p *proxy) refresh(ctx context.Context) error {
	wrong := p.reread(ctx)
	if !p.Access.Enabled() {
		return wrong
	}
	if isTime(p.tokens.renew) {
		if p.tokens.stuck = p.renew(ctx); p.tokens.stuck != nil {
			p.tokens.renew = time.Now().Add(p.tokens.again.Next())
		} else {
			p.tokens.again.Reset()
		}
	}
	if p.tokens.stuck != nil {
		return p.tokens.stuck
	}
	if isTime(p.tokens.due) {
		p.tokens.note(p.Access.Verify(ctx))
	}
	return cmp.Or(wrong, p.tokens.wrong)
}

// renew logs in again where that is due, and does what did not come through the last
// time.
func (p *proxy) renew(ctx context.Context) error {
	if p.unmoved {
		if err := p.moveServices(ctx); err != nil {
			return err
		}
	}
	if p.Access.Due() {
		return p.renewLogin(ctx)
	}
	return nil
}

// renewLogin logs in again, moves everything over to the new token and ends the old
// one.
func (p *proxy) renewLogin(ctx context.Context) error {
	old := p.Access.LoginToken()
	if err := p.Access.Obtain(ctx); err != nil {
		return err
	}
	if err := p.moveServices(ctx); err != nil {
		return err
	}
	if old != "" {
		// It expires by itself soon.
		_ = p.Consul.Logout(ctx, old)
	}
	p.Log("logged in again, the old login has ended")
	return nil
}

// moveServices registers everything with the token of now, with the states of
// the checks as they are.
func (p *proxy) moveServices(ctx context.Context) error {
	p.unmoved = true
	if err := p.registry.TakeTokens(ctx); err != nil {
		return err
	}
	if p.XDS != nil {
		p.XDS.Renew()
	}
	p.unmoved = false
	p.tokens.due = time.Time{} // whether they are good is seen at once
	return nil
}

// reread takes over what has changed in the binding. Tokens, JWT and CA change
// at once; the rest is for the next start.
func (p *proxy) reread(ctx context.Context) error {
	now, _, err := p.Inst.Credentials(p.Config)
	if err != nil {
		return err
	}
	before := p.Access.Current()
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
		p.Access.Use(&taken)
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
	p.Access.Use(&next)
	if !reflect.DeepEqual(now, &next) {
		p.Log("the bound service %q has changed in more than tokens and ca, which the next start takes over", now.Binding)
	}
	return nil
}

func (p *proxy) exchangeCA(ctx context.Context, next *credentials.Credentials) error {
	if err := p.registry.TakeCA(ctx, next.CA); err != nil {
		return err
	}
	p.Log("the new ca of the bound service %q is in use", next.Binding)
	return nil
}

func (p *proxy) exchangeTokens(ctx context.Context, before, next *credentials.Credentials) error {
	if before.AgentToken == next.AgentToken && before.ServiceToken == next.ServiceToken {
		return nil
	}
	// What there is goes on until the servers know what is new.
	if err := p.Access.Known(ctx, next.Binding, consul.TokensOf(next.ServiceToken, next.AgentToken)); err != nil {
		return err
	}
	if before.AgentToken != next.AgentToken {
		if err := p.Access.SetAgentToken(ctx, next.AgentToken); err != nil {
			return err
		}
	}
	p.Access.UseTokens(next.ServiceToken, next.AgentToken)
	if err := p.moveServices(ctx); err != nil {
		return err
	}
	p.Log("the new tokens of the bound service %q are in use", next.Binding)
	return nil
}

// exchangeAgentToken is for a binding that has a token for the agent, and a login
// for the services.
func (p *proxy) exchangeAgentToken(ctx context.Context, next *credentials.Credentials) error {
	if err := p.Access.Known(ctx, next.Binding, []consul.NamedToken{{Name: "agent_token", Token: next.AgentToken}}); err != nil {
		return err
	}
	if err := p.Access.SetAgentToken(ctx, next.AgentToken); err != nil {
		return err
	}
	p.Access.UseTokens(p.Access.ServiceToken(), next.AgentToken)
	p.Log("the new agent_token of the bound service %q is in use", next.Binding)
	return nil
}
