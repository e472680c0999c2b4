package droplet

import (
	"reflect"
	"time"
)

// The types below are Consul's service definition (Consul: service configuration
// reference, proxy configuration reference, health check configuration reference).
// Consul spells it in two ways: the tag of a field is its key in Consul's files, the
// field's name is its key in Consul's HTTP API. Keys of maps are somebody's own, and
// the same in both.

// Definitions is service.json.
type Definitions struct {
	Services []Definition `json:"services"`
}

// Definition is a service with its sidecar.
type Definition struct {
	Endpoint
	Connect Connect `json:"connect"`
}

// Endpoint is what services and sidecars have in common.
type Endpoint struct {
	Kind              string                   `json:"kind,omitempty"`
	ID                string                   `json:"id,omitempty"`
	Name              string                   `json:"name,omitempty"`
	Address           string                   `json:"address,omitempty"`
	Port              int                      `json:"port,omitempty"`
	SocketPath        string                   `json:"socket_path,omitempty"`
	Tags              []string                 `json:"tags,omitempty"`
	Meta              map[string]string        `json:"meta,omitempty"`
	EnableTagOverride bool                     `json:"enable_tag_override,omitempty"`
	Weights           *Weights                 `json:"weights,omitempty"`
	TaggedAddresses   map[string]TaggedAddress `json:"tagged_addresses,omitempty"`
	Checks            []Check                  `json:"checks,omitempty"`
}

// Weights are the shares of requests that an instance gets, by its state.
type Weights struct {
	Passing int `json:"passing"`
	Warning int `json:"warning"`
}

// TaggedAddress is another address of a service, under a name.
type TaggedAddress struct {
	Address string `json:"address"`
	Port    int    `json:"port"`
}

// Connect is a service's part in the mesh.
type Connect struct {
	SidecarService Sidecar `json:"sidecar_service"`
}

// Sidecar is the sidecar proxy of a service.
type Sidecar struct {
	Endpoint
	Proxy Proxy `json:"proxy"`
}

// Proxy is how a sidecar's Envoy works. What its destination is, and where that
// listens, is said to a catalog: an agent knows.
type Proxy struct {
	DestinationServiceName string         `json:"destination_service_name,omitempty"`
	DestinationServiceID   string         `json:"destination_service_id,omitempty"`
	LocalServiceAddress    string         `json:"local_service_address,omitempty"`
	LocalServicePort       int            `json:"local_service_port,omitempty"`
	LocalServiceSocketPath string         `json:"local_service_socket_path,omitempty"`
	Config                 map[string]any `json:"config,omitempty"`
	MeshGateway            *MeshGateway   `json:"mesh_gateway,omitempty"`
	Expose                 *Expose        `json:"expose,omitempty"`
	AccessLogs             *AccessLogs    `json:"access_logs,omitempty"`
	Upstreams              []Upstream     `json:"upstreams,omitempty"`
}

// MeshGateway is by which gateways an upstream is called.
type MeshGateway struct {
	Mode string `json:"mode"`
}

// Expose are paths that are called without the mesh.
type Expose struct {
	Checks bool         `json:"checks,omitempty"`
	Paths  []ExposePath `json:"paths,omitempty"`
}

// ExposePath is one of them.
type ExposePath struct {
	Path          string `json:"path"`
	ListenerPort  int    `json:"listener_port"`
	LocalPathPort int    `json:"local_path_port"`
	Protocol      string `json:"protocol"`
}

// AccessLogs are those of an Envoy.
type AccessLogs struct {
	Enabled             bool   `json:"enabled"`
	DisableListenerLogs bool   `json:"disable_listener_logs,omitempty"`
	Type                string `json:"type,omitempty"`
	Path                string `json:"path,omitempty"`
	JSONFormat          string `json:"json_format,omitempty"`
	TextFormat          string `json:"text_format,omitempty"`
}

// Upstream is a service that the app calls.
type Upstream struct {
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
	MeshGateway          *MeshGateway   `json:"mesh_gateway,omitempty"`
	Config               map[string]any `json:"config,omitempty"`
}

// PreparedQuery is the DestinationType of an upstream that is no service.
const PreparedQuery = "prepared_query"

// Check is a health check of a service or a sidecar.
type Check struct {
	CheckID                        string              `json:"id"`
	Name                           string              `json:"name"`
	HTTP                           string              `json:"http,omitempty"`
	TCP                            string              `json:"tcp,omitempty"`
	TCPUseTLS                      bool                `json:"tcp_use_tls,omitempty"`
	UDP                            string              `json:"udp,omitempty"`
	GRPC                           string              `json:"grpc,omitempty"`
	GRPCUseTLS                     bool                `json:"grpc_use_tls,omitempty"`
	H2Ping                         string              `json:"h2ping,omitempty"`
	H2PingUseTLS                   *bool               `json:"h2ping_use_tls,omitempty"` // Consul's own default is true
	TTL                            Duration            `json:"ttl,omitzero"`
	AliasService                   string              `json:"alias_service,omitempty"`
	Interval                       Duration            `json:"interval,omitzero"`
	Timeout                        Duration            `json:"timeout,omitzero"`
	Method                         string              `json:"method,omitempty"`
	Header                         map[string][]string `json:"header,omitempty"`
	Body                           string              `json:"body,omitempty"`
	DisableRedirects               bool                `json:"disable_redirects,omitempty"`
	TLSServerName                  string              `json:"tls_server_name,omitempty"`
	TLSSkipVerify                  bool                `json:"tls_skip_verify,omitempty"`
	SuccessBeforePassing           int                 `json:"success_before_passing,omitempty"`
	FailuresBeforeWarning          int                 `json:"failures_before_warning,omitempty"`
	FailuresBeforeCritical         int                 `json:"failures_before_critical,omitempty"`
	DeregisterCriticalServiceAfter Duration            `json:"deregister_critical_service_after,omitzero"`
	Status                         string              `json:"status,omitempty"`
	Notes                          string              `json:"notes,omitempty"`
}

// Duration is a time, and the text by which a file gives it: Consul reads the same
// text.
type Duration struct {
	time.Duration
	text string
}

// String is the text, empty where the file says nothing.
func (d Duration) String() string {
	if d.text == "" && d.Duration != 0 {
		return d.Duration.String()
	}
	return d.text
}

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler. It keeps a wrong text too.
func (d *Duration) UnmarshalText(text []byte) (err error) {
	d.text = string(text)
	d.Duration, err = time.ParseDuration(d.text)
	return err
}

// API is a part of a definition as Consul's HTTP API takes it. The API refuses some
// of the keys of files (socket_path, access_logs' json_format), and takes all of
// them by the names of fields, in any case (Consul 1.22, agent/structs). What is
// zero is left out.
func API[T Definition | Endpoint | Sidecar | Check](part T) map[string]any {
	return api(reflect.ValueOf(part)).(map[string]any)
}

func api(value reflect.Value) any {
	if duration, ok := value.Interface().(Duration); ok {
		return duration.String()
	}
	switch kind := value.Kind(); {
	case kind == reflect.Pointer:
		return api(value.Elem())
	case kind == reflect.Struct:
		object := map[string]any{}
		for _, field := range reflect.VisibleFields(value.Type()) {
			if part := value.FieldByIndex(field.Index); !field.Anonymous && !part.IsZero() {
				object[field.Name] = api(part)
			}
		}
		return object
	case kind == reflect.Slice && value.Type().Elem().Kind() == reflect.Struct:
		list := make([]any, value.Len())
		for i := range list {
			list[i] = api(value.Index(i))
		}
		return list
	}
	return value.Interface()
}
