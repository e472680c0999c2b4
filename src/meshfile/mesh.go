// Package meshfile reads mesh.hcl, the one file an app author writes.
//
// Parse turns its text into a Mesh with every default filled in, or into an
// Error that holds every mistake at once, each with its line and a hint. The
// package knows neither Consul's API nor Cloud Foundry's staging: what a Mesh
// becomes is the business of package render.
package meshfile

import (
	"reflect"
	"strings"

	"github.com/hashicorp/hcl/v2"
)

// Mesh is a whole mesh.hcl, checked and with its defaults filled in. The
// struct tags are the language's schema.
type Mesh struct {
	Services []*Service `hcl:"service,block"`
	Consul   *Consul    `hcl:"consul,block"`
	Envoy    *Envoy     `hcl:"envoy,block"`
}

// Service is one service of the app: what it offers, what it calls.
type Service struct {
	Name string `hcl:"name,label"`
	// Process is the process type that runs the service. Defaults to "web".
	Process string `hcl:"process,optional"`
	// Port is where the app listens on loopback. Zero means the app's PORT,
	// known in the container only.
	Port int `hcl:"port,optional"`
	// Protocol is one of Protocols. Defaults to "tcp".
	Protocol string            `hcl:"protocol,optional"`
	Tags     []string          `hcl:"tags,optional"`
	Meta     map[string]string `hcl:"meta,optional"`

	Checks    []*Check    `hcl:"check,block"`
	Upstreams []*Upstream `hcl:"upstream,block"`

	NameRange     hcl.Range `hcl:"name,label_range"`
	PortRange     hcl.Range `hcl:"port,attr_value_range"`
	ProtocolRange hcl.Range `hcl:"protocol,attr_value_range"`
	ProcessRange  hcl.Range `hcl:"process,attr_value_range"`
}

// Check is a health check of the app, run by the Consul agent beside it.
// Exactly one of HTTP, TCP and GRPC is set.
type Check struct {
	Name string `hcl:"name,label"`
	// HTTP is a path on the service's port, such as "/health".
	HTTP *string `hcl:"http,optional"`
	// TCP is true for a check that only connects.
	TCP *bool `hcl:"tcp,optional"`
	// GRPC is the name of a gRPC service for the standard health protocol,
	// empty for the whole server.
	GRPC *string `hcl:"grpc,optional"`
	// Interval and Timeout are Go durations. Default to "1s" each.
	Interval string `hcl:"interval,optional"`
	Timeout  string `hcl:"timeout,optional"`

	Range         hcl.Range `hcl:",def_range"`
	NameRange     hcl.Range `hcl:"name,label_range"`
	HTTPRange     hcl.Range `hcl:"http,attr_value_range"`
	IntervalRange hcl.Range `hcl:"interval,attr_value_range"`
	TimeoutRange  hcl.Range `hcl:"timeout,attr_value_range"`
}

// Upstream is a service that the app calls through its sidecar.
type Upstream struct {
	Name string `hcl:"name,label"`
	// Port is where the sidecar listens on loopback for it. Defaults to a port
	// from UpstreamPorts that depends on the names alone.
	Port int `hcl:"port,optional"`
	// Datacenter is where the upstream runs. Defaults to the agent's own.
	Datacenter string `hcl:"datacenter,optional"`

	NameRange hcl.Range `hcl:"name,label_range"`
	PortRange hcl.Range `hcl:"port,attr_value_range"`
}

// Consul says which Consul the app joins.
type Consul struct {
	// Version is a version or a constraint such as "1.22.x". Empty means the
	// buildpack's default.
	Version string `hcl:"version,optional"`
	// RetryJoin are addresses of Consul servers. Defaults to
	// DefaultRetryJoin.
	RetryJoin []string `hcl:"retry_join,optional"`
	// Datacenter defaults to "dc1", Consul's own default.
	Datacenter string `hcl:"datacenter,optional"`

	RetryJoinRange  hcl.Range `hcl:"retry_join,attr_value_range"`
	DatacenterRange hcl.Range `hcl:"datacenter,attr_value_range"`
}

// Envoy says which Envoy runs as the sidecar.
type Envoy struct {
	// Version is a version or a constraint. Empty means the one that goes with
	// the chosen Consul.
	Version string `hcl:"version,optional"`
}

// Protocols are the protocols a service can speak, in Consul's words.
var Protocols = []string{"tcp", "http", "http2", "grpc"}

// Defaults of the language.
const (
	DefaultProcess    = "web"
	DefaultProtocol   = "tcp"
	DefaultInterval   = "1s"
	DefaultTimeout    = "1s"
	DefaultDatacenter = "dc1"
	DefaultRetryJoin  = "consul-server.apps.internal"
)

func (m *Mesh) fillDefaults() {
	for _, service := range m.Services {
		setDefault(&service.Process, DefaultProcess)
		setDefault(&service.Protocol, DefaultProtocol)
		for _, check := range service.Checks {
			setDefault(&check.Interval, DefaultInterval)
			setDefault(&check.Timeout, DefaultTimeout)
		}
	}
	if m.Consul == nil {
		m.Consul = &Consul{}
	}
	if m.Consul.RetryJoin == nil {
		m.Consul.RetryJoin = []string{DefaultRetryJoin}
	}
	setDefault(&m.Consul.Datacenter, DefaultDatacenter)
	if m.Envoy == nil {
		m.Envoy = &Envoy{}
	}
}

func setDefault(field *string, value string) {
	if *field == "" {
		*field = value
	}
}

// Keys lists every block and attribute of the language, once each, in the
// order in which they are declared above.
func Keys() []string {
	var keys []string
	seen := map[string]bool{}
	var walk func(reflect.Type)
	walk = func(block reflect.Type) {
		for i := range block.NumField() {
			field := block.Field(i)
			name, kind, _ := strings.Cut(field.Tag.Get("hcl"), ",")
			if kind != "optional" && kind != "block" {
				continue
			}
			if !seen[name] {
				seen[name] = true
				keys = append(keys, name)
			}
			if kind == "block" {
				element := field.Type.Elem()
				if element.Kind() == reflect.Pointer {
					element = element.Elem()
				}
				walk(element)
			}
		}
	}
	walk(reflect.TypeFor[Mesh]())
	return keys
}
