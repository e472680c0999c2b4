package registry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/consul-mesh/mesh-buildpack/src/credentials"
	"github.com/consul-mesh/mesh-buildpack/src/droplet"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/consul"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/instance"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/wait"
)

// Consul's RPC port tells by a connection's first byte what follows (agent/pool
// in Consul).
const (
	rpcTLS         = 3 // TLS
	rpcTLSInsecure = 7 // TLS of a client that has no certificate yet
)

// preflight looks at the servers from outside while the agent starts. An agent
// says only in its log, between other lines, why no server trusts it or the
// other way round; this says it in one sentence.
type preflight struct {
	creds      *credentials.Credentials
	servers    []string // retry_join
	serverName string   // in their certificates
	gossip     int
	started    time.Time

	mutex   sync.Mutex
	verdict error // guarded by mutex
}

func (n *Node) newPreflight() (*preflight, error) {
	var agent struct {
		Datacenter string `json:"datacenter"`
		Domain     string `json:"domain"`
	}
	if err := instance.ReadJSON(n.Inst.Path(droplet.AgentFile), &agent); err != nil {
		return nil, err
	}
	servers, err := n.retryJoin()
	if err != nil {
		return nil, err
	}
	look := &preflight{creds: n.Access.Current(), servers: servers, gossip: n.Ports.Gossip}
	datacenter, domain := agent.Datacenter, strings.Trim(agent.Domain, ".")
	if look.creds != nil && look.creds.Datacenter != "" {
		datacenter = look.creds.Datacenter
	}
	if domain == "" {
		domain = "consul"
	}
	look.serverName = consul.ServerName(datacenter, domain)
	return look, nil
}

// run looks at the servers' TLS until it knows, or ctx ends.
func (p *preflight) run(ctx context.Context) {
	if p.creds == nil || p.creds.CA == "" {
		return
	}
	again := 0
	_ = wait.Poll(ctx, func(ctx context.Context) error {
		err := p.lookAtTLS(ctx)
		var refused *consul.RefusedError
		if !errors.As(err, &refused) {
			again = 0
			return err
		}
		if again++; again < instance.SameVerdict {
			return err
		}
		p.mutex.Lock()
		defer p.mutex.Unlock()
		p.verdict = err
		return nil
	})
}

// explain is for the condition of a step: where it does not hold, and it is
// known why it never will, that is the reason.
func (p *preflight) explain(condition func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		err := condition(ctx)
		if err == nil {
			return nil
		}
		p.mutex.Lock()
		defer p.mutex.Unlock()
		if p.verdict != nil {
			return wait.Final(p.verdict)
		}
		return err
	}
}

// explainAgent is explain, and knows when the servers do not give the agent the
// certificate without which it does not start to answer.
func (p *preflight) explainAgent(inst instance.Instance, condition func(context.Context) error) func(context.Context) error {
	started := time.Now()
	return p.explain(func(ctx context.Context) error {
		err := condition(ctx)
		if err == nil || p.creds == nil || time.Since(started) < instance.RefusedPatience {
			return err
		}
		for _, line := range slices.Backward(inst.JournalOf(instance.ConsulJournal)) {
			for _, known := range certificateErrors {
				if strings.Contains(line, "AutoEncrypt") && strings.Contains(line, known.text) {
					return wait.Final(fmt.Errorf(known.cause, p.creds.Binding))
				}
			}
		}
		return err
	})
}

// certificateErrors are what Consul prints where servers refuse a certificate
// for a reason that waiting does not mend.
var certificateErrors = []struct{ text, cause string }{
	{"ACL not found", "the servers do not know the agent_token of the bound service %q: it is wrong, expired or revoked"},
	{"lacks permission 'node:write'", "the agent_token of the bound service %q may not write the instance's node (node:write)"},
	{"allow_tls must be enabled", "the bound service %q has auto_encrypt, but the servers do not allow it (auto_encrypt.allow_tls)"},
}

// explainJoin is explain, and knows when gossip is what is in the way.
func (p *preflight) explainJoin(condition func(context.Context) error) func(context.Context) error {
	p.started = time.Now()
	return p.explain(func(ctx context.Context) error {
		err := condition(ctx)
		var alone *consul.NotJoinedError
		if !errors.As(err, &alone) || p.creds == nil || time.Since(p.started) < instance.GossipPatience {
			return err
		}
		if !p.gossipAnswers(ctx) {
			return err
		}
		what := "is not theirs"
		if p.creds.GossipKey == "" {
			what = "is missing, if they have one"
		}
		return wait.Final(fmt.Errorf("the servers answer on %d tcp and do not let the agent in: gossip_key of the bound service %q %s, or datacenter is another",
			p.gossip, p.creds.Binding, what))
	})
}

// lookAtTLS returns nil as soon as one server has a certificate that is trusted.
func (p *preflight) lookAtTLS(ctx context.Context) error {
	first := byte(rpcTLS)
	if p.creds.AutoEncrypt {
		first = rpcTLSInsecure
	}
	config := p.tlsConfig()
	return p.any(ctx, serverRPC, func(address string) error { return p.handshake(ctx, address, first, config) })
}

func (p *preflight) tlsConfig() *tls.Config {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(p.creds.CA))
	config := &tls.Config{RootCAs: roots, ServerName: p.serverName}
	if !p.creds.VerifyServerName {
		config.InsecureSkipVerify = true // only the chain, as the agent does
		config.VerifyConnection = consul.ChainOnly(roots)
	}
	return config
}

func (p *preflight) handshake(ctx context.Context, address string, first byte, config *tls.Config) error {
	dialer := net.Dialer{Timeout: wait.DialTimeout}
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err = conn.Write([]byte{first}); err == nil {
		err = tls.Client(conn, config).HandshakeContext(ctx)
	}
	host := consul.HostOf(address)
	var authority x509.UnknownAuthorityError
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &authority):
		err = fmt.Errorf("the certificate of the Consul server %s is not signed by the ca of the bound service %q", host, p.creds.Binding)
	case errors.As(err, &name):
		err = fmt.Errorf("the certificate of the Consul server %s is not for %s: is datacenter right, and is it a server's certificate? (bound service %q)",
			host, p.serverName, p.creds.Binding)
	case errors.As(err, &invalid):
		err = fmt.Errorf("the certificate of the Consul server %s is not valid: %w", host, invalid)
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		err = fmt.Errorf("the Consul server %s does not speak TLS, and the bound service %q has a ca", host, p.creds.Binding)
	default:
		// Also a server that asks for a certificate: the agent has one by then.
		return nil
	}
	return consul.Refused(err)
}

// gossipAnswers says whether a server accepts connections for gossip.
func (p *preflight) gossipAnswers(ctx context.Context) bool {
	return p.any(ctx, p.gossip, func(address string) error {
		return wait.Dial(ctx, address)
	}) == nil
}

// any tries the servers one after the other until one does.
func (p *preflight) any(ctx context.Context, port int, try func(address string) error) error {
	hosts, err := consul.Resolve(ctx, p.servers)
	for _, host := range hosts {
		next := try(net.JoinHostPort(host, strconv.Itoa(port)))
		if next == nil {
			return nil
		}
		// What a server says counts more than that another is not there.
		var refused *consul.RefusedError
		if !errors.As(err, &refused) {
			err = next
		}
	}
	return err
}
