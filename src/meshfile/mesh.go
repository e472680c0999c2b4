// Package meshfile reads mesh.hcl, the one file an app author writes.
//
// Parse turns its text into a Mesh with every default filled in, or into
// Diagnostics that hold every mistake at once, each with its line and a hint, in
// three steps: the decoder reads the values and judges each (decode.go, values.go),
// fillDefaults fills in what the file leaves out (defaults.go), and the validator
// judges what the values have to do with each other (validate.go and the files
// beside it). The package knows neither Consul's API nor Cloud Foundry's staging:
// what a Mesh becomes is the business of package render.
//
// Values are parsed once: what a Mesh has is a Duration, a netip.Addr or an Object,
// and no text that may be wrong.
//
// The struct tags of the types below are the language's schema; decoding,
// defaults, the judging of single values, `meshctl schema` and the reference are
// all made of them:
//
//	hcl      name and kind, in gohcl's words
//	doc      what it says, for the reference
//	default  the value of an attribute that is not given
//	without  what an attribute that is not given means, where that is no value
//	is       what kind of value it has to be, see kinds in values.go
//	oneof    the values it can have
package meshfile

import (
	"net/netip"
	"time"

	"github.com/hashicorp/hcl/v2"

	"github.com/consul-mesh/mesh-buildpack/src/droplet"
)

// Mesh is a whole mesh.hcl.
type Mesh struct {
	Services       []*Service `hcl:"service,block" doc:"A service of the app, with a sidecar of its own. At least one, or a task."`
	Tasks          []*OwnTask `hcl:"task,block" doc:"The app's tasks (cf run-task), with upstreams of their own. At most one, here or in a service. Their name in Consul is the label with -task behind it. [Tasks](tasks.md) has more."`
	Consul         *Consul    `hcl:"consul,block" doc:"Which Consul the app joins, and how its agent runs."`
	Envoy          *Envoy     `hcl:"envoy,block" doc:"Which Envoy runs as the sidecar, and how."`
	Lifecycle      *Lifecycle `hcl:"lifecycle,block" doc:"How the app's start and stop are tied to its mesh."`
	ServiceBinding string     `hcl:"service_binding,optional" without:"found by tag or label" doc:"The name of the bound service that holds credentials. Credentials themselves are never written into this file."`

	Body hcl.Body `hcl:",body"`
	// App has the values of AppVariables if an expression looks at one of them,
	// so that a droplet that is promoted to another space carries those of the
	// first; otherwise it is nil.
	App map[string]string

	// AsTask is how tasks are, in what ForTask gives.
	AsTask *Task
}

