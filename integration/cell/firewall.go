package cell

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"sync"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// acknowledgements is room for those of a thousand rules, in bytes.
const acknowledgements = 4 << 20

// firewall decides who may talk to whom, as the platform's network plug-in does:
// a container is reached by nobody unless a policy says so. What is forbidden is
// refused, not dropped.
type firewall struct {
	mu       sync.Mutex
	conn     *nftables.Conn
	table    *nftables.Table
	cuts     *nftables.Chain          // what is refused also where a connection exists
	rules    *nftables.Chain          // one rule per policy
	silenced *nftables.Set            // addresses whose packets are dropped
	apps     map[string]*nftables.Set // addresses of an app's containers, by its GUID
}

func newFirewall() (*firewall, error) {
	// The kernel acknowledges every rule of a change, all of them at once.
	conn, err := nftables.New(nftables.WithSockOptions(func(c *netlink.Conn) error { return c.SetReadBuffer(acknowledgements) }))
	if err != nil {
		return nil, fmt.Errorf("failed to reach nftables: %w", err)
	}
	f := &firewall{conn: conn, apps: map[string]*nftables.Set{}}
	f.table = conn.AddTable(&nftables.Table{Name: "cell", Family: nftables.TableFamilyIPv4})
	f.silenced = &nftables.Set{Table: f.table, Name: "silenced", KeyType: nftables.TypeIPAddr}
	if err := conn.AddSet(f.silenced, nil); err != nil {
		return nil, err
	}
	f.cuts = conn.AddChain(&nftables.Chain{Name: "cuts", Table: f.table})
	f.rules = conn.AddChain(&nftables.Chain{Name: "policies", Table: f.table})
	f.forward()
	f.input()
	f.output()
	f.translate("postrouting", nftables.ChainHookPostrouting)
	f.translate("localinput", nftables.ChainHookInput)
	return f, f.flush("set up the firewall")
}

func (f *firewall) close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.conn.DelTable(f.table)
	return f.flush("remove the firewall")
}

// forward is for traffic between containers, and between them and the outside.
func (f *firewall) forward() {
	c := f.base("forward", nftables.ChainHookForward)
	f.add(c, inSet(source, f.silenced), drop())
	f.add(c, inSet(destination, f.silenced), drop())
	f.add(c, jump(f.cuts))
	f.add(c, established(), accept())
	f.add(c, jump(f.rules))
	f.add(c, within(destination, containers), reject())
}

// input is for traffic to the cell itself, which has for containers the name
// server and, as a stand-in for the internet, the outside address.
func (f *firewall) input() {
	c := f.base("input", nftables.ChainHookInput)
	f.add(c, inSet(source, f.silenced), drop())
	f.add(c, established(), accept())
	for _, protocol := range []string{"udp", "tcp"} {
		f.add(c, within(source, containers), is(destination, nameServer), ports(protocol, destinationPort, 53, 53), accept())
	}
	f.add(c, within(source, containers), is(destination, outsideAddress), accept())
	f.add(c, within(source, containers), reject())
}

// output is for what the cell itself sends, as the router does.
func (f *firewall) output() {
	c := f.base("output", nftables.ChainHookOutput)
	f.add(c, inSet(destination, f.silenced), drop())
}

// translate lets containers appear outside under the cell's address.
func (f *firewall) translate(name string, hook *nftables.ChainHook) {
	c := f.conn.AddChain(&nftables.Chain{
		Name: name, Table: f.table, Type: nftables.ChainTypeNAT,
		Hooknum: hook, Priority: nftables.ChainPriorityNATSource,
	})
	f.add(c, within(source, containers), within(destination, outsideNet), []expr.Any{
		&expr.Immediate{Register: 1, Data: cellAddress.AsSlice()},
		&expr.NAT{Type: expr.NATTypeSourceNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: 1},
	})
}

// join makes an address one of an app's.
func (f *firewall) join(app string, address netip.Addr) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	set, err := f.appSet(app)
	if err != nil {
		return err
	}
	return f.change(f.conn.SetAddElements, set, address)
}

func (f *firewall) leave(app string, address netip.Addr) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	set, err := f.appSet(app)
	if err != nil {
		return err
	}
	return f.change(f.conn.SetDeleteElements, set, address)
}

func (f *firewall) silence(address netip.Addr) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.change(f.conn.SetAddElements, f.silenced, address)
}

func (f *firewall) unsilence(address netip.Addr) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.change(f.conn.SetDeleteElements, f.silenced, address)
}

