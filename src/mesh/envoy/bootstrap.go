package envoy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"github.com/consul-mesh/mesh-buildpack/src/credentials"
	"github.com/consul-mesh/mesh-buildpack/src/droplet"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/consul"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/wait"
)

// The configuration that an Envoy starts with (Envoy: config.bootstrap.v3;
// Consul: proxy configuration reference for Envoy, the envoy_ keys). It is
// written here rather than by `consul connect envoy -bootstrap`, which takes a
// tenth of a second of a processor and is not there without an agent.

// Msg is a message of Envoy's API, as JSON.
type Msg = map[string]any

// adminCluster leads to Envoy's own admin API, for listeners that show a part
// of it.
const adminCluster = "self_admin"

// Origin is where an Envoy gets its configuration from.
type Origin struct {
	Name       string // of the cluster that leads there
	Cluster    Msg
	Metadata   Msg // of the Envoy's node
	Datacenter func() string
}

// WriteBootstrap names the service to its origin, and says where that is; all
// else Envoy gets from there.
func WriteBootstrap(s Sidecar, from Origin, config Msg) ([]byte, error) {
	clusters := []any{from.Cluster, Cluster(adminCluster, "STATIC", SocketAddress("127.0.0.1", s.AdminPort))}
	extra, err := jsonList(config, "envoy_extra_static_clusters_json")
	if err != nil {
		return nil, err
	}
	listeners, err := jsonList(config, "envoy_extra_static_listeners_json")
	if err != nil {
		return nil, err
	}
	if text, _ := config[metricsKey].(string); text != "" {
		listener, err := metricsListener(text)
		if err != nil {
			return nil, err
		}
		listeners = append(listeners, listener)
	}
	sinks, err := statsSinks(config)
	if err != nil {
		return nil, err
	}
	ads := Msg{"ads": Msg{}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"}
	metadata := Msg{"namespace": "default", "partition": "default"}
	maps.Copy(metadata, from.Metadata)
	bootstrap := Msg{
		"admin": Msg{"address": SocketAddress("127.0.0.1", s.AdminPort)},
		"node":  Msg{"cluster": s.Name, "id": droplet.SidecarID(s.ID), "metadata": metadata},
		// Consul's route and intention patterns are long.
		"layered_runtime":  Msg{"layers": []any{Msg{"name": "base", "static_layer": Msg{"re2.max_program_size.error_level": 1 << 20}}}},
		"static_resources": Msg{"clusters": append(clusters, extra...), "listeners": listeners},
		"stats_sinks":      sinks,
		"dynamic_resources": Msg{
			"lds_config": ads, "cds_config": ads,
			"ads_config": Msg{
				"api_type": "DELTA_GRPC", "transport_api_version": "V3",
				"grpc_services": Msg{
					"envoy_grpc":       Msg{"cluster_name": from.Name, "retry_policy": Msg{"retry_back_off": streamAgain}},
					"initial_metadata": []any{Msg{"key": sidecarHeader, "value": droplet.SidecarID(s.ID)}},
				},
			},
		},
	}
	tags, _ := config["envoy_stats_tags"].([]any)
	// Where no metrics go anywhere, nobody sees labels, and to find them would be
	// a third of all that an Envoy does to start.
	if len(listeners)+len(sinks)+len(tags) > 0 {
		bootstrap["stats_config"] = statsConfig(s.Name, from.Datacenter(), tags)
	}
	for key, field := range map[string]string{"envoy_stats_config_json": "stats_config", "envoy_tracing_json": "tracing"} {
		text, _ := config[key].(string)
		if text == "" {
			continue
		}
		var value any
		if err := json.Unmarshal([]byte(text), &value); err != nil {
			return nil, wait.Final(fmt.Errorf("%s is no JSON: %w", key, err))
		}
		bootstrap[field] = value
	}
	if interval, _ := config["envoy_stats_flush_interval"].(string); interval != "" {
		bootstrap["stats_flush_interval"] = interval
	}
	return json.Marshal(bootstrap)
}

// BootstrapConfig is the sidecar's configuration, laid over that of the
// operator's proxy-defaults.
func BootstrapConfig(ctx context.Context, c *consul.Client, token credentials.Secret, s Sidecar, log wait.Log) (Msg, error) {
	// A list, because an entry that is not there would be an error in the
	// agent's log.
	var defaults []struct{ Config Msg }
	err := c.CallWith(ctx, token, http.MethodGet, "/v1/config/proxy-defaults", nil, &defaults)
	if err != nil && consul.Passes(err) {
		return nil, err // otherwise there is none, or none to see
	}
	config := Msg{}
	for _, entry := range defaults {
		maps.Copy(config, entry.Config)
	}
	s.shareMetricsPort(config, log)
	maps.Copy(config, s.Config)
	for key := range sinkKinds {
		text, _ := config[key].(string)
		if _, err := statsAddress(text); text != "" && err != nil {
			log("%s: no metrics are sent to the %s of proxy-defaults, %q: %v", s.ID, key, text, err)
			delete(config, key)
		}
	}
	return config, nil
}

// metricsKey is where Envoy shows its metrics to who asks.
const metricsKey = "envoy_prometheus_bind_addr"

// MetricsPort is the port in a sidecar's configuration, 0 where it says none.
func MetricsPort(config Msg) int {
	text, _ := config[metricsKey].(string)
	_, port, err := hostPort(text)
	if err != nil {
		return 0
	}
	return port
}

// shareMetricsPort gives the Envoys of an instance a port each where proxy-defaults say
// one for all: two on the same would share it without a word, and each scrape get one
// of them by chance.
func (s Sidecar) shareMetricsPort(config Msg, log wait.Log) {
	text, _ := config[metricsKey].(string)
	host, first, err := hostPort(text)
	if s.Config[metricsKey] != nil || err != nil || first == 0 {
		return // what is wrong with it, metricsListener says
	}
	port := first - 1
	for range s.Nth + 1 {
		for port++; s.Taken[port]; port++ {
		}
	}
	if port != first {
		config[metricsKey] = net.JoinHostPort(host, strconv.Itoa(port))
		log("%s: its metrics are on port %d: another of this instance has %d, which proxy-defaults say in %s", s.ID, port, first, metricsKey)
	}
}

// sinkKinds are the kinds of sinks by the keys of their addresses.
var sinkKinds = map[string]string{"envoy_statsd_url": "StatsdSink", "envoy_dogstatsd_url": "DogStatsdSink"}

// statsAddress is where a sink listens. An operator's may be meant for others:
// Consul's own program knows variables in it, such as ${HOST_IP} on Kubernetes.
func statsAddress(text string) (Msg, error) {
	u, err := url.Parse(text)
	switch {
	case strings.Contains(text, "$"):
		return nil, errors.New("variables mean nothing here")
	case err == nil && u.Scheme == "unix" && u.Path != "":
		return Pipe(u.Path), nil
	case err == nil && u.Scheme == "udp":
		address, err := netip.ParseAddrPort(u.Host)
		return SocketAddress(address.Addr().String(), int(address.Port())), err
	}
	return nil, errors.New("it is neither udp://IP:PORT nor unix:///PATH")
}

// streamAgain is how long Envoy waits, a random part of it, before it asks again
// when its stream has ended, and how long at most after several times. Its own
// half second, which grows to 30, is for servers that are asked directly; here an
// agent comes back, or the relay asks another server.
var streamAgain = Msg{"base_interval": "0.025s", "max_interval": "1s"}

// Http2 makes a cluster speak HTTP/2, with pings: an origin that is gone without
// a word is noticed.
func Http2(cluster Msg) Msg {
	const options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
	cluster["typed_extension_protocol_options"] = Msg{options: Msg{
		"@type":                "type.googleapis.com/" + options,
		"explicit_http_config": Msg{"http2_protocol_options": Msg{"connection_keepalive": Msg{"interval": "15s", "timeout": "5s"}}},
	}}
	return cluster
}

// Cluster is one with a name, of a kind (Envoy: DiscoveryType), at addresses.
func Cluster(name, kind string, addresses ...Msg) Msg {
	var endpoints []any
	for _, address := range addresses {
		endpoints = append(endpoints, Msg{"endpoint": Msg{"address": address}})
	}
	return Msg{
		"name": name, "type": kind, "connect_timeout": "1s",
		"load_assignment": Msg{"cluster_name": name, "endpoints": []any{Msg{"lb_endpoints": endpoints}}},
	}
}

// Pipe is the address of a Unix socket.
func Pipe(path string) Msg { return Msg{"pipe": Msg{"path": path}} }

// SocketAddress is a TCP address.
func SocketAddress(host string, port int) Msg {
	return Msg{"socket_address": Msg{"address": host, "port_value": port}}
}

// metricsListener shows /metrics, and nothing else of the admin API.
func metricsListener(bind string) (Msg, error) {
	host, port, err := hostPort(bind)
	if err != nil {
		return nil, wait.Final(fmt.Errorf("%s: %w", metricsKey, err))
	}
	const filters = "type.googleapis.com/envoy.extensions.filters."
	manager := Msg{
		"@type": filters + "network.http_connection_manager.v3.HttpConnectionManager", "stat_prefix": "metrics",
		"route_config": Msg{"virtual_hosts": []any{Msg{"name": adminCluster, "domains": []string{"*"}, "routes": []any{
			Msg{"match": Msg{"path": "/metrics"}, "route": Msg{"cluster": adminCluster, "prefix_rewrite": "/stats/prometheus"}},
			Msg{"match": Msg{"prefix": "/"}, "direct_response": Msg{"status": http.StatusNotFound}},
		}}}},
		"http_filters": []any{Msg{"name": "router", "typed_config": Msg{"@type": filters + "http.router.v3.Router"}}},
	}
	return Msg{
		"name": "metrics", "address": SocketAddress(host, port),
		"filter_chains": []any{Msg{"filters": []any{Msg{"name": "http", "typed_config": manager}}}},
	}, nil
}

func hostPort(text string) (string, int, error) {
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		return "", 0, err
	}
	n, err := strconv.Atoi(port)
	return host, n, err
}