// Service is what one service offers and what it calls.
type Service struct {
	Label             string            `hcl:"label,label" is:"name"`
	Name              string            `hcl:"name,optional" is:"name" without:"the label" doc:"The name in Consul, by which others call it. Unlike the label it may be an expression, so that one file registers shop-dev here and shop-prod there. The rest of the file, the environment and messages go by the label."`
	ID                string            `hcl:"id,optional" is:"name" without:"the name" doc:"The id in the catalog, unique within the file."`
	Process           string            `hcl:"process,optional" default:"web" is:"name" doc:"The process type that runs it. Other processes are left alone."`
	Port              int               `hcl:"port,optional" is:"port" without:"the app's PORT in the process web, otherwise none: nothing listens" doc:"Where the app listens: on all addresses, or on loopback, where no route and no health check of the platform reaches it (docs/security.md; port_check). 8080 in the process web means the app's PORT. In the environment: MESH_SERVICE_LABEL_PORT."`
	Address           string            `hcl:"address,optional" is:"host" without:"the container's" doc:"The address that callers outside the mesh find in the catalog."`
	Protocol          string            `hcl:"protocol,optional" default:"tcp" oneof:"tcp,http,http2,grpc" doc:"What it speaks. With http, http2 or grpc each request is balanced, and a stop waits for requests in flight. With tcp each connection is balanced, and a stop waits for none. A protocol other than tcp is declared to callers in a service-defaults entry, where Consul has none."`
	Tags              []string          `hcl:"tags,optional" doc:"Consul's service tags."`
	Meta              map[string]string `hcl:"meta,optional" is:"meta" doc:"Consul's service metadata."`
	ListenCheck       bool              `hcl:"listen_check,optional" default:"true" doc:"Without a check: callers are sent to other instances while the app does not listen where it did, as the container's kernel has it; nobody connects for that. false leaves the instance in rotation. An app that hangs still listens: only a check sees that. With a check it means nothing."`
	EnableTagOverride bool              `hcl:"enable_tag_override,optional" doc:"Lets others change the tags in the catalog."`

	Weights         *Weights         `hcl:"weights,block" doc:"The share of traffic of each instance, in the mesh and by Consul's DNS. In the mesh more than 128 counts as 128."`
	TaggedAddresses []*TaggedAddress `hcl:"tagged_address,block" doc:"Another address in the catalog, for the network that its label names, such as wan."`
	Checks          []*Check         `hcl:"check,block" doc:"A health check of the app. While one fails, callers are sent to other instances. An instance gets its first traffic when each has passed once: http, tcp, and grpc without tls are run while it starts, the others are critical until the agent has run them, or the app has reported. Exactly one kind of check each: http, tcp, udp, grpc, h2ping, ttl or alias."`
	Sidecar         *Sidecar         `hcl:"sidecar,block" doc:"How the sidecar proxy of the service is registered."`
	Upstreams       []*Upstream      `hcl:"upstream,block" doc:"A service that the app calls. The sidecar listens for it on loopback, and the environment of every process of the app has the address: MESH_UPSTREAM_NAME_ADDR, _HOST and _PORT, or _SOCKET; the name in upper case, with _ for what is no letter or digit. Somebody listens there in the service's own process alone. A worker that calls others needs a service of its own, a task a block task."`
	Task            *Task            `hcl:"task,block" doc:"Puts the app's tasks (cf run-task) into the mesh, with the upstreams of this service, whose name they have with -task behind it. Without a task block tasks are outside the mesh. [Tasks](tasks.md) has more."`

	Body      hcl.Body  `hcl:",body"`
	NameRange hcl.Range `hcl:"label,label_range"`
}

// Weights are the weights of a service and of its sidecar.
type Weights struct {
	Passing int `hcl:"passing,optional" default:"1" is:"weight" doc:"The weight while all checks pass."`
	Warning int `hcl:"warning,optional" default:"1" is:"low_weight" doc:"The weight while a check warns."`

	Body hcl.Body `hcl:",body"`
}

// TaggedAddress is a further address of a service.
type TaggedAddress struct {
	Name    string `hcl:"name,label" is:"name"`
	Address string `hcl:"address" is:"host" doc:"Name or address."`
	Port    int    `hcl:"port,optional" is:"port" without:"the service's" doc:"The port there."`

	Body      hcl.Body  `hcl:",body"`
	NameRange hcl.Range `hcl:"name,label_range"`
}