// set replaces all rules at once: there is no moment without them.
func (f *firewall) set(all rules) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.conn.FlushChain(f.cuts)
	for _, a := range all.apart {
		app, err := f.appSet(a.app)
		if err != nil {
			return err
		}
		f.add(f.cuts, is(source, a.address), inSet(destination, app), drop())
		f.add(f.cuts, inSet(source, app), is(destination, a.address), drop())
	}
	for _, r := range all.cut {
		from, to, err := f.ends(r)
		if err != nil {
			return err
		}
		f.add(f.cuts, inSet(source, from), inSet(destination, to), ports(r.Protocol, destinationPort, r.Start, r.End), reject())
		f.add(f.cuts, inSet(source, to), inSet(destination, from), ports(r.Protocol, sourcePort, r.Start, r.End), reject())
	}
	f.conn.FlushChain(f.rules)
	for _, r := range all.allowed {
		from, to, err := f.ends(r)
		if err != nil {
			return err
		}
		f.add(f.rules, inSet(source, from), inSet(destination, to), ports(r.Protocol, destinationPort, r.Start, r.End), accept())
	}
	return f.flush("set the policies")
}

// ends are the addresses between which a policy is.
func (f *firewall) ends(r rule) (from, to *nftables.Set, err error) {
	if from, err = f.appSet(r.from); err != nil {
		return nil, nil, err
	}
	to, err = f.appSet(r.to)
	return from, to, err
}

// appSet makes the set if it is missing, so that a policy may come before its
// apps.
func (f *firewall) appSet(app string) (*nftables.Set, error) {
	if set := f.apps[app]; set != nil {
		return set, nil
	}
	set := &nftables.Set{Table: f.table, Name: fmt.Sprintf("app%d", len(f.apps)), KeyType: nftables.TypeIPAddr}
	if err := f.conn.AddSet(set, nil); err != nil {
		return nil, fmt.Errorf("failed to make a set for app %s: %w", app, err)
	}
	f.apps[app] = set
	return set, nil
}

func (f *firewall) change(how func(*nftables.Set, []nftables.SetElement) error, set *nftables.Set, address netip.Addr) error {
	if err := how(set, []nftables.SetElement{{Key: address.AsSlice()}}); err != nil {
		return err
	}
	return f.flush("change a set of addresses")
}

func (f *firewall) flush(doing string) error {
	if err := f.conn.Flush(); err != nil {
		return fmt.Errorf("failed to %s: %w", doing, err)
	}
	return nil
}

func (f *firewall) base(name string, hook *nftables.ChainHook) *nftables.Chain {
	return f.conn.AddChain(&nftables.Chain{
		Name: name, Table: f.table, Type: nftables.ChainTypeFilter,
		Hooknum: hook, Priority: nftables.ChainPriorityFilter,
	})
}

func (f *firewall) add(c *nftables.Chain, parts ...[]expr.Any) {
	var all []expr.Any
	for _, p := range parts {
		all = append(all, p...)
	}
	f.conn.AddRule(&nftables.Rule{Table: f.table, Chain: c, Exprs: all})
}

// Offsets of the addresses in an IPv4 header.
const (
	source      = 12
	destination = 16
)

func address(offset uint32) expr.Any {
	return &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4}
}

func inSet(offset uint32, s *nftables.Set) []expr.Any {
	return []expr.Any{address(offset), &expr.Lookup{SourceRegister: 1, SetName: s.Name, SetID: s.ID}}
}

func is(offset uint32, a netip.Addr) []expr.Any {
	return []expr.Any{address(offset), &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: a.AsSlice()}}
}

func within(offset uint32, p netip.Prefix) []expr.Any {
	mask := binary.BigEndian.AppendUint32(nil, ^uint32(0)<<(32-p.Bits()))
	return []expr.Any{
		address(offset),
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: mask, Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: p.Masked().Addr().AsSlice()},
	}
}

// Offsets of the ports in a TCP or UDP header.
const (
	sourcePort      = 0
	destinationPort = 2
)

func ports(protocol string, offset uint32, start, end int) []expr.Any {
	number := byte(unix.IPPROTO_TCP)
	if protocol == "udp" {
		number = unix.IPPROTO_UDP
	}
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{number}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: 2},
		&expr.Range{
			Op: expr.CmpOpEq, Register: 1,
			FromData: binary.BigEndian.AppendUint16(nil, uint16(start)),
			ToData:   binary.BigEndian.AppendUint16(nil, uint16(end)),
		},
	}
}

func established() []expr.Any {
	states := binary.NativeEndian.AppendUint32(nil, expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED)
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: states, Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
	}
}

func jump(to *nftables.Chain) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: to.Name}}
}

func accept() []expr.Any { return []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}} }

func drop() []expr.Any { return []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}} }

// reject answers "port unreachable", which a caller sees as a refused
// connection.
func reject() []expr.Any {
	return []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_ICMP_UNREACH, Code: 3}}
}
