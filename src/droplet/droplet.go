// Package droplet is the contract between staging and the container: where
// staging leaves what, and the one file that says what Consul's own files
// cannot. Render writes it, runtime reads it; it imports neither.
//
// In the folder of the buildpack's dependency index, deps/IDX:
//
//	bin/mesh, bin/consul, bin/envoy   the programs
//	agent.json                        the Consul agent's configuration, not agentless
//	service.json                      Definitions, as Consul reads them from disk
//	mesh.json                         Config
//	task/service.json, task/mesh.json the same for tasks, where mesh.hcl has one
//	launch.yml                        the sidecars, read by Cloud Foundry
//	profile.d/mesh.sh                 upstream addresses, and the hold of the app
//
// Nothing in it is secret, and nothing differs between instances.
package droplet

import (
	"strings"
	"time"
)

// Names of the files in deps/IDX.
const (
	AgentFile   = "agent.json"
	ServiceFile = "service.json"
	ConfigFile  = "mesh.json"
	LaunchFile  = "launch.yml"
	ProfileFile = "profile.d/mesh.sh"
	SidecarFile = "sidecar.sh"
	BinDir      = "bin"
	TaskDir     = "task"
)

// Names of the sidecars in launch.yml, which are also their labels in the
// app's log.
const (
	AgentSidecar = "mesh-consul"
	ProxySidecar = "mesh-envoy"
)

// RunDir is the folder of the running sidecars, from the droplet's top
// (/home/vcap). It is made in the container and ends with it.
const RunDir = "tmp/mesh"

// Config is mesh.json.
type Config struct {
	// Servers are asked by the sidecar itself; nil where an agent runs.
	Servers *Servers `json:"servers,omitempty"`
	// Task is not nil in what is for tasks.
	Task *Task `json:"task,omitempty"`
	// Services are in the order of service.json.
	Services []Service `json:"services"`
	Envoy    Envoy     `json:"envoy"`
	// Lifecycle ties the app's start and stop to its mesh.
	Lifecycle Lifecycle `json:"lifecycle"`
	// SidecarMemory is what both sidecars take off the app's memory, in MB.
	SidecarMemory int `json:"sidecar_memory"`
	// ServiceBinding is the name of the bound service with the credentials, if
	// mesh.hcl says one.
	ServiceBinding string `json:"service_binding,omitempty"`
	// Staged is where the app was staged, if mesh.hcl looks at that.
	Staged *Place `json:"staged,omitempty"`
}

// Task says how a task of the app is in the mesh.
type Task struct {
	Required bool `json:"required"` // it fails without
}

// Envoy says how every Envoy is run.
type Envoy struct {
	Concurrency int      `json:"concurrency"`
	LogLevel    string   `json:"log_level"`
	ExtraArgs   []string `json:"extra_args,omitempty"`
}

// Servers says where the Consul servers are.
type Servers struct {
	Addresses []string          `json:"addresses"`      // names or addresses
	HTTP      int               `json:"http,omitempty"` // ports, 0 for the usual one
	GRPC      int               `json:"grpc,omitempty"`
	NodeMeta  map[string]string `json:"node_meta,omitempty"`
	Fixed     bool              `json:"fixed,omitempty"` // the bound service's do not count
}

// Lifecycle has durations in nanoseconds.
type Lifecycle struct {
	HoldApp      bool          `json:"hold_app"`
	PortCheck    bool          `json:"port_check,omitempty"`
	StartTimeout time.Duration `json:"start_timeout"` // until every Envoy is ready
	DrainDelay   time.Duration `json:"drain_delay"`   // until callers have surely gone, once it is deregistered
	DrainTimeout time.Duration `json:"drain_timeout"` // for requests in flight after that
	// LongestDrainDelay is how far DrainDelay grows with the number of callers, 0
	// where it does not.
	LongestDrainDelay time.Duration `json:"longest_drain_delay,omitempty"`
	// Grace is the time between the platform's SIGTERM and SIGKILL, 0 for the usual.
	Grace time.Duration `json:"grace,omitempty"`
}

// Place is where an app was staged. A droplet that is promoted keeps it.
type Place struct {
	App          string `json:"app"`
	Space        string `json:"space"`
	Organization string `json:"organization"`
	Route        string `json:"route,omitempty"` // the first, empty without one
}

// Service is what the runtime needs to know of a service beside its
// registration.
type Service struct {
	// ID is the service's id in service.json.
	ID string `json:"id"`
	// Process is the process type that runs it.
	Process string `json:"process"`
	// FollowsPort says that the service listens on the app's PORT: where that
	// is not what staging rendered, the registration is amended in the container.
	FollowsPort bool `json:"follows_port"`
	// ListenCheck says that callers leave the instance alone when nobody listens where
	// the app did.
	ListenCheck bool `json:"listen_check,omitempty"`
	// AdminPort is the loopback port of its Envoy's admin API.
	AdminPort int `json:"admin_port"`
	// EnvoyExtensions are not in service.json, because Consul drops them there.
	EnvoyExtensions []EnvoyExtension `json:"envoy_extensions,omitempty"`
}

// EnvoyExtension is an extension of a service's Envoy, as a configuration
// entry of Consul has it (api.EnvoyExtension).
type EnvoyExtension struct {
	Name          string
	Required      bool `json:",omitempty"`
	Arguments     map[string]any
	ConsulVersion string `json:",omitempty"`
	EnvoyVersion  string `json:",omitempty"`
}

// ConsulOnlyKeys are the keys of Envoy's bootstrap configuration that only
// `consul connect envoy` understands: an app with an agent has it asked for them,
// and one without an agent cannot have them.
var ConsulOnlyKeys = []string{"envoy_bootstrap_json_tpl", "envoy_telemetry_collector_bind_socket_dir", "envoy_stats_bind_addr"}

// SidecarID is the id that Consul gives the sidecar proxy of a service.
func SidecarID(serviceID string) string { return serviceID + "-sidecar-proxy" }

// ReadyCheckID is the id of the check with which the runtime says whether the
// sidecar of a service may get traffic.
func ReadyCheckID(serviceID string) string { return SidecarID(serviceID) + ":ready" }

// AliasCheckID is the id of the check of a sidecar that follows those of its
// service.
func AliasCheckID(serviceID string) string { return SidecarID(serviceID) + ":alias" }

// AliveKeys is the prefix of the keys in Consul's key/value store by which instances
// of a service without agents show that they live.
func AliveKeys(service string) string { return "consul-mesh-buildpack/" + service + "/" }

// JanitorKey is the key of the instance that takes the others out of the catalog when
// they have died, one for each service and process of an app. To instances of 0.1.0,
// which take all keys below AliveKeys for those of instances, it is one that never
// dies.
func JanitorKey(service, app, process string) string {
	return AliveKeys(service) + ".janitor/" + NodeName(app, process)
}

// notInNodeName says that a character cannot be in a node's name, and so separates
// the parts of one.
func notInNodeName(r rune) bool {
	return (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') && r != '-'
}

// NodeName is the name of an instance's Consul node: the app's, for people, and
// the instance's GUID, which no other instance ever has. Without a GUID it is the
// prefix of the names of all of the app's nodes.
func NodeName(app, guid string) string {
	app = strings.Trim(strings.Join(strings.FieldsFunc(app, notInNodeName), "-"), "-")
	if len(app) > 60 {
		app = app[:60]
	}
	return strings.TrimPrefix(app+"-"+guid, "-")
}
