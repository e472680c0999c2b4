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
	return c.change(policies, func(all []Policy, p Policy) []Policy {
		if slices.Contains(all, p) {
			return all
		}
		return append(all, p)
	})
}

// Disallow removes policies that were allowed. Connections that exist go on.
func (c *Cell) Disallow(policies ...Policy) error {
	return c.change(policies, func(all []Policy, p Policy) []Policy {
		return slices.DeleteFunc(all, func(q Policy) bool { return q == p })
	})
}

// Policies in the order in which they were allowed.
func (c *Cell) Policies() []Policy {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.policies)
}

func (c *Cell) change(policies []Policy, how func(all []Policy, p Policy) []Policy) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := slices.Clone(c.policies)
	for _, p := range policies {
		p, err := p.normal()
		if err != nil {
			return err
		}
		all = how(all, p)
	}
	if err := c.network.firewall.allow(all); err != nil {
		return err
	}
	c.policies = all
	return nil
}