// statsSinks are where metrics are pushed to.
func statsSinks(config Msg) ([]any, error) {
	sinks, err := jsonList(config, "envoy_extra_stats_sinks_json")
	if err != nil {
		return nil, err
	}
	for key, kind := range sinkKinds {
		text, _ := config[key].(string)
		if text == "" {
			continue
		}
		address, err := statsAddress(text)
		if err != nil {
			return nil, wait.Final(fmt.Errorf("%s: %w", key, err))
		}
		sinks = append(sinks, Msg{"name": kind, "typed_config": Msg{
			"@type": "type.googleapis.com/envoy.config.metrics.v3." + kind, "address": address,
		}})
	}
	return sinks, nil
}

// jsonList reads a key whose text is JSON values with commas between them.
func jsonList(config Msg, key string) ([]any, error) {
	text, _ := config[key].(string)
	list := []any{}
	if err := json.Unmarshal([]byte("["+text+"]"), &list); err != nil {
		return nil, wait.Final(fmt.Errorf("%s is no JSON: %w", key, err))
	}
	return list, nil
}

// Consul names an upstream's cluster
// [HASH~][SUBSET.]SERVICE.NAMESPACE.DATACENTER.ROUTING.TRUST-DOMAIN.consul and
// its listener upstream.SERVICE.NAMESPACE.DATACENTER: the parts are labels of
// its metrics.
type namePart struct{ tag, pattern, separator string }