// Check is a health check. Exactly one of HTTP, TCP, UDP, GRPC, H2Ping, TTL
// and Alias is given.
type Check struct {
	Name   string    `hcl:"name,label" is:"name"`
	HTTP   *string   `hcl:"http,optional" is:"target" doc:"A path on the service's port that answers 2xx, or a whole URL."`
	TCP    *bool     `hcl:"tcp,optional" doc:"true: the port accepts connections."`
	UDP    *bool     `hcl:"udp,optional" doc:"true: the port answers a datagram, or at least does not refuse it."`
	GRPC   *string   `hcl:"grpc,optional" doc:"A name for gRPC's standard health service, empty for the whole server. The port is the service's."`
	H2Ping *bool     `hcl:"h2ping,optional" doc:"true: the port answers an HTTP/2 ping."`
	TTL    *Duration `hcl:"ttl,optional" is:"interval" doc:"The app reports to the agent by itself, at least this often: PUT http://127.0.0.1:8500/v1/agent/check/pass/ID, at the port http in ports. ID is the service's id, a colon and the check's name, such as shop:beat. Where ACLs are on, with the service's token in the header X-Consul-Token."`
	Alias  *string   `hcl:"alias,optional" is:"name" doc:"The state of another service of this instance, by its label."`

	Interval               Duration            `hcl:"interval,optional" default:"1s" is:"interval" doc:"Time between two runs: at least 1s, without an agent 100ms."`
	Timeout                Duration            `hcl:"timeout,optional" default:"700ms" is:"interval" doc:"How long one may take, at least 100ms. An app that hangs is out of rotation a moment after interval and timeout together, within 2s by default."`
	Method                 string              `hcl:"method,optional" without:"GET" oneof:"GET,HEAD,POST,PUT,PATCH,DELETE,OPTIONS" doc:"For http: the method."`
	Headers                map[string][]string `hcl:"headers,optional" doc:"For http: headers, each a list of values."`
	RequestBody            string              `hcl:"body,optional" doc:"For http: the request's body."`
	DisableRedirects       bool                `hcl:"disable_redirects,optional" doc:"For http: a redirect is the answer."`
	TLS                    bool                `hcl:"tls,optional" doc:"For http, tcp, grpc and h2ping: the port speaks TLS."`
	TLSServerName          string              `hcl:"tls_server_name,optional" doc:"The name in the app's certificate."`
	TLSSkipVerify          bool                `hcl:"tls_skip_verify,optional" doc:"Any certificate of the app will do."`
	SuccessBeforePassing   int                 `hcl:"success_before_passing,optional" is:"count" without:"0" doc:"Successes in a row before it passes."`
	FailuresBeforeWarning  int                 `hcl:"failures_before_warning,optional" is:"count" without:"0" doc:"Failures in a row before it warns."`
	FailuresBeforeCritical int                 `hcl:"failures_before_critical,optional" is:"count" without:"0" doc:"Failures in a row before it is critical."`
	DeregisterAfter        Duration            `hcl:"deregister_critical_service_after,optional" is:"minutes" without:"never" doc:"How long it may be critical before the service is deregistered, at least 1m. The sidecar registers it again as critical, where it stays until the app works."`
	Status                 string              `hcl:"status,optional" without:"passing for one that was run while the instance started, otherwise critical" oneof:"passing,warning,critical" doc:"The state before the agent's first run."`
	Notes                  string              `hcl:"notes,optional" doc:"For people."`

	Body      hcl.Body  `hcl:",body"`
	NameRange hcl.Range `hcl:"name,label_range"`
}

// Sidecar is the registration of a service's sidecar proxy.
type Sidecar struct {
	Port            int         `hcl:"port,optional" is:"port" without:"21000 for the first service of the file, 21001 for the second, and so on" doc:"The public port, that callers' sidecars connect to. A network policy allows it."`
	LocalAddress    netip.Addr  `hcl:"local_service_address,optional" is:"ip" without:"127.0.0.1" doc:"Where the app listens."`
	LocalSocketPath string      `hcl:"local_service_socket_path,optional" is:"absolute" without:"the service's port" doc:"The Unix socket that the app listens on."`
	MeshGateway     string      `hcl:"mesh_gateway,optional" without:"none" oneof:"none,local,remote" doc:"Whether calls to other datacenters go through mesh gateways."`
	Config          Object      `hcl:"config,optional" doc:"Opaque proxy configuration, in Consul's words, such as max_inbound_connections."`
	Checks          []*Check    `hcl:"check,block" doc:"A further check of the app, which counts for the sidecar alone."`
	Expose          *Expose     `hcl:"expose,block" doc:"HTTP paths of the app that are reached without mutual TLS, through a listener of the sidecar."`
	AccessLogs      *AccessLogs `hcl:"access_logs,block" doc:"Envoy's access log for this sidecar. An operator can turn it on for all in proxy-defaults; enabled = false does not turn that off."`

	EnvoyExtensions []*EnvoyExtension `hcl:"envoy_extension,block" doc:"An extension of the sidecar's Envoy, in the order in which they are applied. Consul takes extensions from configuration entries alone, so they stand in the service's service-defaults entry, that the first instance makes where Consul has none; the app's log says when the entry that is there lacks one."`

	Body hcl.Body `hcl:",body"`
}

