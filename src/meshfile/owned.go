package meshfile

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
)

// The opaque parts of the language are read by Consul and Envoy alone. What of
// them has an attribute or block of its own is refused there.

// The keys of opaque configurations that an attribute or block of the file says
// too, as plainKey has them.
var (
	sidecarConfigKeys  = map[string]string{"protocol": "protocol"}
	upstreamConfigKeys = map[string]string{
		"protocol": "protocol", "connecttimeoutms": "connect_timeout", "balanceoutboundconnections": "balance",
		"limits": "limits", "passivehealthcheck": "passive_health_check",
	}
	envoyKeys   = map[string]string{"envoytracingjson": "tracing_json"}
	metricsKeys = map[string]string{
		"envoyprometheusbindaddr": "prometheus", "envoystatsdurl": "statsd", "envoydogstatsdurl": "dogstatsd",
	}
)

// plainKey is how Consul compares keys: connect_timeout_ms is ConnectTimeoutMs.
func plainKey(key string) string { return strings.ToLower(strings.ReplaceAll(key, "_", "")) }

// saidTwice refuses a key of an opaque configuration whose attribute or block
// stands in the file too: the key or the attribute would be dropped.
func (v *validator) saidTwice(config opaque, details ...string) {
	if len(details) > 0 {
		v.fail(at(config.body, config.name), "Said twice", "%s Say each once.", strings.Join(details, " "))
	}
}

// alsoSaidIn says which keys a body says too, by an attribute or a block.
func (config opaque) alsoSaidIn(body hcl.Body, t reflect.Type, keys map[string]string) (details []string) {
	found := content(body, t)
	given := func(name string) bool {
		return found.Attributes[name] != nil || slices.ContainsFunc(found.Blocks, func(b *hcl.Block) bool { return b.Type == name })
	}
	for _, key := range config.keys() {
		if name := keys[plainKey(key)]; name != "" && given(name) {
			details = append(details, key+" in "+config.name+" is what "+name+" says too.")
		}
	}
	return details
}

// configs checks the opaque configurations of all Envoys: those of sidecars,
// and the one of the block envoy, which is for all.
func (v *validator) configs(m *Mesh) {
	e := m.Envoy
	byEnvoy := func(config opaque) []string {
		details := config.alsoSaidIn(e.Body, typeOfEnvoy, envoyKeys)
		if e.Metrics != nil {
			details = append(details, config.alsoSaidIn(e.Metrics.Body, typeOfMetrics, metricsKeys)...)
		}
		return details
	}
	bootstrap := opaque{e.Body, "bootstrap", e.Bootstrap}
	v.saidTwice(bootstrap, byEnvoy(bootstrap)...)
	common := map[string]bool{}
	for _, key := range bootstrap.keys() {
		common[plainKey(key)] = true
	}
	for _, s := range m.Services {
		config := opaque{s.Sidecar.Body, "config", s.Sidecar.Config}
		details := append(config.alsoSaidIn(s.Body, typeOfService, sidecarConfigKeys), byEnvoy(config)...)
		for _, key := range config.keys() {
			if common[plainKey(key)] {
				details = append(details, key+" in config stands in bootstrap of the block envoy too.")
			}
		}
		v.saidTwice(config, details...)
		for _, u := range s.Upstreams {
			config := opaque{u.Body, "config", u.Config}
			v.saidTwice(config, config.alsoSaidIn(u.Body, typeOfUpstream, upstreamConfigKeys)...)
		}
	}
}

