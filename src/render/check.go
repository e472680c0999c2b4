package render

import (
	"cmp"
	"net"
	"strconv"
	"strings"

	"github.com/consul-mesh/mesh-buildpack/src/droplet"
	"github.com/consul-mesh/mesh-buildpack/src/meshfile"
)

// renderCheck renders a check of a service or of its sidecar.
func renderCheck(mesh *meshfile.Mesh, s *meshfile.Service, id string, c *meshfile.Check) droplet.Check {
	host := cmp.Or(addressText(s.Sidecar.LocalAddress), loopback)
	address := net.JoinHostPort(host, strconv.Itoa(appPort(s)))
	rendered := droplet.Check{
		CheckID: id, Name: c.Name, Method: c.Method, Header: c.Headers, Body: c.RequestBody,
		DisableRedirects: c.DisableRedirects, TLSServerName: c.TLSServerName, TLSSkipVerify: c.TLSSkipVerify,
		SuccessBeforePassing: c.SuccessBeforePassing, FailuresBeforeWarning: c.FailuresBeforeWarning,
		FailuresBeforeCritical: c.FailuresBeforeCritical, DeregisterCriticalServiceAfter: c.DeregisterAfter,
		Status: c.Status, Notes: c.Notes,
	}
	if c.TTL == nil && c.Alias == nil {
		rendered.Interval, rendered.Timeout = c.Interval, c.Timeout
	}
	switch {
	case c.HTTP != nil && !strings.HasPrefix(*c.HTTP, "/"):
		rendered.HTTP = *c.HTTP
	case c.HTTP != nil && c.TLS:
		rendered.HTTP = "https://" + address + *c.HTTP
	case c.HTTP != nil:
		rendered.HTTP = "http://" + address + *c.HTTP
	case c.TCP != nil && *c.TCP:
		rendered.TCP, rendered.TCPUseTLS = address, c.TLS
	case c.UDP != nil && *c.UDP:
		rendered.UDP = address
	case c.H2Ping != nil && *c.H2Ping:
		rendered.H2Ping, rendered.H2PingUseTLS = address, &c.TLS
	case c.GRPC != nil:
		rendered.GRPC, rendered.GRPCUseTLS = address, c.TLS
		if *c.GRPC != "" {
			rendered.GRPC += "/" + *c.GRPC
		}
	case c.TTL != nil:
		rendered.TTL = *c.TTL
	case c.Alias != nil:
		rendered.AliasService = *c.Alias
		for _, other := range mesh.Services {
			if other.Label == *c.Alias {
				rendered.AliasService = other.ID
			}
		}
	}
	return rendered
}