// EnvoyExtension is one of Consul's built-in extensions of Envoy.
type EnvoyExtension struct {
	Name          string `hcl:"name,label" oneof:"builtin/aws/lambda,builtin/ext-authz,builtin/lua,builtin/otel-access-logging,builtin/property-override,builtin/wasm"`
	Arguments     Object `hcl:"arguments,optional" doc:"What the extension needs, in Consul's words, such as Listener and Script for builtin/lua."`
	Required      bool   `hcl:"required,optional" doc:"true: Envoy gets no configuration where the extension cannot be applied, rather than one without it."`
	ConsulVersion string `hcl:"consul_version,optional" is:"constraint" without:"any" doc:"The versions of Consul that apply it, such as \">= 1.22\"."`
	EnvoyVersion  string `hcl:"envoy_version,optional" is:"constraint" without:"any" doc:"The versions of Envoy that it is applied to."`

	Body      hcl.Body  `hcl:",body"`
	NameRange hcl.Range `hcl:"name,label_range"`
}

// Expose lists the paths that are reached without mutual TLS.
type Expose struct {
	Checks bool          `hcl:"checks,optional" doc:"true: the paths of the http and grpc checks, on ports from 21500."`
	Paths  []*ExposePath `hcl:"path,block" doc:"A path, such as \"/metrics\"."`

	Body hcl.Body `hcl:",body"`
}

// ExposePath is one of them.
type ExposePath struct {
	Path         string `hcl:"path,label" is:"path"`
	ListenerPort int    `hcl:"listener_port" is:"port" doc:"The public port of the listener."`
	LocalPort    int    `hcl:"local_path_port,optional" is:"port" without:"the service's" doc:"The app's port."`
	Protocol     string `hcl:"protocol,optional" default:"http" oneof:"http,http2" doc:"What the path speaks."`

	Body      hcl.Body  `hcl:",body"`
	NameRange hcl.Range `hcl:"path,label_range"`
}

// AccessLogs is Envoy's access log.
type AccessLogs struct {
	Enabled             bool   `hcl:"enabled,optional" default:"true" doc:"Whether requests and connections are logged."`
	DisableListenerLogs bool   `hcl:"disable_listener_logs,optional" doc:"Leaves out connections that no filter accepts."`
	Type                string `hcl:"type,optional" default:"stdout" oneof:"stdout,stderr,file" doc:"Where to."`
	Path                string `hcl:"path,optional" is:"absolute" doc:"The file, for type file."`
	JSONFormat          string `hcl:"json_format,optional" is:"json" doc:"Envoy's format as JSON text."`
	TextFormat          string `hcl:"text_format,optional" doc:"Envoy's format as a line. Not with json_format."`

	Body hcl.Body `hcl:",body"`
}

