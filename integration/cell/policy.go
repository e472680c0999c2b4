package cell

import (
	"fmt"
	"net/netip"
	"slices"
)

// Policy allows traffic from an app's containers to another's. Without one there
// is none, also between the instances of one app. Replies need no policy.
//
// It belongs to the apps' GUIDs and ends with either of them: an app that is deleted
// and pushed again has none.
type Policy struct {
	// Source and Destination are names of apps. One that has not been pushed exists
	// from then on, as after cf create-app.
	Source, Destination string
	// Protocol is "tcp" or "udp".
	Protocol string
	// Start and End are the first and the last port. End 0 means Start.
	Start, End int
}

// String is e.g. "frontend -> customer tcp 21000-21010".
func (p Policy) String() string {
	return fmt.Sprintf("%s -> %s %s %d-%d", p.Source, p.Destination, p.Protocol, p.Start, p.End)
}

func (p Policy) normal() (Policy, error) {
	if p.End == 0 {
		p.End = p.Start
	}
	switch {
	case p.Source == "" || p.Destination == "":
		return p, fmt.Errorf("policy %s: both apps have to be named", p)
	case p.Protocol != "tcp" && p.Protocol != "udp":
		return p, fmt.Errorf("policy %s: the protocol has to be tcp or udp", p)
	case p.Start < 1 || p.End > 65535 || p.Start > p.End:
		return p, fmt.Errorf("policy %s: not a range of ports", p)
	}
	return p, nil
}

// Allow adds policies; one that is there already is not added again.
func (c *Cell) Allow(policies ...Policy) error {
	return c.change(policies, func(r *rules, p rule) {
		r.allowed, r.cut = with(r.allowed, p), without(r.cut, p)
	})
}

// Disallow removes policies that were allowed. Connections that exist go on.
func (c *Cell) Disallow(policies ...Policy) error {
	return c.change(policies, func(r *rules, p rule) {
		r.allowed = without(r.allowed, p)
	})
}

// Cut is Disallow, and nothing passes any more on connections that exist, as
// when the network between two machines has failed. Allow mends it.
func (c *Cell) Cut(policies ...Policy) error {
	return c.change(policies, func(r *rules, p rule) {
		r.allowed, r.cut = without(r.allowed, p), with(r.cut, p)
	})
}

// rules are what the firewall is to do.
type rules struct {
	allowed []rule
	cut     []rule // refused also on connections that exist
	apart   []apart
}

// apart are an instance's address and an app, by its GUID, between which nothing passes.
type apart struct {
	address netip.Addr
	app     string
}

// rule is a policy between two apps by their GUIDs.
type rule struct {
	Policy
	from, to string
}

func with(all []rule, p rule) []rule {
	if slices.Contains(all, p) {
		return all
	}
	return append(all, p)
}

func without(all []rule, p rule) []rule {
	return slices.DeleteFunc(all, func(q rule) bool { return q == p })
}

// withoutApp leaves out what begins or ends at an app.
func withoutApp(all []rule, guid string) []rule {
	return slices.DeleteFunc(slices.Clone(all), func(p rule) bool { return p.from == guid || p.to == guid })
}

// Policies in the order in which they were allowed.
func (c *Cell) Policies() []Policy {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []Policy
	for _, r := range c.rules.allowed {
		all = append(all, r.Policy)
	}
	return all
}

func (c *Cell) change(policies []Policy, how func(*rules, rule)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	changed := rules{slices.Clone(c.rules.allowed), slices.Clone(c.rules.cut), c.rules.apart}
	for _, p := range policies {
		p, err := p.normal()
		if err != nil {
			return err
		}
		how(&changed, rule{p, c.guidOf("app", p.Source), c.guidOf("app", p.Destination)})
	}
	return c.enforce(changed)
}

// CutInstance has all packets between an instance and an app's vanish, as when one of
// two networks that a cell has is gone. restore lets them through again.
func (c *Cell) CutInstance(i *Instance, app string) (restore func() error, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	a := apart{i.address, c.guidOf("app", app)}
	changed := c.rules
	changed.apart = append(slices.Clone(changed.apart), a)
	return func() error {
		c.mu.Lock()
		defer c.mu.Unlock()
		changed := c.rules
		changed.apart = slices.DeleteFunc(slices.Clone(changed.apart), func(other apart) bool { return other == a })
		return c.enforce(changed)
	}, c.enforce(changed)
}

// enforce is called with mu held.
func (c *Cell) enforce(r rules) error {
	if err := c.network.firewall.set(r); err != nil {
		return err
	}
	c.rules = r
	return nil
}
