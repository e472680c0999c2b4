package meshfile

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// opaqueKey is a key of Consul's opaque configurations: what its value is, who reads
// it, and what it means for ports and policies.
type opaqueKey struct {
	is     valueKind
	reader reader
	// hatch says that it is Envoy's own configuration: newer servers register it only
	// with a token that has mesh:write (Consul 2.0, read, not run).
	hatch bool
	// listens gives the ports of a value that Envoy listens on, nil where it never does.
	listens func(value any) []int
}

// valueKind is what the value of a key has to be.
type valueKind int

const (
	ofText     valueKind = iota
	ofNumber             // a whole number, or text with one
	ofPort               // the same
	ofDuration           // text such as "10s", or nanoseconds
	ofList               // of text
	ofObject             // of values that innerKeys judges
	ofJSON               // text with one JSON object
	ofJSONList           // text with JSON objects, with commas between them
	ofAddress            // text with an IP address and a port
)

// words are what documents say of a kind.
var words = map[valueKind]string{
	ofText: "text", ofNumber: "number", ofPort: "port", ofDuration: "duration", ofList: "list of text", ofObject: "object",
	ofJSON: "JSON object as text", ofJSONList: "JSON objects as text, with commas between them", ofAddress: "IP address and port",
}

// reader is who reads a key, and under which names.
type reader int

// The zero value are the servers: they read names in any case, take numbers, truths and
// lists of one for text, and text for numbers.
const (
	// fields is read by servers too, also by names without underscores.
	fields reader = iota + 1
	// apart is read by servers apart from the others: without it the rest still counts.
	apart
	// sidecar reads a name as it stands, and takes nothing but text for text.
	sidecar
)

// sidecarKeys are the keys of a sidecar's config, and so of the bootstrap of all
// (Consul 1.22: agent/xds/config, command/connect/envoy).
var sidecarKeys = map[string]opaqueKey{
	"balance_inbound_connections": {reader: fields},
	"bind_address":                {},
	"bind_port":                   {is: ofPort, listens: numberOf},
	"envoy_listener_tracing_json": {is: ofJSON, hatch: true},
	"envoy_local_cluster_json":    {is: ofJSON, hatch: true},
	"envoy_public_listener_json":  {is: ofJSON, hatch: true},
	"local_connect_timeout_ms":    {is: ofNumber},
	"local_idle_timeout_ms":       {is: ofNumber},
	"local_request_timeout_ms":    {is: ofNumber},
	"max_inbound_connections":     {is: ofNumber},
	"max_request_headers_kb":      {is: ofNumber},
	"protocol":                    {},
	"xds_fetch_timeout_ms":        {is: ofNumber, reader: apart},

	"envoy_bootstrap_json_tpl":                  {reader: sidecar, hatch: true},
	"envoy_dogstatsd_url":                       {reader: sidecar},
	"envoy_extra_static_clusters_json":          {is: ofJSONList, reader: sidecar, hatch: true},
	"envoy_extra_static_listeners_json":         {is: ofJSONList, reader: sidecar, hatch: true, listens: listenerPorts},
	"envoy_extra_stats_sinks_json":              {is: ofJSONList, reader: sidecar, hatch: true},
	"envoy_prometheus_bind_addr":                {is: ofAddress, reader: sidecar, listens: addressPort},
	"envoy_stats_bind_addr":                     {is: ofAddress, reader: sidecar, listens: addressPort},
	"envoy_stats_config_json":                   {is: ofJSON, reader: sidecar, hatch: true},
	"envoy_stats_flush_interval":                {reader: sidecar},
	"envoy_stats_tags":                          {is: ofList, reader: sidecar},
	"envoy_statsd_url":                          {reader: sidecar},
	"envoy_telemetry_collector_bind_socket_dir": {reader: sidecar},
	"envoy_tracing_json":                        {is: ofJSON, reader: sidecar, hatch: true},
}

// upstreamKeys are the keys of an upstream's config (Consul 1.22: UpstreamConfig of
// agent/structs).
var upstreamKeys = map[string]opaqueKey{
	"balance_outbound_connections": {reader: fields},
	"connect_timeout_ms":           {is: ofNumber, reader: fields},
	"envoy_cluster_json":           {is: ofJSON, reader: fields, hatch: true},
	"envoy_listener_json":          {is: ofJSON, reader: fields, hatch: true},
	"limits":                       {is: ofObject, reader: fields},
	"mesh_gateway":                 {is: ofObject, reader: fields},
	"passive_health_check":         {is: ofObject, reader: fields},
	"protocol":                     {reader: fields},
}

// innerKeys are those of the objects in upstreamKeys.
var innerKeys = map[string]map[string]opaqueKey{
	"limits": {
		"max_concurrent_requests": {is: ofNumber, reader: fields}, "max_connections": {is: ofNumber, reader: fields}, "max_pending_requests": {is: ofNumber, reader: fields},
	},
	"mesh_gateway": {"mode": {reader: fields}},
	"passive_health_check": {
		"base_ejection_time": {is: ofDuration, reader: fields}, "enforcing_consecutive_5xx": {is: ofNumber, reader: fields}, "interval": {is: ofDuration, reader: fields},
		"max_ejection_percent": {is: ofNumber, reader: fields}, "max_failures": {is: ofNumber, reader: fields},
	},
}

