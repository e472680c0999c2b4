// Package credentials reads what a bound service says of the Consul to join:
// where the servers are, whom to trust, and the secrets of this app. It runs
// in the container, at start and again whenever a file that it came from has
// changed; staging never sees it.
//
// No message of this package has a value of a binding in it, only names.
package credentials

import (
	"fmt"
	"slices"
	"strings"
)

// Credentials are what a bound service gives. Every part may be missing.
type Credentials struct {
	// Binding is the name of the bound service, for messages.
	Binding string

	Datacenter string
	RetryJoin  []string
	Partition  string // Consul Enterprise
	Namespace  string // Consul Enterprise

	// CA has the certificates of the authorities that sign the servers', in PEM:
	// two while one authority takes over from the other.
	CA string
	// VerifyServerName asks that a server's certificate is one of a server.
	VerifyServerName bool
	// AutoEncrypt has the servers issue a certificate for the agent.
	AutoEncrypt bool
	GossipKey   Secret

	// AgentToken is for the agent's node, ServiceToken for the services and
	// their sidecars. With an AuthMethod the ServiceToken comes from a login.
	AgentToken   Secret
	ServiceToken Secret
	AuthMethod   string
	JWT          Secret

	// Plaintext says that tokens may go to the servers in clear text, without a CA.
	Plaintext bool

	// DefaultPolicy is the policy for callers without an intention: "deny",
	// unless the binding says "allow".
	DefaultPolicy string
}

// Secret is text that no log shows, also where it is printed by mistake.
type Secret string

func (Secret) String() string { return "(secret)" }

// GoString is for %#v.
func (Secret) GoString() string { return "(secret)" }

// UseACL says whether there is any token.
func (c *Credentials) UseACL() bool { return c.ServiceToken != "" || c.AuthMethod != "" }

// InClearText says that tokens go to the servers in clear text, and nobody has said
// that they may.
func (c *Credentials) InClearText() bool {
	return (c.UseACL() || c.AgentToken != "") && c.CA == "" && !c.Plaintext
}

// Keys of a binding.
const (
	keyAddresses = "addresses" // another name of keyRetryJoin
	keyRetryJoin = "retry_join"

	keyAgentToken   = "agent_token"
	keyAuthMethod   = "auth_method"
	keyAutoEncrypt  = "auto_encrypt"
	keyCA           = "ca"
	keyDatacenter   = "datacenter"
	keyDefault      = "default_policy"
	keyGossip       = "gossip_key"
	keyJWT          = "jwt"
	keyNamespace    = "namespace"
	keyPartition    = "partition"
	keyPlaintext    = "plaintext"
	keyServerName   = "verify_server_hostname"
	keyServiceToken = "service_token"
	keyToken        = "token"
	keyCredHub      = "credhub-ref"
)

var keys = []string{
	keyAddresses, keyAgentToken, keyAuthMethod, keyAutoEncrypt, keyCA, keyDatacenter, keyDefault, keyGossip, keyJWT,
	keyNamespace, keyPartition, keyPlaintext, keyRetryJoin, keyServerName, keyServiceToken, keyToken,
}

// Read finds the bound service with the name, or else the one with the tag or
// the label "consul". Without such a service it returns nil. unknown are the keys
// that Read does not know, which are no reason to fail: brokers give more than they
// are asked for.
func Read(getenv func(string) string, name string) (c *Credentials, unknown []string, err error) {
	all, err := bindings(getenv)
	if err != nil {
		return nil, nil, err
	}
	b, err := find(all, name)
	if b == nil || err != nil {
		return nil, nil, err
	}
	return b.decode(getenv(envSystem))
}

// find returns the bound service that is meant, nil where none is.
func find(all []*binding, name string) (*binding, error) {
	if name != "" {
		found := matching(all, func(b *binding) bool { return b.Name == name || b.Instance == name })
		switch {
		case len(found) == 0:
			return nil, fmt.Errorf("mesh.hcl names the service binding %q, and %s\nhint: `cf bind-service`, then restart the app",
				name, listed("no service is bound", "bound are", all))
		case len(found) > 1:
			return nil, fmt.Errorf("%s\nhint: give the bindings different names", listed("", "service_binding fits several bound services:", found))
		}
		return found[0], nil
	}
	for _, by := range []struct {
		what string
		fits func(*binding) bool
	}{
		{"the tag", func(b *binding) bool { return slices.ContainsFunc(b.Tags, isConsul) }},
		{"the label", func(b *binding) bool { return isConsul(b.Label) }},
	} {
		found := matching(all, by.fits)
		if len(found) > 1 {
			return nil, fmt.Errorf("%s\nhint: say which in mesh.hcl, such as service_binding = %q",
				listed("", "several bound services have "+by.what+" consul:", found), found[0].Name)
		}
		if len(found) == 1 {
			return found[0], nil
		}
	}
	return nil, nil
}

func isConsul(s string) bool { return strings.EqualFold(s, "consul") }

func matching(all []*binding, fits func(*binding) bool) (found []*binding) {
	for _, b := range all {
		if fits(b) {
			found = append(found, b)
		}
	}
	return found
}

func listed(none, some string, all []*binding) string {
	if len(all) == 0 {
		return none
	}
	names := make([]string, len(all))
	for i, b := range all {
		names[i] = shown(b.Name)
	}
	slices.Sort(names)
	return some + " " + strings.Join(names, ", ")
}

// shown is a name from outside, on one line and not without end.
func shown(name string) string {
	const most = 80
	if len(name) > most {
		name = name[:most] + "…"
	}
	return fmt.Sprintf("%q", name)
}
