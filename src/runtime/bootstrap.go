package runtime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/consul-mesh/mesh-buildpack/src/droplet"
)

// The configuration that an Envoy starts with where there is no Consul program
// to write it (Envoy: config.bootstrap.v3; Consul: proxy configuration
// reference for Envoy, the envoy_ keys).

type msg = map[string]any

// serverCluster is the cluster that Envoy gets its configuration from.
const serverCluster = "consul-server"

// adminCluster leads to Envoy's own admin API, for listeners that show a part
// of it.
const adminCluster = "self_admin"

// bootstrap names the service to the servers and says where they are; all else
// Envoy gets from them.
func (v *viaServers) bootstrap(ctx context.Context, r *registration) ([]byte, error) {
	config, err := v.bootstrapConfig(ctx, r)
	if err != nil {
		return nil, err
	}
	clusters := []any{v.serverCluster(), staticCluster(adminCluster, "127.0.0.1", r.AdminPort)}
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
	bootstrap := msg{
		"admin": msg{"address": socketAddress("127.0.0.1", r.AdminPort)},
		"node": msg{
			"cluster": r.name, "id": droplet.SidecarID(r.ID),
			"metadata": msg{"node_name": v.inst.NodeName(), "namespace": "default", "partition": "default"},
		},
		// Consul's route and intention patterns are long.
		"layered_runtime":  msg{"layers": []any{msg{"name": "base", "static_layer": msg{"re2.max_program_size.error_level": 1 << 20}}}},
		"static_resources": msg{"clusters": append(clusters, extra...), "listeners": listeners},
		"stats_sinks":      sinks,
		"stats_config":     statsConfig(r.name, config),
		"dynamic_resources": msg{
			"lds_config": ads, "cds_config": ads,
			"ads_config": msg{
				"api_type": "DELTA_GRPC", "transport_api_version": "V3",
				"grpc_services": msg{"envoy_grpc": msg{"cluster_name": serverCluster}},
			},
		},
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
func (v *viaServers) bootstrapConfig(ctx context.Context, r *registration) (msg, error) {
	var defaults struct{ Config msg }
	err := v.consul.callWith(ctx, v.access.serviceToken(), http.MethodGet, "/v1/config/proxy-defaults/global", nil, &defaults)
	var status *statusError
	if err != nil && !errors.As(err, &status) {
		return nil, err // otherwise there is none, or none to see
	}
	config := msg{}
	maps.Copy(config, defaults.Config)
	sidecar := object(object(r.definition["connect"])["sidecarservice"])
	maps.Copy(config, object(object(sidecar["proxy"])["config"]))
	return config, nil
}

// serverCluster leads to the servers, or to what stands before them where there
// is something secret to send along.
func (v *viaServers) serverCluster() msg {
	cluster := staticCluster(serverCluster, "", 0)
	var endpoints []any
	if v.xds != nil {
		endpoints = append(endpoints, endpoint(msg{"pipe": msg{"path": v.xds.socket}}))
	} else {
		cluster["type"], cluster["dns_lookup_family"] = "STRICT_DNS", "V4_PREFERRED"
		for _, name := range v.servers.names {
			if host, _, err := net.SplitHostPort(name); err == nil {
				name = host
			}
			endpoints = append(endpoints, endpoint(socketAddress(name, v.servers.grpc)))
		}
	}
	cluster["load_assignment"] = msg{"cluster_name": serverCluster, "endpoints": []any{msg{"lb_endpoints": endpoints}}}
	const options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
	cluster["typed_extension_protocol_options"] = msg{options: msg{
		"@type": "type.googleapis.com/" + options,
		// A server that is gone without a word is noticed.
		"explicit_http_config": msg{"http2_protocol_options": msg{"connection_keepalive": msg{"interval": "15s", "timeout": "5s"}}},
	}}
	return cluster
}

func staticCluster(name, host string, port int) msg {
	return msg{
		"name": name, "type": "STATIC", "connect_timeout": "1s",
		"load_assignment": msg{"cluster_name": name, "endpoints": []any{msg{"lb_endpoints": []any{endpoint(socketAddress(host, port))}}}},
	}
}

func endpoint(address msg) msg { return msg{"endpoint": msg{"address": address}} }

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
	for key, kind := range map[string]string{"envoy_statsd_url": "StatsdSink", "envoy_dogstatsd_url": "DogStatsdSink"} {
		text, _ := config[key].(string)
		if text == "" {
			continue
		}
		u, err := url.Parse(text)
		if err != nil {
			return nil, &finalError{fmt.Errorf("%s is no address: %w", key, err)}
		}
		address := msg{"pipe": msg{"path": u.Path}}
		if u.Scheme == "udp" {
			host, port, err := hostPort(u.Host)
			if err != nil {
				return nil, &finalError{fmt.Errorf("%s: %w", key, err)}
			}
			address = socketAddress(host, port)
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

// targetParts are the parts of the name of an upstream's cluster, as Consul
// makes it: [SUBSET.]SERVICE.NAMESPACE.DATACENTER.internal.TRUST-DOMAIN.consul
var targetParts = []struct{ tag, before, after string }{
	{"service", `(?:[^.]+\.)?`, `\.[^.]+\.[^.]+\.internal\.[^.]+\.consul\.`},
	{"datacenter", `(?:[^.]+\.)?[^.]+\.[^.]+\.`, `\.internal\.[^.]+\.consul\.`},
}

// statsConfig labels metrics as Consul's own bootstrap does, so that one
// dashboard serves both: with the caller's service and, for upstreams, with the
// service and the datacenter that are called.
func statsConfig(service string, config msg) msg {
	tags := []any{
		msg{"tag_name": "local_cluster", "fixed_value": service},
		msg{"tag_name": "consul.source.service", "fixed_value": service},
	}
	for _, part := range targetParts {
		tags = append(tags, msg{
			"tag_name": "consul.destination." + part.tag,
			"regex":    `^cluster\.(` + part.before + `([^.]+)` + part.after + `)`,
		})
	}
	list, _ := config["envoy_stats_tags"].([]any)
	for _, item := range list {
		text, _ := item.(string)
		if name, value, found := strings.Cut(text, "="); found {
			tags = append(tags, msg{"tag_name": name, "fixed_value": value})
		}
	}
	return msg{"stats_tags": tags, "use_all_default_tags": true}
}