// wrongType says what is wanted in place of a value of another type, empty where it is
// of the right one.
func (k opaqueKey) wrongType(value any) string {
	if one, is := value.([]any); is && len(one) == 1 && k.reader != sidecar {
		value = one[0] // so do the servers
	}
	text, isText := value.(string)
	_, isObject := value.(map[string]any)
	items, isList := value.([]any)
	switch k.is {
	case ofNumber, ofPort:
		if isText && text != "" {
			if _, err := strconv.ParseInt(text, 0, 64); err != nil {
				return "It is a number" + inMilliseconds(text) + ", without quotes."
			}
		}
		if isObject || isList {
			return "It is a number."
		}
	case ofDuration:
		if _, err := time.ParseDuration(text); isText && err != nil || isObject || isList {
			return `It is a duration, such as "10s".`
		}
	case ofList:
		for _, item := range items {
			_, is := item.(string)
			isList = isList && is
		}
		if !isList {
			return `It is a list of text, such as ["team=shop"].`
		}
	case ofObject:
		if !isObject {
			return "It is a set of names and values in braces."
		}
	case ofJSON, ofJSONList:
		if !isText {
			return "It is JSON as text: jsonencode({ … }) makes it."
		}
	default:
		if isObject || isList || !isText && k.reader == sidecar {
			return "It is text, in quotes."
		}
	}
	return ""
}

// inMilliseconds is what a duration would be as a number.
func inMilliseconds(text string) string {
	if d, err := time.ParseDuration(text); err == nil {
		return fmt.Sprintf(" of milliseconds, %d for %q", d.Milliseconds(), text)
	}
	return ""
}

// wrongValue says what is wrong with a value of the right type, empty where nothing is.
func (k opaqueKey) wrongValue(value any) string {
	text, _ := value.(string)
	switch {
	case k.is == ofJSON && text != "":
		return jsonProblem(text, "", "")
	case k.is == ofJSONList && text != "":
		return jsonProblem(text, "[", "]")
	case k.is == ofAddress && text != "":
		if _, err := netip.ParseAddrPort(text); err != nil {
			return fmt.Sprintf("%q is no IP address with a port, such as \"0.0.0.0:9102\".", text)
		}
	case k.is == ofPort:
		for _, n := range numberOf(value) {
			if n < 0 || n > 65535 {
				return fmt.Sprintf("A port is a number from 1 to 65535, not %d.", n)
			}
		}
	}
	return ""
}

// jsonProblem says what is wrong with a JSON object, and where: empty where nothing is.
// What stands before and after the text makes one value of several.
func jsonProblem(text, before, after string) string {
	hint := " jsonencode({ … }) makes it."
	if before != "" {
		hint = " jsonencode({ … }) makes it; several stand with commas between them, without brackets."
	}
	if err := json.Unmarshal([]byte(before+text+after), new(any)); err != nil {
		place := len(text)
		if syntax := (*json.SyntaxError)(nil); errors.As(err, &syntax) {
			place = min(max(int(syntax.Offset)-1-len(before), 0), len(text))
		}
		rest := []rune(strings.ToValidUTF8(text[place:], "\uFFFD"))
		where := "at its end"
		if len(rest) > 0 {
			where = fmt.Sprintf("at character %d, %q", len([]rune(text[:place]))+1, string(rest[:min(len(rest), 20)]))
		}
		return fmt.Sprintf("It is no JSON %s: %s.%s", where, err, hint)
	}
	var objects []map[string]any
	if before == "" {
		before, after = "[", "]"
	}
	if json.Unmarshal([]byte(before+text+after), &objects) != nil {
		return "It is JSON, but no object." + hint
	}
	for _, object := range objects {
		if object == nil {
			return "It is JSON, but no object." + hint
		}
	}
	return ""
}

// numberOf is the number of a value that is one, and is not 0.
func numberOf(value any) []int {
	text, is := value.(string)
	if n, isNumber := value.(float64); isNumber {
		text, is = strconv.FormatInt(int64(n), 10), true
	}
	if n, err := strconv.Atoi(text); is && err == nil && n != 0 {
		return []int{n}
	}
	return nil
}

// addressPort is the port of an address.
func addressPort(value any) []int {
	text, _ := value.(string)
	if at, err := netip.ParseAddrPort(text); err == nil && at.Port() != 0 {
		return []int{int(at.Port())}
	}
	return nil
}

// listenerPorts are the ports of Envoy's listeners (Envoy: config.listener.v3).
func listenerPorts(value any) (ports []int) {
	type socket struct {
		Port      int `json:"port_value"`
		CamelPort int `json:"portValue"`
	}
	var listeners []struct {
		Address struct {
			Socket      socket `json:"socket_address"`
			CamelSocket socket `json:"socketAddress"`
		} `json:"address"`
	}
	text, _ := value.(string)
	_ = json.Unmarshal([]byte("["+text+"]"), &listeners) // wrongValue says what is wrong with it
	for _, l := range listeners {
		for _, s := range []socket{l.Address.Socket, l.Address.CamelSocket} {
			if n := max(s.Port, s.CamelPort); n > 0 {
				ports = append(ports, n)
			}
		}
	}
	return ports
}
