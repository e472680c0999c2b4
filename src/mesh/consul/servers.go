package consul

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/consul-mesh/mesh-buildpack/src/droplet"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/instance"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/wait"
)

// The usual ports of Consul's servers, without and with TLS.
const (
	ServerHTTP    = 8500
	serverHTTPS   = 8501
	serverGRPC    = 8502
	serverGRPCTLS = 8503
)

// Servers are the Consul servers that are asked directly: one of them until it
// fails, then the next. Their names are resolved anew each time, because the
// servers may be apps themselves. (HashiCorp's consul-server-connection-manager
// does this over gRPC, whose library alone is larger than this whole program.)
type Servers struct {
	Names      []string
	HTTP, GRPC int
	Dialer     net.Dialer  // by which they are reached
	tls        *tls.Config // nil: plain text
	lookup     singleflight.Group

	mutex       sync.Mutex
	found       []string           // what the names were resolved to last; guarded by mutex
	current     string             // host, empty before the first and after a failure; guarded by mutex
	works       bool               // current has done what it was asked for; guarded by mutex
	failed      string             // the last that did; guarded by mutex
	currentLost context.Context    // ends when current is lost, nil while nobody waits for that; guarded by mutex
	noteLost    context.CancelFunc // ends it; guarded by mutex

	streams streams      // Envoy's
	full    wait.Backoff // of questions for which no server has room
}

// NewServers takes the addresses of the bound service, and otherwise those of
// mesh.hcl.
func NewServers(config *droplet.Servers, a *Access) *Servers {
	s := &Servers{Names: config.Addresses, HTTP: ServerHTTP, GRPC: serverGRPC, Dialer: net.Dialer{Timeout: instance.ConnectTimeout}}
	for _, again := range []*wait.Backoff{&s.streams.again, &s.full} {
		again.First, again.Most = instance.AgainFirst, instance.StreamAgain
	}
	if creds := a.Current(); creds != nil {
		if creds.RetryJoin != nil && !config.Fixed {
			s.Names = creds.RetryJoin
		}
		if creds.CA != "" {
			s.HTTP, s.GRPC, s.tls = serverHTTPS, serverGRPCTLS, a.serverTLS()
		}
	}
	if config.HTTP != 0 {
		s.HTTP = config.HTTP
	}
	if config.GRPC != 0 {
		s.GRPC = config.GRPC
	}
	return s
}

// Pick is the host to ask. Where the names do not resolve any more it is one of those
// that they were resolved to last: a server is not gone because a name server is.
func (s *Servers) Pick(ctx context.Context) (string, error) {
	s.mutex.Lock()
	current := s.current
	s.mutex.Unlock()
	if current != "" {
		return current, nil
	}
	hosts, err := s.hosts(ctx)
	if err != nil {
		return "", err
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.current != "" {
		return s.current, nil
	}
	s.current = hosts[rand.IntN(len(hosts))]
	for i := 0; s.current == s.failed && i < len(hosts); i++ {
		s.current = hosts[i]
	}
	return s.current, nil
}

// HostOf is the address of a server without the port that it may have, which is
// one for gossip.
func HostOf(address string) string {
	if host, _, err := net.SplitHostPort(address); err == nil {
		return host
	}
	return strings.Trim(address, "[]")
}

// hosts are the addresses of the servers. A lookup goes on when its caller no longer
// waits for it, and the next call finds what it has found.
func (s *Servers) hosts(ctx context.Context) ([]string, error) {
	s.mutex.Lock()
	before := s.found
	s.mutex.Unlock()
	found := s.lookup.DoChan("", func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), instance.LookupTimeout)
		defer cancel()
		hosts, err := Resolve(ctx, s.Names)
		if err == nil {
			s.mutex.Lock()
			defer s.mutex.Unlock()
			s.found = hosts
		}
		return hosts, err
	})
	var enough <-chan time.Time
	if before != nil {
		enough = time.After(instance.LookupPatience)
	}
	select {
	case result := <-found:
		if result.Err != nil && before != nil {
			return before, nil
		}
		hosts, _ := result.Val.([]string)
		return hosts, result.Err
	case <-enough:
		return before, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("the name servers have not answered yet: %w", ctx.Err())
	}
}

