package cell

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Lose ends an instance as when its cell loses its power: at once, with no word to
// anybody, and nothing answers at its address any more. For so long the address is
// that of nobody else, and apps.internal goes on naming it if it has been routable;
// on the platform that is up to 180 s. Another instance is started at once, and
// this does not count as a crash.
func (c *Cell) Lose(i *Instance, listed time.Duration) error {
	wasRoutable := i.Routable()
	if _, err := c.Silence(i); err != nil {
		return fmt.Errorf("failed to lose the cell of instance %s: %w", i.guid, err)
	}
	if err := netlink.RouteAdd(blackhole(i.address)); err != nil {
		return fmt.Errorf("failed to lose the cell of instance %s: %w", i.guid, err)
	}
	i.Guest.mu.Lock()
	i.lost, i.lingers = true, listed
	i.Guest.mu.Unlock()
	if wasRoutable {
		i.run.list(i, listed)
	}
	i.Kill()
	return nil
}

// blackhole swallows what is sent to an address that has no wire any more.
func blackhole(a netip.Addr) *netlink.Route {
	return &netlink.Route{Dst: ipNet(a, 32), Type: unix.RTN_BLACKHOLE, Priority: 1000}
}

func (i *Instance) isLost() bool {
	i.Guest.mu.Lock()
	defer i.Guest.mu.Unlock()
	return i.lost
}

// list has apps.internal name an instance for a while.
func (r *RunningApp) list(i *Instance, listed time.Duration) {
	r.mu.Lock()
	r.lost = append(r.lost, i)
	r.mu.Unlock()
	r.cell.loops.Go(func() {
		r.cell.sleep(listed)
		r.mu.Lock()
		defer r.mu.Unlock()
		r.lost = slices.DeleteFunc(r.lost, func(other *Instance) bool { return other == i })
	})
}

// listed are the instances that only apps.internal does not know to be gone.
func (r *RunningApp) listed() []*Instance {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(r.lost), (*Instance).Routable)
}

func (c *Cell) sleep(d time.Duration) {
	select {
	case <-time.After(d):
	case <-c.closing:
	}
}