// Upstream is a service that the app calls.
type Upstream struct {
	Name          string     `hcl:"name,label" is:"name"`
	Service       string     `hcl:"service,optional" is:"name" without:"the upstream's name" doc:"The service in Consul."`
	PreparedQuery string     `hcl:"prepared_query,optional" is:"name" doc:"A prepared query in its place."`
	Namespace     string     `hcl:"namespace,optional" is:"name" doc:"Consul Enterprise: the namespace."`
	Partition     string     `hcl:"partition,optional" is:"name" doc:"Consul Enterprise: the admin partition."`
	Peer          string     `hcl:"peer,optional" is:"name" doc:"The cluster peering it comes through. Not with datacenter."`
	Datacenter    string     `hcl:"datacenter,optional" is:"datacenter" without:"the sidecar's own" doc:"Where it runs."`
	Address       netip.Addr `hcl:"address,optional" default:"127.0.0.1" is:"loopback" doc:"The local address that the sidecar listens on for it."`
	Port          int        `hcl:"port,optional" is:"port" without:"one from 20000 to 20999 that depends on the names in the file alone" doc:"The local port."`
	Socket        string     `hcl:"socket,optional" is:"absolute" doc:"A Unix socket in place of address and port. Its folder is made where there is none, for those who may use the socket."`
	SocketMode    string     `hcl:"socket_mode,optional" is:"mode" without:"0600" doc:"The socket's permissions."`
	Protocol      string     `hcl:"protocol,optional" without:"what the service declares" oneof:"tcp,http,http2,grpc" doc:"What to speak, whatever the service declares."`
	Timeout       Duration   `hcl:"connect_timeout,optional" is:"interval" without:"5s" doc:"How long a connection may take."`
	Balance       string     `hcl:"balance,optional" without:"none" oneof:"none,exact_balance" doc:"How connections are spread over Envoy's threads."`
	MeshGateway   string     `hcl:"mesh_gateway,optional" without:"the sidecar's" oneof:"none,local,remote" doc:"Whether calls go through mesh gateways."`
	Config        Object     `hcl:"config,optional" doc:"Opaque upstream configuration, in Consul's words."`

	Limits             *Limits             `hcl:"limits,block" doc:"Bounds on what this app asks of the upstream at a time. Where a service-defaults entry of this app has Limits in its UpstreamConfig too, the same counts as for passive_health_check."`
	PassiveHealthCheck *PassiveHealthCheck `hcl:"passive_health_check,block" doc:"When an instance that answers with errors is left out for a while. On by default. Where a service-defaults entry of this app has a PassiveHealthCheck in its UpstreamConfig too: without an agent this block counts, its defaults included; with an agent the entry counts, and this block for what the entry does not say."`

	Body      hcl.Body  `hcl:",body"`
	NameRange hcl.Range `hcl:"name,label_range"`
}

// Limits bound the load on an upstream.
type Limits struct {
	MaxConnections        int `hcl:"max_connections,optional" is:"limit" without:"Envoy's 1024" doc:"Connections of this sidecar."`
	MaxPendingRequests    int `hcl:"max_pending_requests,optional" is:"limit" without:"Envoy's 1024" doc:"Requests that wait for a connection."`
	MaxConcurrentRequests int `hcl:"max_concurrent_requests,optional" is:"limit" without:"Envoy's 1024" doc:"Requests in flight."`

	Body hcl.Body `hcl:",body"`
}

// PassiveHealthCheck is Envoy's outlier detection for an upstream.
type PassiveHealthCheck struct {
	Interval                Duration `hcl:"interval,optional" default:"10s" is:"interval" doc:"Time between two looks at the counters."`
	MaxFailures             int      `hcl:"max_failures,optional" default:"5" is:"count" doc:"Server errors in a row until an instance is left out. 0 says nothing at all: a service-defaults entry decides, and without one Envoy, which leaves out at most one instance of ten."`
	EnforcingConsecutive5xx int      `hcl:"enforcing_consecutive_5xx,optional" default:"100" is:"percent" doc:"How likely an instance with so many errors is really left out. 0 never leaves one out."`
	MaxEjectionPercent      int      `hcl:"max_ejection_percent,optional" default:"50" is:"percent" doc:"How many of the instances may be left out at a time. Envoy's own 10 would be none of nine or fewer."`
	BaseEjectionTime        Duration `hcl:"base_ejection_time,optional" default:"30s" is:"interval" doc:"How long an instance is left out the first time. The second time it is twice as long, and so on."`

	Body hcl.Body `hcl:",body"`
}