// ownedAgentKeys are the keys of the agent's configuration that the buildpack
// sets itself, with what to say instead.
var ownedAgentKeys = map[string]string{
	"acl":                         "the bound service",
	"addresses":                   "",
	"advertise_addr":              "",
	"advertise_addr_ipv4":         "",
	"advertise_addr_ipv6":         "",
	"advertise_reconnect_timeout": "",
	"auto_config":                 "the bound service",
	"auto_encrypt":                "the bound service",
	"bind_addr":                   "",
	"bootstrap":                   "",
	"bootstrap_expect":            "",
	"ca_file":                     "the bound service",
	"cert_file":                   "the bound service",
	"client_addr":                 "",
	"data_dir":                    "",
	"datacenter":                  "datacenter",
	"disable_update_check":        "",
	"enable_local_script_checks":  "",
	"enable_script_checks":        "",
	"encrypt":                     "the bound service",
	"key_file":                    "the bound service",
	"leave_on_terminate":          "",
	"log_level":                   "log_level",
	"node_id":                     "",
	"node_meta":                   "node_meta",
	"node_name":                   "",
	"ports":                       "the block ports",
	"retry_interval":              "retry_interval",
	"retry_join":                  "retry_join",
	"retry_max":                   "retry_max",
	"serf_lan":                    "",
	"server":                      "",
	"service":                     "a service block",
	"services":                    "a service block",
	"start_join":                  "retry_join",
	"tls":                         "the bound service",
	"verify_incoming":             "the bound service",
	"verify_outgoing":             "the bound service",
	"verify_server_hostname":      "the bound service",
}

func (v *validator) consul(c *Consul) {
	v.addresses(c.Body, "retry_join", c.RetryJoin, joinProblem)
	var details []string
	for _, key := range slices.Sorted(maps.Keys(c.Config)) {
		// Consul reads keys in any case.
		if instead, owned := ownedAgentKeys[strings.ToLower(key)]; owned {
			detail := "The buildpack sets " + key + " itself."
			if instead != "" {
				detail += " Use " + instead + "."
			}
			details = append(details, detail)
		}
	}
	if len(details) > 0 {
		v.fail(at(c.Body, "config"), "A key that the buildpack sets", "%s", strings.Join(details, " "))
	}
}

// addresses judges the addresses of the servers in an attribute, each by problem.
func (v *validator) addresses(body hcl.Body, name string, addresses []string, problem func(string) string) {
	if len(addresses) == 0 {
		v.fail(at(body, name), "No server to join",
			"%s lists at least one address of a Consul server, such as %q.", name, DefaultRetryJoin)
	}
	var details []string
	for _, address := range addresses {
		if detail := problem(address); detail != "" {
			details = append(details, detail)
		}
	}
	if len(details) > 0 {
		v.fail(at(body, name), "Not an address", "%s", strings.Join(details, " "))
	}
}

func joinProblem(address string) string {
	if strings.TrimSpace(address) == "" || strings.ContainsFunc(address, isControl) {
		return fmt.Sprintf("%q is no address of a server.", address)
	}
	return ""
}

// source checks where a program comes from instead of the manifest.
func (v *validator) source(body hcl.Body, source, sum string) {
	switch remote := strings.Contains(source, "://"); {
	case remote && sum == "":
		v.fail(at(body, "source"), "A source without a checksum", "Say sha256 too: what an address gives is run only if it is what you mean.")
	case source == "" && sum != "":
		v.fail(at(body, "sha256"), "A checksum without a source", "Say source too.")
	}
}

// ownedEnvoyArguments are Envoy's arguments that the buildpack sets itself,
// with what to say instead.
var ownedEnvoyArguments = map[string]string{
	"--config-path": "bootstrap", "-c": "bootstrap", "--concurrency": "concurrency", "--log-level": "log_level",
	"-l": "log_level", "--log-format": "", "--disable-hot-restart": "",
}

func (v *validator) envoy(e *Envoy) {
	var details []string
	for _, argument := range e.ExtraArgs {
		name, _, _ := strings.Cut(argument, "=")
		instead, owned := ownedEnvoyArguments[name]
		if !owned {
			continue
		}
		detail := "The buildpack sets " + name + " itself."
		if instead != "" {
			detail += " Use " + instead + "."
		}
		details = append(details, detail)
	}
	if len(details) > 0 {
		v.fail(at(e.Body, "extra_args"), "An argument that the buildpack sets", "%s", strings.Join(details, " "))
	}
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }
