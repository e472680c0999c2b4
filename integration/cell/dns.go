package cell

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/miekg/dns"
)

// internalDomain is the domain of routes that only containers see.
const internalDomain = ".apps.internal."

// dnsServer answers containers at 169.254.0.2: for internal routes with the
// addresses of routable instances, for hosts on the outside network with theirs.
type dnsServer struct {
	lookup  func(name string) []netip.Addr
	servers []*dns.Server
}

// startDNS serves until close. lookup gets names in lower case with a final dot
// and returns none for a name that does not exist.
func startDNS(lookup func(name string) []netip.Addr) (*dnsServer, error) {
	s := &dnsServer{lookup: lookup}
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

func (s *dnsServer) answer(m *dns.Msg, q dns.Question) {
	addresses := s.lookup(strings.ToLower(q.Name))
	if len(addresses) == 0 {
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
// index N.
func (c *Cell) resolve(name string) []netip.Addr {
	route, ok := strings.CutSuffix(name, internalDomain)
	if !ok {
		return c.outsideHosts(strings.TrimSuffix(name, "."))
	}
	addresses := c.running(route, -1)
	index, rest, _ := strings.Cut(route, ".")
	if n, err := strconv.Atoi(index); err == nil && len(addresses) == 0 && n >= 0 {
		addresses = c.running(rest, n)
	}
	return addresses
}

// running are the addresses of the routable web instances behind an internal
// route; index -1 is any.
func (c *Cell) running(route string, index int) (addresses []netip.Addr) {
	for _, r := range c.apps() {
		if r.internalRoute() != route {
			continue
		}
		for _, i := range r.routable() {
			if index < 0 || i.index == index {
				addresses = append(addresses, i.address)
			}
		}
	}
	return addresses
}