// Consul says which Consul the app joins.
type Consul struct {
	Mode          string            `hcl:"mode,optional" default:"agent" oneof:"agent,agentless" doc:"Whether the app runs a Consul agent, or its sidecar asks the servers itself: docs/modes.md compares."`
	Addresses     []string          `hcl:"addresses,optional" without:"consul-server.apps.internal" doc:"Agentless: names or IP addresses of the servers, without port. Each is resolved, and tried until one answers."`
	Version       string            `hcl:"version,optional" is:"version" without:"the buildpack's default" doc:"A version, or a constraint such as \"1.22.x\"."`
	Source        string            `hcl:"source,optional" is:"source" without:"the buildpack's manifest" doc:"Where the program comes from instead: an https address, a file in a git repository (git::https://host/repository//path?ref=commit), or a file inside the app. The program is taken out of a zip or tar.gz, from its top or from the path after //."`
	SHA256        string            `hcl:"sha256,optional" is:"sha256" doc:"The checksum of what source gives, before it is unpacked. Required unless it is a file inside the app."`
	RetryJoin     []string          `hcl:"retry_join,optional" without:"consul-server.apps.internal" doc:"Addresses of servers, tried until one answers: names or IP addresses, with a port where gossip has another, or a provider=… of Consul's cloud auto-join."`
	RetryInterval Duration          `hcl:"retry_interval,optional" default:"1s" is:"interval" doc:"Time between two tries."`
	RetryMax      int               `hcl:"retry_max,optional" is:"count" without:"no end" doc:"How many tries before the agent gives up."`
	Datacenter    string            `hcl:"datacenter,optional" default:"dc1" is:"datacenter" doc:"The servers' datacenter. Agentless: refused, it is that of the servers in addresses."`
	NodeMeta      map[string]string `hcl:"node_meta,optional" is:"meta" doc:"Metadata of the instance's node."`
	LogLevel      string            `hcl:"log_level,optional" default:"warn" oneof:"trace,debug,info,warn,error" doc:"What the agent logs."`
	Config        Object            `hcl:"config,optional" doc:"Further agent configuration, in Consul's words. A key that the buildpack sets itself is an error."`
	Memory        int               `hcl:"memory,optional" default:"64" is:"memory" doc:"MB for the agent, taken off the app's own."`
	Ports         *Ports            `hcl:"ports,block" doc:"The agent's ports, where the app needs the usual ones for itself. Agentless: the servers'."`

	Body hcl.Body `hcl:",body"`
}

// Ports are the agent's ports.
type Ports struct {
	HTTP    int `hcl:"http,optional" default:"8500" is:"port" doc:"HTTP API, on loopback. Agentless: the servers', by default 8500, or 8501 where the bound service has a CA."`
	GRPC    int `hcl:"grpc,optional" default:"8502" is:"port" doc:"Envoy's configuration, on loopback. Agentless: the servers', by default 8502, or 8503 where the bound service has a CA."`
	SerfLAN int `hcl:"serf_lan,optional" default:"8301" is:"port" doc:"Gossip, on the container's address. Servers and other agents must use the same."`

	Body hcl.Body `hcl:",body"`
}

// Envoy says which Envoy runs as the sidecar.
type Envoy struct {
	Version     string   `hcl:"version,optional" is:"version" without:"the one that goes with the chosen Consul; agentless the buildpack's default" doc:"A version or a constraint."`
	Source      string   `hcl:"source,optional" is:"source" without:"the buildpack's manifest" doc:"Where the program comes from instead: an https address, a file in a git repository (git::https://host/repository//path?ref=commit), or a file inside the app. The program is taken out of a zip or tar.gz, from its top or from the path after //."`
	SHA256      string   `hcl:"sha256,optional" is:"sha256" doc:"The checksum of what source gives, before it is unpacked. Required unless it is a file inside the app."`
	Concurrency int      `hcl:"concurrency,optional" default:"1" is:"threads" doc:"Worker threads."`
	LogLevel    string   `hcl:"log_level,optional" default:"warning" oneof:"trace,debug,info,warning,error,critical,off" doc:"What Envoy logs."`
	AdminPort   int      `hcl:"admin_port,optional" default:"19000" is:"port" doc:"The admin API of the first service's Envoy, on loopback; the second service's has the next port, and so on."`
	ExtraArgs   []string `hcl:"extra_args,optional" doc:"Further arguments for Envoy, which judges them at staging."`
	Bootstrap   Object   `hcl:"bootstrap,optional" doc:"Overrides of Envoy's bootstrap, in Consul's words, such as envoy_extra_static_clusters_json."`
	Tracing     string   `hcl:"tracing_json,optional" is:"json" doc:"Envoy's tracing provider as JSON text (Consul's envoy_tracing_json)."`
	Memory      int      `hcl:"memory,optional" default:"64" is:"memory" doc:"MB for all Envoys of an instance, taken off the app's own."`
	Metrics     *Metrics `hcl:"metrics,block" doc:"Where Envoy's metrics go. Only then do they carry Consul's labels, which take time to find while Envoy starts."`

	Body hcl.Body `hcl:",body"`
}

