package cell

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// internalDomain is the domain of routes that only containers see.
const internalDomain = ".apps.internal."

// InternalDNS is what ails the name server's answers about apps.internal. What it
// says of hosts outside stays as it is.
type InternalDNS struct {
	// Delay is waited before every answer.
	Delay time.Duration
	// Empty has no name have an address, as service discovery that has just been
	// started.
	Empty bool
	// Fails answers SERVFAIL, as when service discovery cannot be reached.
	Fails bool
}

// SetInternalDNS changes how internal routes are resolved from now on. The zero
// value mends it.
func (c *Cell) SetInternalDNS(d InternalDNS) { c.dns.ails.Store(&d) }

// dnsServer answers containers at 169.254.0.2: for internal routes with the
// addresses of routable instances, for hosts on the outside network with theirs.
type dnsServer struct {
	lookup  func(name string) []netip.Addr
	servers []*dns.Server
	ails    atomic.Pointer[InternalDNS]
	closing chan struct{}
}

// startDNS serves until close. lookup gets names in lower case with a final dot
// and returns none for a name that does not exist.
func startDNS(lookup func(name string) []netip.Addr) (*dnsServer, error) {
	s := &dnsServer{lookup: lookup, closing: make(chan struct{})}
	s.ails.Store(&InternalDNS{})
	address := netip.AddrPortFrom(nameServer, 53).String()
	packets, err := net.ListenPacket("udp4", address)
	if err != nil {
		return nil, fmt.Errorf("failed to serve DNS: %w", err)
	}
	streams, err := net.Listen("tcp4", address)
	if err != nil {
		packets.Close()
		return nil, fmt.Errorf("failed to serve DNS: %w", err)
	}
	for _, server := range []*dns.Server{{PacketConn: packets, Handler: s}, {Listener: streams, Handler: s}} {
		ready := make(chan struct{})
		server.NotifyStartedFunc = func() { close(ready) }
		s.servers = append(s.servers, server)
		go func() { _ = server.ActivateAndServe() }() // it ends with close
		<-ready
	}
	return s, nil
}

func (s *dnsServer) close() error {
	close(s.closing)
	var errs []error
	for _, server := range s.servers {
		errs = append(errs, server.Shutdown())
	}
	return errors.Join(errs...)
}

// ServeDNS answers with no time to live, as the platform does: an instance may
// end at any moment.
func (s *dnsServer) ServeDNS(w dns.ResponseWriter, query *dns.Msg) {
	answer := new(dns.Msg).SetReply(query)
	answer.RecursionAvailable = true
	size := dns.MinMsgSize
	if option := query.IsEdns0(); option != nil {
		size = int(option.UDPSize())
		answer.SetEdns0(option.UDPSize(), false)
	}
	if len(query.Question) != 1 {
		answer.Rcode = dns.RcodeFormatError
	} else {
		s.answer(answer, query.Question[0])
	}
	if _, udp := w.RemoteAddr().(*net.UDPAddr); udp {
		answer.Truncate(size)
	}
	_ = w.WriteMsg(answer) // who asked has gone
}

// answer fills in the message. Of names in apps.internal that no app has the
// platform says that they are there and have no address.
func (s *dnsServer) answer(m *dns.Msg, q dns.Question) {
	name, ails := strings.ToLower(q.Name), InternalDNS{}
	isInternal := strings.HasSuffix(name, internalDomain)
	if isInternal {
		ails = *s.ails.Load()
	}
	select {
	case <-time.After(ails.Delay):
	case <-s.closing:
	}
	if ails.Fails {
		m.Rcode = dns.RcodeServerFailure
		return
	}
	var addresses []netip.Addr
	if !ails.Empty {
		addresses = s.lookup(name)
	}
	if len(addresses) == 0 && !isInternal {
		m.Rcode = dns.RcodeNameError
		return
	}
	if q.Qtype != dns.TypeA {
		return
	}
	rand.Shuffle(len(addresses), func(i, j int) { addresses[i], addresses[j] = addresses[j], addresses[i] })
	for _, a := range addresses {
		m.Answer = append(m.Answer, &dns.A{
			Hdr: dns.RR_Header{Name: q.Name, Rrtype: dns.TypeA, Class: dns.ClassINET},
			A:   a.AsSlice(),
		})
	}
}

// resolve is the cell's side of DNS: "NAME.apps.internal." are all routable web
// instances of the apps with that route, "N.NAME.apps.internal." those with
// index N, of which there may be several. An address is there until the container
// is gone, and longer where its cell is (Cell.Lose).
func (c *Cell) resolve(name string) []netip.Addr {
	route, ok := strings.CutSuffix(name, internalDomain)
	if !ok {
		return c.outsideHosts(strings.TrimSuffix(name, "."))
	}
	addresses := c.routed(route, -1)
	index, rest, _ := strings.Cut(route, ".")
	if n, err := strconv.Atoi(index); err == nil && len(addresses) == 0 && n >= 0 {
		addresses = c.routed(rest, n)
	}
	return addresses
}

// routed are the addresses of the routable web instances behind an internal
// route; index -1 is any.
func (c *Cell) routed(route string, index int) (addresses []netip.Addr) {
	for _, r := range c.apps() {
		if r.internalRoute() != route {
			continue
		}
		for _, i := range append(r.routable(), r.listed()...) {
			if index < 0 || i.index == index {
				addresses = append(addresses, i.address)
			}
		}
	}
	return addresses
}
