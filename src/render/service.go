package render

import (
	"maps"
	"net/netip"

	"github.com/consul-mesh/mesh-buildpack/src/droplet"
	"github.com/consul-mesh/mesh-buildpack/src/meshfile"
)

// The types below are Consul's service definition as it is read from disk
// (Consul: service configuration reference, proxy configuration reference).

type services struct {
	Services []service `json:"services"`
}

type service struct {
	ID                string                   `json:"id"`
	Name              string                   `json:"name"`
	Address           string                   `json:"address,omitempty"`
	Port              int                      `json:"port,omitempty"`
	SocketPath        string                   `json:"socket_path,omitempty"`
	Tags              []string                 `json:"tags,omitempty"`
	Meta              map[string]string        `json:"meta,omitempty"`
	EnableTagOverride bool                     `json:"enable_tag_override,omitempty"`
	Weights           *weights                 `json:"weights,omitempty"`
	TaggedAddresses   map[string]taggedAddress `json:"tagged_addresses,omitempty"`
	Checks            []check                  `json:"checks,omitempty"`
	Connect           connect                  `json:"connect"`
}

type weights struct {
	Passing int `json:"passing"`
	Warning int `json:"warning"`
}

type taggedAddress struct {
	Address string `json:"address"`
	Port    int    `json:"port"`
}

type connect struct {
	SidecarService sidecar `json:"sidecar_service"`
}

type sidecar struct {
	Port    int      `json:"port"`
	Weights *weights `json:"weights,omitempty"`
	Checks  []check  `json:"checks"`
	Proxy   proxy    `json:"proxy"`
}

type proxy struct {
	LocalServiceAddress    string         `json:"local_service_address,omitempty"`
	LocalServiceSocketPath string         `json:"local_service_socket_path,omitempty"`
	Config                 map[string]any `json:"config,omitempty"`
	MeshGateway            *gateway       `json:"mesh_gateway,omitempty"`
	Expose                 *expose        `json:"expose,omitempty"`
	AccessLogs             *accessLogs    `json:"access_logs,omitempty"`
	Upstreams              []upstream     `json:"upstreams,omitempty"`
}

type gateway struct {
	Mode string `json:"mode"`
}

type expose struct {
	Checks bool         `json:"checks,omitempty"`
	Paths  []exposePath `json:"paths,omitempty"`
}

type exposePath struct {
	Path          string `json:"path"`
	ListenerPort  int    `json:"listener_port"`
	LocalPathPort int    `json:"local_path_port"`
	Protocol      string `json:"protocol"`
}

type accessLogs struct {
	Enabled             bool   `json:"enabled"`
	DisableListenerLogs bool   `json:"disable_listener_logs,omitempty"`
	Type                string `json:"type,omitempty"`
	Path                string `json:"path,omitempty"`
	JSONFormat          string `json:"json_format,omitempty"`
	TextFormat          string `json:"text_format,omitempty"`
}

type upstream struct {
	DestinationType      string         `json:"destination_type,omitempty"`
	DestinationName      string         `json:"destination_name"`
	DestinationNamespace string         `json:"destination_namespace,omitempty"`
	DestinationPartition string         `json:"destination_partition,omitempty"`
	DestinationPeer      string         `json:"destination_peer,omitempty"`
	Datacenter           string         `json:"datacenter,omitempty"`
	LocalBindAddress     string         `json:"local_bind_address,omitempty"`
	LocalBindPort        int            `json:"local_bind_port,omitempty"`
	LocalBindSocketPath  string         `json:"local_bind_socket_path,omitempty"`
	LocalBindSocketMode  string         `json:"local_bind_socket_mode,omitempty"`
	MeshGateway          *gateway       `json:"mesh_gateway,omitempty"`
	Config               map[string]any `json:"config,omitempty"`
}

const loopback = "127.0.0.1"

// readyTTL is how long Consul believes the last sign of life of a sidecar. The
// runtime says at once when Envoy fails; this is for when it cannot.
const readyTTL = "10s"

func serviceDefinitions(mesh *meshfile.Mesh) services {
	var all services
	for i := range mesh.Services {
		all.Services = append(all.Services, serviceDefinition(mesh, i))
	}
	return all
}

// appPort is the app's port as far as staging knows it, zero where nothing
// listens.
func appPort(s *meshfile.Service) int {
	if s.FollowsPort() {
		return meshfile.AppPort
	}
	return s.Port
}

// serviceDefinition renders the n-th service of the file.
func serviceDefinition(mesh *meshfile.Mesh, n int) service {
	s := mesh.Services[n]
	port := appPort(s)
	definition := service{
		ID: s.ID, Name: s.Name, Address: s.Address, Port: port, Tags: s.Tags, Meta: s.Meta,
		EnableTagOverride: s.EnableTagOverride,
	}
	if s.Sidecar.LocalSocketPath != "" {
		definition.Port, definition.SocketPath = 0, s.Sidecar.LocalSocketPath
	}
	definition.Weights = renderWeights(s.Weights)
	for _, a := range s.TaggedAddresses {
		if definition.TaggedAddresses == nil {
			definition.TaggedAddresses = map[string]taggedAddress{}
		}
		tagged := taggedAddress{a.Address, a.Port}
		if tagged.Port == 0 {
			tagged.Port = port
		}
		definition.TaggedAddresses[a.Name] = tagged
	}
	for _, c := range s.Checks {
		definition.Checks = append(definition.Checks, renderCheck(mesh, s, s.ID+":"+c.Name, c))
	}
	definition.Connect.SidecarService = renderSidecar(mesh, n)
	return definition
}

