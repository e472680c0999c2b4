package render

import (
	"net"
	"strconv"

	"github.com/consul-mesh/mesh-buildpack/src/droplet"
	"github.com/consul-mesh/mesh-buildpack/src/meshfile"
)

// The types below are Consul's configuration file and service definition, as
// far as mesh.hcl reaches (Consul: agent configuration reference, service
// configuration reference). Consul reads both spellings of its keys from disk;
// these are the ones its own documents use.

type agent struct {
	Datacenter    string   `json:"datacenter"`
	DataDir       string   `json:"data_dir"`
	Server        bool     `json:"server"`
	RetryJoin     []string `json:"retry_join"`
	RetryInterval string   `json:"retry_interval"`
	ClientAddr    string   `json:"client_addr"`
	Ports         ports    `json:"ports"`

	// LeaveOnTerminate and AdvertiseReconnectTimeout keep the catalog clean:
	// containers do not come back, and Cloud Foundry gives their addresses to
	// others, while Consul would keep a failed node for 72 hours.
	LeaveOnTerminate          bool   `json:"leave_on_terminate"`
	AdvertiseReconnectTimeout string `json:"advertise_reconnect_timeout"`

	DisableUpdateCheck bool   `json:"disable_update_check"`
	LogLevel           string `json:"log_level"`
}

type ports struct {
	HTTP    int `json:"http"`
	HTTPS   int `json:"https"`
	GRPC    int `json:"grpc"`
	GRPCTLS int `json:"grpc_tls"`
	DNS     int `json:"dns"`
}

func agentConfig(mesh *meshfile.Mesh) agent {
	return agent{
		Datacenter: mesh.Consul.Datacenter,
		DataDir:    "/home/vcap/" + droplet.RunDir + "/consul",
		RetryJoin:  mesh.Consul.RetryJoin,
		// Consul's 30 s would cost half of Cloud Foundry's start timeout when
		// the first attempt comes a moment too early.
		RetryInterval:             "1s",
		ClientAddr:                "127.0.0.1",
		Ports:                     ports{HTTP: 8500, HTTPS: -1, GRPC: 8502, GRPCTLS: -1, DNS: -1},
		LeaveOnTerminate:          true,
		AdvertiseReconnectTimeout: "10s",
		DisableUpdateCheck:        true,
		LogLevel:                  "warn",
	}
}

type services struct {
	Services []service `json:"services"`
}

type service struct {
	ID      string            `json:"id"`
	Name    string            `json:"name"`
	Port    int               `json:"port"`
	Tags    []string          `json:"tags,omitempty"`
	Meta    map[string]string `json:"meta,omitempty"`
	Checks  []check           `json:"checks,omitempty"`
	Connect connect           `json:"connect"`
}

type connect struct {
	SidecarService sidecar `json:"sidecar_service"`
}

type sidecar struct {
	Port   int     `json:"port"`
	Checks []check `json:"checks"`
	Proxy  proxy   `json:"proxy"`
}

type proxy struct {
	Config    map[string]any `json:"config,omitempty"`
	Upstreams []upstream     `json:"upstreams,omitempty"`
}

type upstream struct {
	DestinationName  string `json:"destination_name"`
	Datacenter       string `json:"datacenter,omitempty"`
	LocalBindAddress string `json:"local_bind_address"`
	LocalBindPort    int    `json:"local_bind_port"`
}

type check struct {
	ID           string `json:"id"`
	Name         string `json:"name"`
	HTTP         string `json:"http,omitempty"`
	TCP          string `json:"tcp,omitempty"`
	GRPC         string `json:"grpc,omitempty"`
	TTL          string `json:"ttl,omitempty"`
	AliasService string `json:"alias_service,omitempty"`
	Interval     string `json:"interval,omitempty"`
	Timeout      string `json:"timeout,omitempty"`
}

// readyTTL is how long Consul believes the last sign of life of a sidecar. The
// runtime says at once when Envoy fails; this is for when it cannot.
const readyTTL = "10s"

func serviceDefinitions(mesh *meshfile.Mesh) services {
	var all services
	for i, s := range mesh.Services {
		port := s.Port
		if port == 0 {
			port = droplet.AppPort
		}
		definition := service{
			ID: s.Name, Name: s.Name, Port: port, Tags: s.Tags, Meta: s.Meta,
			Connect: connect{sidecar{
				Port: meshfile.SidecarPort + i,
				// Without checks of its own a sidecar gets Consul's default, a
				// TCP check that starts critical and runs every 10 s.
				Checks: []check{
					{ID: droplet.ReadyCheckID(s.Name), Name: "App and Envoy are ready", TTL: readyTTL},
					{ID: droplet.SidecarID(s.Name) + ":alias", Name: "Checks of " + s.Name, AliasService: s.Name},
				},
			}},
		}
		for _, c := range s.Checks {
			definition.Checks = append(definition.Checks, serviceCheck(s.Name, port, c))
		}
		if s.Protocol != meshfile.DefaultProtocol {
			definition.Connect.SidecarService.Proxy.Config = map[string]any{"protocol": s.Protocol}
		}
		for _, u := range s.Upstreams {
			definition.Connect.SidecarService.Proxy.Upstreams = append(
				definition.Connect.SidecarService.Proxy.Upstreams, upstream{
					DestinationName: u.Name, Datacenter: u.Datacenter,
					LocalBindAddress: loopback, LocalBindPort: u.Port,
				})
		}
		all.Services = append(all.Services, definition)
	}
	return all
}

const loopback = "127.0.0.1"

func serviceCheck(service string, port int, c *meshfile.Check) check {
	address := net.JoinHostPort(loopback, strconv.Itoa(port))
	rendered := check{
		ID: service + ":" + c.Name, Name: c.Name,
		Interval: c.Interval, Timeout: c.Timeout,
	}
	switch {
	case c.HTTP != nil:
		rendered.HTTP = "http://" + address + *c.HTTP
	case c.GRPC != nil && *c.GRPC != "":
		rendered.GRPC = address + "/" + *c.GRPC
	case c.GRPC != nil:
		rendered.GRPC = address
	default:
		rendered.TCP = address
	}
	return rendered
}
