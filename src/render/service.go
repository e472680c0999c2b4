package render

import (
	"maps"
	"net/netip"
	"time"

	"github.com/consul-mesh/mesh-buildpack/src/droplet"
	"github.com/consul-mesh/mesh-buildpack/src/meshfile"
)

const loopback = "127.0.0.1"

// readyTTL is how long Consul believes the last sign of life of a sidecar. The
// runtime says at once when Envoy fails; this is for when it cannot.
const readyTTL = 10 * time.Second

func serviceDefinitions(mesh *meshfile.Mesh) droplet.Definitions {
	var all droplet.Definitions
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
func serviceDefinition(mesh *meshfile.Mesh, n int) droplet.Definition {
	s := mesh.Services[n]
	port := appPort(s)
	definition := droplet.Definition{Endpoint: droplet.Endpoint{
		ID: s.ID, Name: s.Name, Address: s.Address, Port: port, Tags: s.Tags, Meta: s.Meta,
		EnableTagOverride: s.EnableTagOverride, Weights: renderWeights(s.Weights),
	}}
	if s.Sidecar.LocalSocketPath != "" {
		definition.Port, definition.SocketPath = 0, s.Sidecar.LocalSocketPath
	}
	for _, a := range s.TaggedAddresses {
		if definition.TaggedAddresses == nil {
			definition.TaggedAddresses = map[string]droplet.TaggedAddress{}
		}
		tagged := droplet.TaggedAddress{Address: a.Address, Port: a.Port}
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

func renderSidecar(mesh *meshfile.Mesh, n int) droplet.Sidecar {
	s := mesh.Services[n]
	rendered := droplet.Sidecar{
		Endpoint: droplet.Endpoint{
			Port: s.Sidecar.Port,
			// Callers in the mesh go by the sidecar's, which gets none of the
			// service's by itself.
			Weights: renderWeights(s.Weights),
			// Without checks of its own a sidecar gets Consul's default, a TCP
			// check that starts critical and runs every 10 s.
			Checks: ownChecks(mesh, s),
		},
		Proxy: droplet.Proxy{
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
		rendered.Proxy.Expose = &droplet.Expose{Checks: e.Checks}
		for _, p := range e.Paths {
			path := droplet.ExposePath{Path: p.Path, ListenerPort: p.ListenerPort, LocalPathPort: p.LocalPort, Protocol: p.Protocol}
			if path.LocalPathPort == 0 {
				path.LocalPathPort = appPort(s)
			}
			rendered.Proxy.Expose.Paths = append(rendered.Proxy.Expose.Paths, path)
		}
	}
	if l := s.Sidecar.AccessLogs; l != nil {
		rendered.Proxy.AccessLogs = &droplet.AccessLogs{
			Enabled: l.Enabled, DisableListenerLogs: l.DisableListenerLogs, Type: l.Type, Path: l.Path,
			JSONFormat: l.JSONFormat, TextFormat: l.TextFormat,
		}
	}
	for _, u := range s.Upstreams {
		rendered.Proxy.Upstreams = append(rendered.Proxy.Upstreams, renderUpstream(u))
	}
	return rendered
}

// ownChecks are those that every sidecar has.
func ownChecks(mesh *meshfile.Mesh, s *meshfile.Service) []droplet.Check {
	ready := droplet.Check{CheckID: droplet.ReadyCheckID(s.ID), Name: "App and Envoy are ready", TTL: droplet.Duration{Duration: readyTTL}}
	if mesh.AsTask != nil {
		ready.Name = "Nobody calls a task"
		return []droplet.Check{ready}
	}
	return []droplet.Check{ready, {CheckID: droplet.AliasCheckID(s.ID), Name: "Checks of " + s.Name, AliasService: s.ID}}
}

func renderWeights(w *meshfile.Weights) *droplet.Weights {
	if w == nil {
		return nil
	}
	return &droplet.Weights{Passing: w.Passing, Warning: w.Warning}
}

func renderGateway(mode string) *droplet.MeshGateway {
	if mode == "" {
		return nil
	}
	return &droplet.MeshGateway{Mode: mode}
}

// addressText is an address as Consul reads it, empty where the file gives none.
func addressText(address netip.Addr) string {
	if !address.IsValid() {
		return ""
	}
	return address.String()
}

// asWithoutMesh lets through what an app without a mesh gets: Envoy's own limits are a
// request of 15 s and headers of 60 KB. The platform's router has none for the one, and
// 1 MB for the other (gorouter, max_request_header_bytes).
var asWithoutMesh = map[string]any{"local_request_timeout_ms": 0, "max_request_headers_kb": 1024}

// proxyConfig is the opaque configuration of the n-th service's sidecar.
func proxyConfig(mesh *meshfile.Mesh, n int) map[string]any {
	s := mesh.Services[n]
	config := map[string]any{}
	maps.Copy(config, s.Sidecar.Config)
	maps.Copy(config, mesh.Envoy.Bootstrap)
	if s.Protocol != meshfile.DefaultProtocol {
		config["protocol"] = s.Protocol
	}
	for key, value := range asWithoutMesh {
		if config[key] == nil {
			config[key] = value
		}
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

func renderUpstream(u *meshfile.Upstream) droplet.Upstream {
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
	rendered := droplet.Upstream{
		DestinationName: u.Service, DestinationNamespace: u.Namespace, DestinationPartition: u.Partition,
		DestinationPeer: u.Peer, Datacenter: u.Datacenter, MeshGateway: renderGateway(u.MeshGateway), Config: config,
		LocalBindSocketPath: u.Socket, LocalBindSocketMode: u.SocketMode,
	}
	if u.PreparedQuery != "" {
		rendered.DestinationType, rendered.DestinationName = droplet.PreparedQuery, u.PreparedQuery
	}
	if u.Socket == "" {
		rendered.LocalBindAddress, rendered.LocalBindPort = u.Address.String(), u.Port
	}
	return rendered
}
