package runtime

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

	"github.com/consul-mesh/mesh-buildpack/src/droplet"
)

// The configuration that an Envoy starts with (Envoy: config.bootstrap.v3;
// Consul: proxy configuration reference for Envoy, the envoy_ keys). It is
// written here rather than by `consul connect envoy -bootstrap`, which takes a
// tenth of a second of a processor and is not there without an agent.

type msg = map[string]any

// adminCluster leads to Envoy's own admin API, for listeners that show a part
// of it.
const adminCluster = "self_admin"

// consulKeys are the keys that only Consul's own program knows.
var consulKeys = []string{"envoy_bootstrap_json_tpl", "envoy_telemetry_collector_bind_socket_dir", "envoy_stats_bind_addr"}

// origin is where an Envoy gets its configuration from.
type origin struct {
	name       string // of the cluster that leads there
	cluster    msg
	metadata   msg // of the Envoy's node
	datacenter func() string
}

// writeBootstrap names the service to its origin, and says where that is; all
// else Envoy gets from there.
func writeBootstrap(r *registration, from origin, config msg) ([]byte, error) {
	clusters := []any{from.cluster, cluster(adminCluster, "STATIC", socketAddress("127.0.0.1", r.AdminPort))}
	extra, err := jsonList(config, "envoy_extra_static_clusters_json")
	if err != nil {
		return nil, err
	}
	listeners, err := jsonList(config, "envoy_extra_static_listeners_json")
	if err != nil {
		return nil, err
	}
	if text, _ := config["envoy_prometheus_bind_addr"].(string); text != "" {
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
	ads := msg{"ads": msg{}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"}
	metadata := msg{"namespace": "default", "partition": "default"}
	maps.Copy(metadata, from.metadata)
	bootstrap := msg{
		"admin": msg{"address": socketAddress("127.0.0.1", r.AdminPort)},
		"node":  msg{"cluster": r.name, "id": droplet.SidecarID(r.ID), "metadata": metadata},
		// Consul's route and intention patterns are long.
		"layered_runtime":  msg{"layers": []any{msg{"name": "base", "static_layer": msg{"re2.max_program_size.error_level": 1 << 20}}}},
		"static_resources": msg{"clusters": append(clusters, extra...), "listeners": listeners},
		"stats_sinks":      sinks,
		"dynamic_resources": msg{
			"lds_config": ads, "cds_config": ads,
			"ads_config": msg{
				"api_type": "DELTA_GRPC", "transport_api_version": "V3",
				"grpc_services": msg{
					"envoy_grpc":       msg{"cluster_name": from.name, "retry_policy": msg{"retry_back_off": streamAgain}},
					"initial_metadata": []any{msg{"key": sidecarHeader, "value": droplet.SidecarID(r.ID)}},
				},
			},
		},
	}
	tags, _ := config["envoy_stats_tags"].([]any)
	// Where no metrics go anywhere, nobody sees labels, and to find them would be
	// a third of all that an Envoy does to start.
	if len(listeners)+len(sinks)+len(tags) > 0 {
		bootstrap["stats_config"] = statsConfig(r.name, from.datacenter(), tags)
	}
	for key, field := range map[string]string{"envoy_stats_config_json": "stats_config", "envoy_tracing_json": "tracing"} {
		text, _ := config[key].(string)
		if text == "" {
			continue
		}
		var value any
		if err := json.Unmarshal([]byte(text), &value); err != nil {
			return nil, &finalError{fmt.Errorf("%s is no JSON: %w", key, err)}
		}
		bootstrap[field] = value
	}
	if interval, _ := config["envoy_stats_flush_interval"].(string); interval != "" {
		bootstrap["stats_flush_interval"] = interval
	}
	return json.Marshal(bootstrap)
}

// bootstrapConfig is the sidecar's configuration, laid over that of the
// operator's proxy-defaults.
func (p *proxy) bootstrapConfig(ctx context.Context, r *registration) (msg, error) {
	// A list, because an entry that is not there would be an error in the
	// agent's log.
	var defaults []struct{ Config msg }
	err := p.consul.callWith(ctx, p.access.serviceToken(), http.MethodGet, "/v1/config/proxy-defaults", nil, &defaults)
	if err != nil && passes(err) {
		return nil, err // otherwise there is none, or none to see
	}
	config := msg{}
	for _, entry := range defaults {
		maps.Copy(config, entry.Config)
	}
	sidecar := r.sidecarDefinition()
	maps.Copy(config, object(object(sidecar["proxy"])["config"]))
	for key := range sinkKinds {
		text, _ := config[key].(string)
		if _, err := statsAddress(text); text != "" && err != nil {
			p.log("%s: no metrics are sent to the %s of proxy-defaults, %q: %v", r.ID, key, text, err)
			delete(config, key)
		}
	}
	return config, nil
}

// sinkKinds are the kinds of sinks by the keys of their addresses.
var sinkKinds = map[string]string{"envoy_statsd_url": "StatsdSink", "envoy_dogstatsd_url": "DogStatsdSink"}

// statsAddress is where a sink listens. An operator's may be meant for others:
// Consul's own program knows variables in it, such as ${HOST_IP} on Kubernetes.
func statsAddress(text string) (msg, error) {
	u, err := url.Parse(text)
	switch {
	case strings.Contains(text, "$"):
		return nil, errors.New("variables mean nothing here")
	case err == nil && u.Scheme == "unix" && u.Path != "":
		return pipe(u.Path), nil
	case err == nil && u.Scheme == "udp":
		address, err := netip.ParseAddrPort(u.Host)
		return socketAddress(address.Addr().String(), int(address.Port())), err
	}
	return nil, errors.New("it is neither udp://IP:PORT nor unix:///PATH")
}

// streamAgain is how long Envoy waits, a random part of it, before it asks again
// when its stream has ended, and how long at most after several times. Its own
// half second, which grows to 30, is for servers that are asked directly; here an
// agent comes back, or the relay asks another server.
var streamAgain = msg{"base_interval": "0.025s", "max_interval": "5s"}

// http2 makes a cluster speak HTTP/2, with pings: an origin that is gone without
// a word is noticed.
func http2(cluster msg) msg {
	const options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
	cluster["typed_extension_protocol_options"] = msg{options: msg{
		"@type":                "type.googleapis.com/" + options,
		"explicit_http_config": msg{"http2_protocol_options": msg{"connection_keepalive": msg{"interval": "15s", "timeout": "5s"}}},
	}}
	return cluster
}

func cluster(name, kind string, addresses ...msg) msg {
	var endpoints []any
	for _, address := range addresses {
		endpoints = append(endpoints, msg{"endpoint": msg{"address": address}})
	}
	return msg{
		"name": name, "type": kind, "connect_timeout": "1s",
		"load_assignment": msg{"cluster_name": name, "endpoints": []any{msg{"lb_endpoints": endpoints}}},
	}
}

func pipe(path string) msg { return msg{"pipe": msg{"path": path}} }

func socketAddress(host string, port int) msg {
	return msg{"socket_address": msg{"address": host, "port_value": port}}
}

// metricsListener shows /metrics, and nothing else of the admin API.
func metricsListener(bind string) (msg, error) {
	host, port, err := hostPort(bind)
	if err != nil {
		return nil, &finalError{fmt.Errorf("envoy_prometheus_bind_addr: %w", err)}
	}
	const filters = "type.googleapis.com/envoy.extensions.filters."
	manager := msg{
		"@type": filters + "network.http_connection_manager.v3.HttpConnectionManager", "stat_prefix": "metrics",
		"route_config": msg{"virtual_hosts": []any{msg{"name": adminCluster, "domains": []string{"*"}, "routes": []any{
			msg{"match": msg{"path": "/metrics"}, "route": msg{"cluster": adminCluster, "prefix_rewrite": "/stats/prometheus"}},
			msg{"match": msg{"prefix": "/"}, "direct_response": msg{"status": http.StatusNotFound}},
		}}}},
		"http_filters": []any{msg{"name": "router", "typed_config": msg{"@type": filters + "http.router.v3.Router"}}},
	}
	return msg{
		"name": "metrics", "address": socketAddress(host, port),
		"filter_chains": []any{msg{"filters": []any{msg{"name": "http", "typed_config": manager}}}},
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
func statsSinks(config msg) ([]any, error) {
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
			return nil, &finalError{fmt.Errorf("%s: %w", key, err)}
		}
		sinks = append(sinks, msg{"name": kind, "typed_config": msg{
			"@type": "type.googleapis.com/envoy.config.metrics.v3." + kind, "address": address,
		}})
	}
	return sinks, nil
}

// jsonList reads a key whose text is JSON values with commas between them.
func jsonList(config msg, key string) ([]any, error) {
	text, _ := config[key].(string)
	list := []any{}
	if err := json.Unmarshal([]byte("["+text+"]"), &list); err != nil {
		return nil, &finalError{fmt.Errorf("%s is no JSON: %w", key, err)}
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
		tags = append(tags, msg{"tag_name": prefix + part.tag, "regex": start + "(" + pattern + ")"})
	}
	return tags
}

// statsConfig labels metrics as Consul's own bootstrap does, so that the same
// dashboards serve.
func statsConfig(service, datacenter string, more []any) msg {
	fixed := func(name, value string) any { return msg{"tag_name": name, "fixed_value": value} }
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
	return msg{"stats_tags": tags, "use_all_default_tags": true}
}