// Metrics says where Envoy's metrics go.
type Metrics struct {
	Prometheus netip.AddrPort `hcl:"prometheus,optional" is:"listen" without:"off" doc:"Address and port of a /metrics listener of the first service's Envoy; the second service's has the next port, and so on."`
	Statsd     string         `hcl:"statsd,optional" is:"statsd" doc:"udp:// or unix:// address of a statsd server."`
	Dogstatsd  string         `hcl:"dogstatsd,optional" is:"statsd" doc:"udp:// or unix:// address of a dogstatsd server."`

	Body hcl.Body `hcl:",body"`
}

// Lifecycle says how app and mesh start and stop together.
type Lifecycle struct {
	HoldApp      bool     `hcl:"hold_app,optional" default:"true" doc:"Whether the app starts when its mesh is ready, and is told to stop when callers have gone. false leaves its start command alone: the app gets its SIGTERM from the platform at once, and can call others only while its Envoy finishes requests."`
	StartTimeout Duration `hcl:"start_timeout,optional" default:"50s" is:"startup" doc:"How long the mesh may take to be ready, from 5s to 10m, before the instance ends and says why. Cloud Foundry gives an app 60 s (cf push -t)."`
	Grace        Duration `hcl:"grace,optional" default:"10s" is:"grace" doc:"What the platform gives an instance between SIGTERM and SIGKILL, from 10s to 10m: more than 10s only where its operator has said so (docs/operators.md). Every time of a stop is a share of it."`
	DrainDelay   Duration `hcl:"drain_delay,optional" without:"by the number of callers, at least 300ms, without agents 1s" is:"drain" doc:"How long callers may still send requests after the instance was deregistered, up to three tenths of grace. Callers hear of the stop after 200 ms. Without agents it may be 700 ms, where a server has just sent a caller's Envoy to another server. A server tells 250 callers a second: where it is left out it is longer for many, docs/operators.md has how long."`
	DrainTimeout Duration `hcl:"drain_timeout,optional" without:"three tenths of grace, 3s, or what many callers leave of four tenths" is:"drain" doc:"How long requests in flight are then waited for, up to three tenths of grace, before the app gets SIGTERM."`
	PortCheck    bool     `hcl:"port_check,optional" default:"false" doc:"Whether the sidecars answer the platform's port check for an app on loopback, as soon as all checks of the instance have passed. A rolling deploy then waits for that (docs/security.md)."`

	// LongestDrainDelay is how far drain_delay grows with the number of callers, 0
	// where the file says how long it is.
	LongestDrainDelay time.Duration

	Body hcl.Body `hcl:",body"`
}

// Defaults that have no place in a tag.
const (
	DefaultProtocol  = "tcp"
	DefaultRetryJoin = "consul-server.apps.internal"
	webProcess       = "web"
	usualGrace       = 10 * time.Second
	agentDrainDelay  = 300 * time.Millisecond
	// Servers that lose a proxy may send another's Envoy elsewhere at that very
	// moment: it hears of nothing until it is there.
	agentlessDrainDelay = time.Second
)

// Duration is a time, as the definition of a service has it.
type Duration = droplet.Duration

// Object is an opaque configuration, as JSON has it.
type Object map[string]any
