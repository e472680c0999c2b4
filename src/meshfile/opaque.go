package meshfile

import (
	"maps"
	"slices"
	"strings"

	"github.com/agext/levenshtein"
	"github.com/hashicorp/hcl/v2"
)

// opaque is an opaque configuration, and the attribute that has it.
type opaque struct {
	body  hcl.Body
	name  string
	value Object
}

func (config opaque) keys() []string { return slices.Sorted(maps.Keys(config.value)) }

// at is where a key stands, or the attribute where that makes its keys.
func (config opaque) at(key string) hcl.Range {
	attribute := attributeOf(config.body, config.name)
	if attribute == nil {
		return hcl.Range{}
	}
	pairs, _ := hcl.ExprMap(attribute.Expr) // none of an expression that is no object
	for _, pair := range pairs {
		if name, diags := pair.Key.Value(nil); !diags.HasErrors() && name.IsWhollyKnown() && name.Type().FriendlyName() == "string" && name.AsString() == key {
			return pair.Key.Range()
		}
	}
	return attribute.Expr.Range()
}

// find is what a table says of a name.
func find(keys map[string]opaqueKey, name string) (opaqueKey, bool) {
	if k, known := keys[name]; known {
		return k, true
	}
	for known, k := range keys {
		if k.reader != sidecar && strings.EqualFold(known, name) || k.reader == fields && strings.EqualFold(plainKey(known), name) {
			return k, true
		}
	}
	return opaqueKey{}, false
}

// nearest is the name in a table that is most like another.
func nearest(keys map[string]opaqueKey, name string) string {
	return slices.MinFunc(slices.Sorted(maps.Keys(keys)), func(a, b string) int {
		return levenshtein.Distance(strings.ToLower(name), a, nil) - levenshtein.Distance(strings.ToLower(name), b, nil)
	})
}

// values judges the values of a configuration by a table. fatal says that a value of
// another type leaves Envoy without what it needs to start.
func (v *validator) values(config opaque, keys map[string]opaqueKey, fatal bool) {
	for _, name := range config.keys() {
		value := config.value[name]
		k, known := find(keys, name)
		switch {
		case !known:
			v.warn(config.at(name), "A key that nobody reads", "Neither Consul nor Envoy's bootstrap knows %s in %s. Did you mean %s?", name, config.name, nearest(keys, name))
		case value == nil: // as if it were not there
		case k.wrongType(value) != "":
			v.wrongType(config.at(name), name, k, k.wrongType(value), fatal)
		case k.wrongValue(value) != "":
			v.fail(config.at(name), "Not what the key needs", "%s: %s", name, k.wrongValue(value))
		}
		if inner, is := value.(map[string]any); known && is && k.is == ofObject {
			v.inner(config.at(name), name, inner, fatal)
		}
	}
}

// inner judges an object in a configuration.
func (v *validator) inner(at hcl.Range, object string, values map[string]any, fatal bool) {
	keys := innerKeys[plainOf(innerKeys, object)]
	for _, name := range slices.Sorted(maps.Keys(values)) {
		k, known := find(keys, name)
		switch {
		case !known:
			v.warn(at, "A key that nobody reads", "Consul knows no %s in %s. Did you mean %s?", name, object, nearest(keys, name))
		case values[name] != nil && k.wrongType(values[name]) != "":
			v.wrongType(at, object+"."+name, k, k.wrongType(values[name]), fatal)
		}
	}
}

// plainOf is the name in a table that Consul takes for another.
func plainOf[T any](table map[string]T, name string) string {
	for known := range table {
		if plainKey(known) == plainKey(name) {
			return known
		}
	}
	return name
}

func (v *validator) wrongType(at hcl.Range, name string, k opaqueKey, wanted string, fatal bool) {
	const summary = "Not what the key needs"
	switch {
	case k.reader == sidecar:
		v.warn(at, summary, "%s: %s It is left out as it stands.", name, wanted)
	case fatal && k.reader != apart:
		v.fail(at, summary, "%s: %s As it stands, Envoy gets no configuration that it takes, and the instance never starts.", name, wanted)
	default:
		v.warn(at, summary, "%s: %s Consul leaves it out as it stands.", name, wanted)
	}
}

// startsAnyway says that a sidecar gets along without what Consul cannot read: a
// timeout of its own is what Envoy needs of it.
func startsAnyway(configs ...Object) bool {
	return slices.ContainsFunc(configs, func(config Object) bool {
		for name, value := range config {
			switch k, _ := find(sidecarKeys, name); strings.ToLower(name) {
			case "local_connect_timeout_ms":
				if ms := numberOf(value); k.wrongType(value) == "" && len(ms) == 1 && ms[0] > 0 {
					return true
				}
			case "envoy_local_cluster_json":
				if k.wrongType(value) == "" && value != "" {
					return true
				}
			}
		}
		return false
	})
}

// opaqueValues judges those of all sidecars and upstreams.
func (v *validator) opaqueValues(m *Mesh) {
	common := m.Envoy.Bootstrap
	v.values(opaque{m.Envoy.Body, "bootstrap", common}, sidecarKeys, slices.ContainsFunc(m.Services, func(s *Service) bool {
		return !startsAnyway(common, s.Sidecar.Config)
	}))
	for _, s := range m.Services {
		v.values(opaque{s.Sidecar.Body, "config", s.Sidecar.Config}, sidecarKeys, !startsAnyway(common, s.Sidecar.Config))
		for _, u := range s.Upstreams {
			// A query and a peer have no discovery chain, which alone insists.
			v.values(opaque{u.Body, "config", u.Config}, upstreamKeys, u.PreparedQuery == "" && u.Peer == "")
		}
	}
}

// configPort is a port that Envoy listens on because an opaque configuration says so.
type configPort struct {
	port int
	key  string
	at   hcl.Range
}

// configPorts are those of the sidecar of a service.
func (m *Mesh) configPorts(s *Service) (ports []configPort) {
	for _, config := range []opaque{{s.Sidecar.Body, "config", s.Sidecar.Config}, {m.Envoy.Body, "bootstrap", m.Envoy.Bootstrap}} {
		for _, name := range config.keys() {
			k, _ := find(sidecarKeys, name)
			if k.listens == nil {
				continue
			}
			for _, port := range k.listens(config.value[name]) {
				if sameAgain := k.is == ofPort && port == s.Sidecar.Port; !sameAgain {
					ports = append(ports, configPort{port, name, config.at(name)})
				}
			}
		}
	}
	return ports
}

// codeExtensions are the extensions that run code in Envoy.
var codeExtensions = []string{"builtin/lua", "builtin/wasm"}

// MeshWrite lists what of the file newer servers take only from a token with
// mesh:write, each as it stands in the file.
func (m *Mesh) MeshWrite() (all []string) {
	hatches := func(config Object, keys map[string]opaqueKey) {
		for _, name := range slices.Sorted(maps.Keys(config)) {
			if k, _ := find(keys, name); k.hatch && !slices.Contains(all, name) {
				all = append(all, name)
			}
		}
	}
	if m.Envoy.Tracing != "" {
		all = append(all, "tracing_json")
	}
	hatches(m.Envoy.Bootstrap, sidecarKeys)
	for _, s := range m.Services {
		hatches(s.Sidecar.Config, sidecarKeys)
		for _, u := range s.Upstreams {
			hatches(u.Config, upstreamKeys)
		}
		for _, e := range s.Sidecar.EnvoyExtensions {
			if slices.Contains(codeExtensions, e.Name) && !slices.Contains(all, e.Name) {
				all = append(all, e.Name)
			}
		}
	}
	return all
}