func renderSidecar(mesh *meshfile.Mesh, n int) sidecar {
	s := mesh.Services[n]
	rendered := sidecar{
		Port: s.Sidecar.Port,
		// Callers in the mesh go by the sidecar's, which gets none of the
		// service's by itself.
		Weights: renderWeights(s.Weights),
		// Without checks of its own a sidecar gets Consul's default, a TCP
		// check that starts critical and runs every 10 s.
		Checks: []check{
			{ID: droplet.ReadyCheckID(s.ID), Name: "App and Envoy are ready", TTL: readyTTL},
			{ID: droplet.AliasCheckID(s.ID), Name: "Checks of " + s.Name, AliasService: s.ID},
		},
		Proxy: proxy{
			LocalServiceAddress:    addressText(s.Sidecar.LocalAddress),
			LocalServiceSocketPath: s.Sidecar.LocalSocketPath,
			Config:                 proxyConfig(mesh, n),
			MeshGateway:            renderGateway(s.Sidecar.MeshGateway),
		},
	}
	for _, c := range s.Sidecar.Checks {
		rendered.Checks = append(rendered.Checks, renderCheck(mesh, s, droplet.SidecarID(s.ID)+":"+c.Name, c))
	}
	if e := s.Sidecar.Expose; e != nil {
		rendered.Proxy.Expose = &expose{Checks: e.Checks}
		for _, p := range e.Paths {
			path := exposePath{p.Path, p.ListenerPort, p.LocalPort, p.Protocol}
			if path.LocalPathPort == 0 {
				path.LocalPathPort = appPort(s)
			}
			rendered.Proxy.Expose.Paths = append(rendered.Proxy.Expose.Paths, path)
		}
	}
	if l := s.Sidecar.AccessLogs; l != nil {
		rendered.Proxy.AccessLogs = &accessLogs{l.Enabled, l.DisableListenerLogs, l.Type, l.Path, l.JSONFormat, l.TextFormat}
	}
	for _, u := range s.Upstreams {
		rendered.Proxy.Upstreams = append(rendered.Proxy.Upstreams, renderUpstream(u))
	}
	return rendered
}

func renderWeights(w *meshfile.Weights) *weights {
	if w == nil {
		return nil
	}
	return &weights{w.Passing, w.Warning}
}

func renderGateway(mode string) *gateway {
	if mode == "" {
		return nil
	}
	return &gateway{mode}
}

// addressText is an address as Consul reads it, empty where the file gives none.
func addressText(address netip.Addr) string {
	if !address.IsValid() {
		return ""
	}
	return address.String()
}

// proxyConfig is the opaque configuration of the n-th service's sidecar.
func proxyConfig(mesh *meshfile.Mesh, n int) map[string]any {
	s := mesh.Services[n]
	config := map[string]any{}
	maps.Copy(config, s.Sidecar.Config)
	maps.Copy(config, mesh.Envoy.Bootstrap)
	if s.Protocol != meshfile.DefaultProtocol {
		config["protocol"] = s.Protocol
	}
	set := func(key, value string) {
		if value != "" {
			config[key] = value
		}
	}
	set("envoy_tracing_json", mesh.Envoy.Tracing)
	if m := mesh.Envoy.Metrics; m != nil {
		set("envoy_statsd_url", m.Statsd)
		set("envoy_dogstatsd_url", m.Dogstatsd)
		if first := m.Prometheus; first.IsValid() {
			// Two sidecars cannot share a listener.
			config["envoy_prometheus_bind_addr"] = netip.AddrPortFrom(first.Addr(), uint16(mesh.MetricsPort(n))).String()
		}
	}
	return config
}

func renderUpstream(u *meshfile.Upstream) upstream {
	config := map[string]any{}
	maps.Copy(config, u.Config)
	if u.Protocol != "" {
		config["protocol"] = u.Protocol
	}
	if u.Timeout.Duration > 0 {
		config["connect_timeout_ms"] = u.Timeout.Milliseconds()
	}
	if u.Balance != "" && u.Balance != "none" {
		config["balance_outbound_connections"] = u.Balance
	}
	if l := u.Limits; l != nil {
		limits := map[string]int{}
		for key, value := range map[string]int{
			"max_connections": l.MaxConnections, "max_pending_requests": l.MaxPendingRequests,
			"max_concurrent_requests": l.MaxConcurrentRequests,
		} {
			if value > 0 {
				limits[key] = value
			}
		}
		config["limits"] = limits
	}
	// What config says of it is kept; both in one file are refused.
	if p := u.PassiveHealthCheck; p.MaxFailures > 0 && config["passive_health_check"] == nil {
		config["passive_health_check"] = map[string]any{
			"interval": p.Interval.String(), "max_failures": p.MaxFailures, "base_ejection_time": p.BaseEjectionTime.String(),
			"enforcing_consecutive_5xx": p.EnforcingConsecutive5xx, "max_ejection_percent": p.MaxEjectionPercent,
		}
	}
	rendered := upstream{
		DestinationName: u.Service, DestinationNamespace: u.Namespace, DestinationPartition: u.Partition,
		DestinationPeer: u.Peer, Datacenter: u.Datacenter, MeshGateway: renderGateway(u.MeshGateway), Config: config,
		LocalBindSocketPath: u.Socket, LocalBindSocketMode: u.SocketMode,
	}
	if u.PreparedQuery != "" {
		rendered.DestinationType, rendered.DestinationName = "prepared_query", u.PreparedQuery
	}
	if u.Socket == "" {
		rendered.LocalBindAddress, rendered.LocalBindPort = u.Address.String(), u.Port
	}
	return rendered
}