// Resolve gives the addresses behind the servers' names, at least one. Cloud
// auto-join, which may have keys in it, is for an agent alone: it is left out,
// and said by no error.
func Resolve(ctx context.Context, names []string) ([]string, error) {
	names = slices.DeleteFunc(slices.Clone(names), func(name string) bool { return strings.Contains(name, "provider=") })
	if len(names) == 0 {
		return nil, errNoAddress
	}
	hosts := lookUp(ctx, names, net.DefaultResolver.LookupHost)
	switch {
	case len(hosts) > 0:
		return hosts, nil
	case len(names) == 1:
		return nil, fmt.Errorf("%s, the address of the servers, does not resolve: do they run, with that name?", HostOf(names[0]))
	}
	return nil, fmt.Errorf("none of the servers' addresses resolves: %s", strings.Join(names, ", "))
}

// lookUp looks up all names side by side, and waits for the others when it has the
// addresses of one.
func lookUp(ctx context.Context, names []string, look func(context.Context, string) ([]string, error)) (hosts []string) {
	found := make(chan []string, len(names))
	for _, name := range names {
		go func() {
			addresses, _ := look(ctx, HostOf(name)) // none says enough
			found <- addresses
		}()
	}
	var enough <-chan time.Time
	for range names {
		select {
		case addresses := <-found:
			hosts = append(hosts, addresses...)
			if enough == nil && len(hosts) > 0 {
				enough = time.After(instance.LookupGrace)
			}
		case <-enough:
			return hosts
		}
	}
	return hosts
}

var errNoAddress = errors.New("the servers are named by cloud auto-join (provider=…) alone, which an agent resolves, and says in its log how")

// leave has another server asked from now on. Questions that are open at this one are
// still answered; what it returns hangs them up.
func (s *Servers) leave(host string) (hangUp func()) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.current != host {
		return func() {}
	}
	s.current, s.failed, s.works = "", host, false
	if s.currentLost == nil {
		return func() {}
	}
	s.currentLost = nil
	return s.noteLost
}

// noteWorks notes that a server has done what it was asked for.
func (s *Servers) noteWorks(host string) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.current == host {
		s.works = true
	}
}

// UntilLost is for a question that stays open: it ends when the server that is
// asked now is lost, which other questions find out sooner.
func (s *Servers) UntilLost(ctx context.Context) (context.Context, context.CancelFunc) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.currentLost == nil {
		s.currentLost, s.noteLost = context.WithCancel(context.Background())
	}
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(s.currentLost, cancel)
	return ctx, func() {
		stop()
		cancel()
	}
}

// serverTLS verifies the servers by the CA of the moment, so that one CA can
// take over from another without a restart.
func (a *Access) serverTLS() *tls.Config {
	config := &tls.Config{
		InsecureSkipVerify: true, // VerifyConnection does it
		VerifyConnection:   a.verifyServer,
	}
	if creds := a.Current(); creds.VerifyServerName && creds.Datacenter != "" {
		// For what routes by it; the servers' own domain is not known here.
		config.ServerName = ServerName(creds.Datacenter, "consul")
	}
	return config
}

// ServerName is what a server's certificate has to be for, by Consul's own rule.
func ServerName(datacenter, domain string) string {
	return "server." + strings.ToLower(datacenter) + "." + domain
}

func (a *Access) verifyServer(state tls.ConnectionState) error {
	creds := a.Current()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(creds.CA))
	if err := ChainOnly(roots)(state); err != nil {
		return wait.Final(fmt.Errorf("the certificate of the Consul server is not signed by the ca of the bound service %q: %w", creds.Binding, err))
	}
	if !creds.VerifyServerName {
		return nil
	}
	prefix := "server."
	if creds.Datacenter != "" {
		prefix = ServerName(creds.Datacenter, "")
	}
	isServer := func(name string) bool { return strings.HasPrefix(name, prefix) }
	if !slices.ContainsFunc(state.PeerCertificates[0].DNSNames, isServer) {
		return wait.Final(fmt.Errorf("the certificate of the Consul server is not for %s…: is datacenter right, and is it a server's certificate? (bound service %q)", prefix, creds.Binding))
	}
	return nil
}

// ChainOnly verifies who signed a certificate, and not for whom it is.
func ChainOnly(roots *x509.CertPool) func(tls.ConnectionState) error {
	return func(state tls.ConnectionState) error {
		options := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool()}
		for _, certificate := range state.PeerCertificates[1:] {
			options.Intermediates.AddCert(certificate)
		}
		_, err := state.PeerCertificates[0].Verify(options)
		return err
	}
}
