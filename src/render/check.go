package render

import (
	"cmp"
	"net"
	"strconv"
	"strings"

	"github.com/consul-mesh/mesh-buildpack/src/meshfile"
)

// check is a health check as Consul reads it from disk (Consul: health check
// configuration reference).
type check struct {
	ID                     string              `json:"id"`
	Name                   string              `json:"name"`
	HTTP                   string              `json:"http,omitempty"`
	TCP                    string              `json:"tcp,omitempty"`
	TCPUseTLS              bool                `json:"tcp_use_tls,omitempty"`
	UDP                    string              `json:"udp,omitempty"`
	GRPC                   string              `json:"grpc,omitempty"`
	GRPCUseTLS             bool                `json:"grpc_use_tls,omitempty"`
	H2Ping                 string              `json:"h2ping,omitempty"`
	H2PingUseTLS           *bool               `json:"h2ping_use_tls,omitempty"` // Consul's own default is true
	TTL                    string              `json:"ttl,omitempty"`
	AliasService           string              `json:"alias_service,omitempty"`
	Interval               string              `json:"interval,omitempty"`
	Timeout                string              `json:"timeout,omitempty"`
	Method                 string              `json:"method,omitempty"`
	Header                 map[string][]string `json:"header,omitempty"`
	Body                   string              `json:"body,omitempty"`
	DisableRedirects       bool                `json:"disable_redirects,omitempty"`
	TLSServerName          string              `json:"tls_server_name,omitempty"`
	TLSSkipVerify          bool                `json:"tls_skip_verify,omitempty"`
	SuccessBeforePassing   int                 `json:"success_before_passing,omitempty"`
	FailuresBeforeWarning  int                 `json:"failures_before_warning,omitempty"`
	FailuresBeforeCritical int                 `json:"failures_before_critical,omitempty"`
	DeregisterAfter        string              `json:"deregister_critical_service_after,omitempty"`
	Status                 string              `json:"status,omitempty"`
	Notes                  string              `json:"notes,omitempty"`
}

// renderCheck renders a check of a service or of its sidecar.
func renderCheck(mesh *meshfile.Mesh, s *meshfile.Service, id string, c *meshfile.Check) check {
	host := cmp.Or(addressText(s.Sidecar.LocalAddress), loopback)
	address := net.JoinHostPort(host, strconv.Itoa(appPort(s)))
	rendered := check{
		ID: id, Name: c.Name, Method: c.Method, Header: c.Headers, Body: c.RequestBody,
		DisableRedirects: c.DisableRedirects, TLSServerName: c.TLSServerName, TLSSkipVerify: c.TLSSkipVerify,
		SuccessBeforePassing: c.SuccessBeforePassing, FailuresBeforeWarning: c.FailuresBeforeWarning,
		FailuresBeforeCritical: c.FailuresBeforeCritical, DeregisterAfter: c.DeregisterAfter.String(),
		Status: c.Status, Notes: c.Notes,
	}
	if c.TTL == nil && c.Alias == nil {
		rendered.Interval, rendered.Timeout = c.Interval.String(), c.Timeout.String()
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
		rendered.TTL = c.TTL.String()
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