const label = `[^.]+`

var (
	clusterName = []namePart{
		{"custom_hash", `[^.~]+`, "~?"}, {"service_subset", label, `\.?`}, {"service", label, `\.`}, {"namespace", label, `\.`},
		{"datacenter", label, `\.`}, {"routing_type", `internal[^.]*|external[^.]*`, `\.`}, {"trust_domain", label, `\.consul\.`},
	}
	listenerName = []namePart{{"service", label, `\.`}, {"namespace", label, `\.`}, {"datacenter", label, `\.`}}
)

// tagsOf makes the labels of a name's parts. Envoy takes the first group out of
// a metric's name, and the second for the label.
func tagsOf(prefix, start string, parts []namePart) []any {
	var tags []any
	for i, part := range parts {
		pattern := ""
		for j, other := range parts {
			text := "(?:" + other.pattern + ")"
			if i == j {
				text = "(" + other.pattern + ")"
			}
			if separator, optional := strings.CutSuffix(other.separator, "?"); optional {
				pattern += "(?:" + text + separator + ")?"
			} else {
				pattern += text + other.separator
			}
		}
		tags = append(tags, Msg{"tag_name": prefix + part.tag, "regex": start + "(" + pattern + ")"})
	}
	return tags
}

// statsConfig labels metrics as Consul's own bootstrap does, so that the same
// dashboards serve.
func statsConfig(service, datacenter string, more []any) Msg {
	fixed := func(name, value string) any { return Msg{"tag_name": name, "fixed_value": value} }
	tags := []any{
		fixed("local_cluster", service), fixed("consul.source.service", service),
		fixed("consul.source.namespace", "default"), fixed("consul.source.partition", "default"),
	}
	if datacenter != "" {
		tags = append(tags, fixed("consul.source.datacenter", datacenter))
	}
	tags = append(tags, tagsOf("consul.destination.", `^cluster\.`, clusterName)...)
	// Envoy tries a pattern only on names that begin with its first word, if that
	// is plain.
	for _, protocol := range []string{"tcp", "http"} {
		tags = append(tags, tagsOf("consul.upstream.", "^"+protocol+`\.upstream\.`, listenerName)...)
	}
	for _, item := range more {
		text, _ := item.(string)
		if name, value, found := strings.Cut(text, "="); found {
			tags = append(tags, fixed(name, value))
		}
	}
	return Msg{"stats_tags": tags, "use_all_default_tags": true}
}
