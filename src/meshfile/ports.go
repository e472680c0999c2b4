package meshfile

import (
	"fmt"
	"net"
	"reflect"
	"strconv"

	"github.com/hashicorp/hcl/v2"
)

// Ports that the sidecars of an instance use where the file says nothing else.
// The services of a file take consecutive ones.
const (
	// SidecarPort is the first public port of a sidecar, Consul's own default.
	SidecarPort = 21000

	// UpstreamPorts is where ports for upstreams without one of their own are
	// taken from: 1,000 ports below Linux's range for outgoing connections,
	// that neither Consul, Envoy nor Cloud Foundry uses.
	UpstreamPorts      = 20000
	upstreamPortsCount = 1000

	// AppPort is PORT in every container, unless the app's route says otherwise
	// (Cloud Foundry: developer guide, environment variables, PORT).
	AppPort = 8080

	// leastPort is the lowest that vcap may listen on, who runs everything in a
	// container (Linux, ip_unprivileged_port_start).
	leastPort = 1024
)

var (
	typeOfCheck    = reflect.TypeFor[Check]()
	typeOfService  = reflect.TypeFor[Service]()
	typeOfWeights  = reflect.TypeFor[Weights]()
	typeOfUpstream = reflect.TypeFor[Upstream]()
	typeOfConsul   = reflect.TypeFor[Consul]()
	typeOfEnvoy    = reflect.TypeFor[Envoy]()
	typeOfMetrics  = reflect.TypeFor[Metrics]()
)

// FollowsPort says that the service listens on the app's PORT.
func (s *Service) FollowsPort() bool {
	return s.Port == 0 && s.Process == webProcess && (s.Sidecar == nil || s.Sidecar.LocalSocketPath == "")
}

// HasPort says that the app listens for the service on a port.
func (s *Service) HasPort() bool { return s.Port != 0 || s.FollowsPort() }

// Listens says that the app listens for the service at all; a worker may only
// call others.
func (s *Service) Listens() bool {
	return s.HasPort() || s.Sidecar != nil && s.Sidecar.LocalSocketPath != ""
}

// Variable is the stem of the service's environment variable, such as
// MESH_SERVICE_MY_API.
func (s *Service) Variable() string { return variable("MESH_SERVICE_", s.Label) }

// Variable is the stem of the environment variables that name the upstream's
// local address, such as MESH_UPSTREAM_MY_API.
func (u *Upstream) Variable() string { return variable("MESH_UPSTREAM_", u.Name) }

// LocalAddress is where the app finds the upstream: a socket's path, or host
// and port.
func (u *Upstream) LocalAddress() string {
	if u.Socket != "" {
		return u.Socket
	}
	return net.JoinHostPort(u.Address.String(), strconv.Itoa(u.Port))
}

// AdminPort is the port of the admin API of the n-th service's Envoy.
func (m *Mesh) AdminPort(n int) int { return m.Envoy.AdminPort + n }

// MetricsPort is the port of the Prometheus listener of the n-th service's
// Envoy, 0 without one.
func (m *Mesh) MetricsPort(n int) int {
	if m.Envoy.Metrics == nil || !m.Envoy.Metrics.Prometheus.IsValid() {
		return 0
	}
	return int(m.Envoy.Metrics.Prometheus.Port()) + n
}

// platformPort names who uses a port in every container, if anyone does
// (Cloud Foundry: docs of cf ssh and of Diego's instance identity proxies).
func platformPort(port int) string {
	switch {
	case port == 2222:
		return "Cloud Foundry's ssh daemon"
	case port >= 61001 && port <= 61003, port == 61443:
		return "Cloud Foundry's own proxy"
	}
	return ""
}

// claims are the ports of one process's containers.
type claims map[int]claim

type claim struct {
	owner string
	at    hcl.Range // where the file gives the port, the zero range where it does not
}

