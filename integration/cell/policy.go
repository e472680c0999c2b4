package cell

import (
	"fmt"
	"slices"
)

// Policy allows traffic from an app's containers to another's. Without one there
// is none, also between the instances of one app. Replies need no policy.
type Policy struct {
	// Source and Destination are names of apps, which need not exist yet.
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
	return c.change(policies, func(r *rules, p Policy) {
		r.allowed, r.cut = with(r.allowed, p), without(r.cut, p)
	})
}

// Disallow removes policies that were allowed. Connections that exist go on.
func (c *Cell) Disallow(policies ...Policy) error {
	return c.change(policies, func(r *rules, p Policy) {
		r.allowed = without(r.allowed, p)
	})
}

// Cut is Disallow, and nothing passes any more on connections that exist, as
// when the network between two machines has failed. Allow mends it.
func (c *Cell) Cut(policies ...Policy) error {
	return c.change(policies, func(r *rules, p Policy) {
		r.allowed, r.cut = without(r.allowed, p), with(r.cut, p)
	})
}

// rules are what the firewall is to do.
type rules struct {
	allowed []Policy
	cut     []Policy // refused also on connections that exist
}

func with(all []Policy, p Policy) []Policy {
	if slices.Contains(all, p) {
		return all
	}
	return append(all, p)
}

func without(all []Policy, p Policy) []Policy {
	return slices.DeleteFunc(all, func(q Policy) bool { return q == p })
}

// Policies in the order in which they were allowed.
func (c *Cell) Policies() []Policy {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.rules.allowed)
}

func (c *Cell) change(policies []Policy, how func(*rules, Policy)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	changed := rules{slices.Clone(c.rules.allowed), slices.Clone(c.rules.cut)}
	for _, p := range policies {
		p, err := p.normal()
		if err != nil {
			return err
		}
		how(&changed, p)
	}
	if err := c.network.firewall.set(changed); err != nil {
		return err
	}
	c.rules = changed
	return nil
}
