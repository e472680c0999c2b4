package registry

import (
	"cmp"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/consul-mesh/mesh-buildpack/src/droplet"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/instance"
)

// findApp says where the app listens, and amends what staging took PORT for.
func findApp(i instance.Instance, r *Registration) {
	definition, sidecar := &r.definition, r.sidecar()
	if definition.SocketPath != "" {
		r.network, r.address = "unix", definition.SocketPath
		return
	}
	port := definition.Port
	if port == 0 {
		return
	}
	host := cmp.Or(sidecar.Proxy.LocalServiceAddress, "127.0.0.1")
	r.network, r.address = "tcp", net.JoinHostPort(host, strconv.Itoa(port))
	if !r.FollowsPort || i.Port == 0 || i.Port == port {
		return
	}
	staged := r.address
	r.address = net.JoinHostPort(host, strconv.Itoa(i.Port))
	definition.Port = i.Port
	for name, tagged := range definition.TaggedAddresses {
		if tagged.Port == port {
			tagged.Port = i.Port
			definition.TaggedAddresses[name] = tagged
		}
	}
	if expose := sidecar.Proxy.Expose; expose != nil {
		for n := range expose.Paths {
			if path := &expose.Paths[n]; path.LocalPathPort == port {
				path.LocalPathPort = i.Port
			}
		}
	}
	for _, checks := range [][]droplet.Check{definition.Checks, sidecar.Checks} {
		for n := range checks {
			check := &checks[n]
			for _, target := range []*string{&check.HTTP, &check.TCP, &check.UDP, &check.GRPC, &check.H2Ping} {
				*target = strings.Replace(*target, staged, r.address, 1)
			}
		}
	}
}

// isUDP says that an app is checked by UDP alone.
func isUDP(checks []droplet.Check) bool {
	udp := func(c droplet.Check) bool { return c.UDP != "" }
	tcp := func(c droplet.Check) bool { return c.HTTP+c.TCP+c.GRPC+c.H2Ping != "" }
	return slices.ContainsFunc(checks, udp) && !slices.ContainsFunc(checks, tcp)
}

// Holds says that the app, which has passed, keeps anybody else from a port on
// loopback, or needs none.
func (r *Registration) Holds(port string) bool {
	_, its, err := net.SplitHostPort(r.address)
	return r.network == "unix" || r.network == "tcp" && err == nil && its == port
}