// ports refuses ports that are used twice, or taken by the platform.
func (v *validator) ports(m *Mesh) {
	byProcess := map[string]claims{}
	for i, s := range m.Services {
		ports := byProcess[s.Process]
		if ports == nil {
			ports = claims{}
			byProcess[s.Process] = ports
			if s.Process == webProcess {
				ports[AppPort] = claim{owner: "the app's PORT"}
			}
			if !m.Agentless() {
				v.listen(ports, m.Consul.Ports.HTTP, "the Consul agent's HTTP API", givenAt(m.Consul.Ports.Body, "http"))
				v.listen(ports, m.Consul.Ports.GRPC, "the Consul agent's gRPC API", givenAt(m.Consul.Ports.Body, "grpc"))
				v.listen(ports, m.Consul.Ports.SerfLAN, "the Consul agent's gossip", givenAt(m.Consul.Ports.Body, "serf_lan"))
			}
		}
		if s.FollowsPort() {
			if other := ports[AppPort]; other.at.Filename != "" {
				v.fail(firstGiven(givenAt(s.Body, "port"), s.NameRange), "Port already taken", "The service %q listens on the app's PORT, as %s on line %d does. Give one of them another port.", s.Label, other.owner, other.at.Start.Line)
			}
			ports[AppPort] = claim{fmt.Sprintf("the service %q", s.Label), s.NameRange}
		}
		if s.Port > 0 && s.Port < leastPort {
			v.warn(givenAt(s.Body, "port"), belowLeast, "The app runs as vcap, who may listen on nothing below %d: %d of the service %q cannot be where it listens.", leastPort, s.Port, s.Label)
		}
		v.claim(ports, s.Port, fmt.Sprintf("the service %q", s.Label), givenAt(s.Body, "port"))
		v.listen(ports, s.Sidecar.Port, fmt.Sprintf("the sidecar of %q", s.Label), givenAt(s.Sidecar.Body, "port"))
		v.listen(ports, m.AdminPort(i), fmt.Sprintf("the admin API of the Envoy of %q", s.Label), givenAt(m.Envoy.Body, "admin_port"))
		if m.Envoy.Metrics != nil {
			v.listen(ports, m.MetricsPort(i), fmt.Sprintf("the metrics of the Envoy of %q", s.Label), givenAt(m.Envoy.Metrics.Body, "prometheus"))
		}
		for _, p := range m.configPorts(s) {
			v.listen(ports, p.port, fmt.Sprintf("%s of %q", p.key, s.Label), p.at)
		}
		if s.Sidecar.Expose != nil {
			for _, path := range s.Sidecar.Expose.Paths {
				v.listen(ports, path.ListenerPort, fmt.Sprintf("the exposed path %s", path.Path), givenAt(path.Body, "listener_port"))
			}
		}
	}
	sockets := map[string]claim{} // by process and path
	socket := func(process, path, owner string, at hcl.Range) {
		other, taken := sockets[process+path]
		switch {
		case path == "":
		case taken:
			v.fail(at, "Socket already taken", "%s of %s is that of %s on line %d. Choose another one.", path, owner, other.owner, other.at.Start.Line)
		default:
			sockets[process+path] = claim{owner, at}
		}
	}
	for _, s := range m.Services {
		socket(s.Process, s.Sidecar.LocalSocketPath, fmt.Sprintf("the service %q", s.Label), givenAt(s.Sidecar.Body, "local_service_socket_path"))
	}
	for _, s := range m.Services {
		for _, u := range s.Upstreams {
			socket(s.Process, u.Socket, fmt.Sprintf("the upstream %q", u.Name), givenAt(u.Body, "socket"))
			v.listen(byProcess[s.Process], u.Port, fmt.Sprintf("the upstream %q", u.Name), firstGiven(givenAt(u.Body, "port"), u.NameRange))
		}
	}
}

// givenAt is where the file gives an attribute, the zero range where it does not.
func givenAt(body hcl.Body, name string) hcl.Range {
	if attribute := attributeOf(body, name); attribute != nil {
		return attribute.Expr.Range()
	}
	return hcl.Range{}
}

// firstGiven is the first range that is one.
func firstGiven(ranges ...hcl.Range) hcl.Range {
	for _, r := range ranges {
		if r.Filename != "" {
			return r
		}
	}
	return hcl.Range{}
}

const belowLeast = "Port below 1024"

// listen is claim for a port that a program of the buildpack listens on.
func (v *validator) listen(ports claims, port int, owner string, at hcl.Range) {
	if port > 0 && port < leastPort {
		v.fail(firstGiven(at, v.whole), belowLeast, "Everything in a container runs as vcap, who may listen on nothing below %d: not on %d for %s. Choose another one.", leastPort, port, owner)
		return
	}
	v.claim(ports, port, owner, at)
}

// claim takes a port for an owner. at is where the file gives the port, the zero
// range where the port is a default.
func (v *validator) claim(ports claims, port int, owner string, at hcl.Range) {
	if port == 0 {
		return
	}
	other, taken := ports[port]
	where := ""
	if at.Filename != "" && other.at.Filename != "" {
		where = fmt.Sprintf(" on line %d", other.at.Start.Line)
		if other.at.Filename != at.Filename {
			where += " of " + other.at.Filename
		}
	}
	switch platform := platformPort(port); {
	case port > 65535:
		v.fail(firstGiven(at, v.whole), "Port out of range", "Port %d of %s is above 65535. Start lower.", port, owner)
	case platform != "":
		v.fail(firstGiven(at, v.whole), "Port already taken", "Port %d belongs to %s in every container. Choose another one.", port, platform)
	case taken:
		v.fail(firstGiven(at, other.at, v.whole), "Port already taken", "Port %d of %s is taken by %s%s. Choose another one.", port, owner, other.owner, where)
	default:
		ports[port] = claim{owner, at}
	}
}

// HasAgentConfig says that the file adds to the agent's configuration.
func (m *Mesh) HasAgentConfig() bool { return len(m.Consul.Config) > 0 }
