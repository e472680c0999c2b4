package meshfile

import (
	"fmt"
	"hash/fnv"
)

// Ports that the sidecars of an instance use, all of them on loopback but
// SidecarPort. The services of an app take consecutive ports in the order of
// the file.
const (
	SidecarPort = 21000 // the first public port of a sidecar, Consul's own default
	AdminPort   = 19000 // the first admin port of an Envoy, Consul's own default

	// UpstreamPorts is where ports for upstreams without one of their own are
	// taken from: 1,000 ports below Linux's range for outgoing connections,
	// that neither Consul, Envoy nor Cloud Foundry uses.
	UpstreamPorts      = 20000
	upstreamPortsCount = 1000
)

// portOwner names who uses a port in every container, if anyone does
// (Cloud Foundry: docs of cf ssh and of Diego's instance identity proxies;
// Consul: docs/install/ports).
func portOwner(port int) string {
	switch {
	case port == 2222:
		return "Cloud Foundry's ssh daemon"
	case port >= 61001 && port <= 61003, port == 61443:
		return "Cloud Foundry's own proxy"
	case port >= 8300 && port <= 8302:
		return "the Consul agent's gossip and RPC"
	case port == 8500:
		return "the Consul agent's HTTP API"
	case port == 8502, port == 8503:
		return "the Consul agent's gRPC API"
	case port == 8600:
		return "the Consul agent's DNS"
	case port >= AdminPort && port < AdminPort+100:
		return "Envoy's admin API"
	case port >= SidecarPort && port < SidecarPort+256:
		return "the sidecars' public ports"
	}
	return ""
}

// assignPorts gives every upstream without a port one that depends on the
// names in the file alone, so that it is the same at every staging and does
// not move when another upstream is added above it.
func (m *Mesh) assignPorts() {
	taken := map[int]bool{}
	for _, service := range m.Services {
		taken[service.Port] = true
		for _, upstream := range service.Upstreams {
			taken[upstream.Port] = true
		}
	}
	for _, service := range m.Services {
		for _, upstream := range service.Upstreams {
			if upstream.Port != 0 {
				continue
			}
			hash := fnv.New32a()
			fmt.Fprintf(hash, "%s/%s/%s", service.Name, upstream.Name, upstream.Datacenter)
			offset := int(hash.Sum32() % upstreamPortsCount)
			for taken[UpstreamPorts+offset] {
				offset = (offset + 1) % upstreamPortsCount
			}
			upstream.Port = UpstreamPorts + offset
			taken[upstream.Port] = true
		}
	}
}
