package cell

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// The addresses of a cell and its surroundings.
var (
	containers     = netip.MustParsePrefix("10.255.0.0/16")
	gateway        = netip.MustParseAddr("169.254.0.1") // the cell, to its containers
	nameServer     = netip.MustParseAddr("169.254.0.2")
	outsideNet     = netip.MustParsePrefix("198.51.100.0/24")
	outsideAddress = netip.MustParseAddr("198.51.100.1")
	cellAddress    = netip.MustParseAddr("198.51.100.2") // containers, to the outside
	firstHost      = netip.MustParseAddr("198.51.100.10")
)

// outsideBridge is the device that joins the hosts of the outside network.
const outsideBridge = "outside"

// noIPv6 is IN6_ADDR_GEN_MODE_NONE of linux/if_link.h.
const noIPv6 = 1

// network gives addresses and wires to containers.
type network struct {
	firewall *firewall

	mu    sync.Mutex
	used  map[netip.Addr]bool // guarded by mu
	wires int                 // guarded by mu: devices made so far
}

func newNetwork() (*network, error) {
	if err := nameServerAddress(netlink.AddrAdd); err != nil {
		return nil, fmt.Errorf("failed to add the name server's address: %w", err)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = outsideBridge
	bridge := &netlink.Bridge{LinkAttrs: attrs}
	if err := netlink.LinkAdd(bridge); err != nil {
		return nil, fmt.Errorf("failed to make the outside network: %w", err)
	}
	for _, a := range []netip.Addr{outsideAddress, cellAddress} {
		if err := netlink.AddrAdd(bridge, &netlink.Addr{IPNet: ipNet(a, outsideNet.Bits())}); err != nil {
			return nil, fmt.Errorf("failed to add %s: %w", a, err)
		}
	}
	if err := netlink.LinkSetUp(bridge); err != nil {
		return nil, fmt.Errorf("failed to bring the outside network up: %w", err)
	}
	f, err := newFirewall()
	if err != nil {
		return nil, err
	}
	return &network{firewall: f, used: map[netip.Addr]bool{}}, nil
}

func (n *network) close() error {
	errs := []error{n.firewall.close(), nameServerAddress(netlink.AddrDel)}
	if bridge, err := netlink.LinkByName(outsideBridge); err == nil {
		errs = append(errs, netlink.LinkDel(bridge))
	}
	return errors.Join(errs...)
}

func nameServerAddress(how func(netlink.Link, *netlink.Addr) error) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	return how(lo, &netlink.Addr{IPNet: ipNet(nameServer, 32)})
}

// acquire takes the lowest free address from first on. One that was released is
// used again at once, as on a small platform.
func (n *network) acquire(first netip.Addr, within netip.Prefix) (netip.Addr, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for a := first; within.Contains(a); a = a.Next() {
		if !n.used[a] {
			n.used[a] = true
			return a, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("no address is free in %s", within)
}

func (n *network) release(a netip.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.used, a)
}

// wire is a pair of devices: one here, one named eth0 in a container.
type wire struct{ here netlink.Link }

// connect wires a container as an instance: alone with the cell.
func (n *network) connect(pid int, a netip.Addr) (wire, error) {
	w, err := n.wire(pid)
	if err != nil {
		return w, err
	}
	local := &netlink.Addr{IPNet: ipNet(gateway, 32), Peer: ipNet(a, 32)}
	remote := &netlink.Addr{IPNet: ipNet(a, 32), Peer: ipNet(gateway, 32)}
	if err := netlink.AddrAdd(w.here, local); err != nil {
		return w, fmt.Errorf("failed to route to %s: %w", a, err)
	}
	return w, w.up(pid, remote, gateway)
}

// connectOutside wires a container as a host of the outside network.
func (n *network) connectOutside(pid int, a netip.Addr) (wire, error) {
	w, err := n.wire(pid)
	if err != nil {
		return w, err
	}
	bridge, err := netlink.LinkByName(outsideBridge)
	if err != nil {
		return w, err
	}
	if err := netlink.LinkSetMaster(w.here, bridge); err != nil {
		return w, err
	}
	return w, w.up(pid, &netlink.Addr{IPNet: ipNet(a, outsideNet.Bits())}, outsideAddress)
}

func (n *network) wire(pid int) (wire, error) {
	n.mu.Lock()
	n.wires++
	name := fmt.Sprintf("c%d", n.wires)
	n.mu.Unlock()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	veth := netlink.NewVeth(attrs)
	veth.PeerName = "eth0"
	veth.PeerNamespace = netlink.NsPid(pid)
	if err := netlink.LinkAdd(veth); err != nil {
		return wire{}, fmt.Errorf("failed to make device %s: %w", name, err)
	}
	here, err := netlink.LinkByName(name)
	if err != nil {
		return wire{}, err
	}
	return wire{here}, nil
}

// up finishes both ends.
func (w wire) up(pid int, remote *netlink.Addr, via netip.Addr) error {
	ns, err := netns.GetFromPid(pid)
	if err != nil {
		return err
	}
	defer ns.Close()
	there, err := netlink.NewHandleAt(ns)
	if err != nil {
		return err
	}
	defer there.Close()
	eth0, err := there.LinkByName("eth0")
	if err != nil {
		return err
	}
	// The platform's containers have no IPv6.
	if err := netlink.LinkSetIP6AddrGenMode(w.here, noIPv6); err != nil {
		return err
	}
	if err := there.LinkSetIP6AddrGenMode(eth0, noIPv6); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(w.here); err != nil {
		return err
	}
	if err := there.AddrAdd(eth0, remote); err != nil {
		return err
	}
	if err := there.LinkSetUp(eth0); err != nil {
		return err
	}
	return there.RouteAdd(&netlink.Route{LinkIndex: eth0.Attrs().Index, Gw: via.AsSlice()})
}

// cut takes the wire away, also if the container has gone already: the kernel
// would do so too, but later, and the address is to be used again.
func (w wire) cut() error {
	if w.here == nil {
		return nil
	}
	err := netlink.LinkDel(w.here)
	var missing netlink.LinkNotFoundError
	if errors.As(err, &missing) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

func ipNet(a netip.Addr, bits int) *net.IPNet {
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(bits, 32)}
}
