package meshfile

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"github.com/consul-mesh/mesh-buildpack/src/droplet"
)

// findings are what is wrong with one file.
type findings struct{ diags hcl.Diagnostics }

func (f *findings) add(severity hcl.DiagnosticSeverity, subject hcl.Range, summary, detail string, args ...any) {
	f.diags = append(f.diags, &hcl.Diagnostic{
		Severity: severity, Summary: summary, Detail: fmt.Sprintf(detail, args...), Subject: &subject,
	})
}

func (f *findings) fail(subject hcl.Range, summary, detail string, args ...any) {
	f.add(hcl.DiagError, subject, summary, detail, args...)
}

func (f *findings) warn(subject hcl.Range, summary, detail string, args ...any) {
	f.add(hcl.DiagWarning, subject, summary, detail, args...)
}

// validator judges a decoded file whose defaults are filled in, and changes
// nothing of it.
type validator struct {
	findings
	whole      hcl.Range // where a mistake of the whole file is shown
	incomplete bool      // as the decoder's
	// noAgent says that the app runs no Consul agent.
	noAgent bool
}

// at is where an attribute of a block stands, or the block where it has none.
func at(body hcl.Body, name string) hcl.Range {
	if body == nil {
		return hcl.Range{}
	}
	if attribute := attributeOf(body, name); attribute != nil {
		return attribute.Expr.Range()
	}
	return body.MissingItemRange()
}

// attributeOf is an attribute of a block, nil where it has none of the name.
func attributeOf(body hcl.Body, name string) *hcl.Attribute {
	if body == nil {
		return nil
	}
	content, _, _ := body.PartialContent(&hcl.BodySchema{Attributes: []hcl.AttributeSchema{{Name: name}}})
	if content == nil {
		return nil
	}
	return content.Attributes[name]
}

// mesh checks everything that the schema's tags cannot say. Its input may be half
// decoded.
func (v *validator) mesh(m *Mesh) {
	if len(m.Services)+len(m.Tasks) == 0 && !v.incomplete {
		v.fail(v.whole, "No service", `A %s names at least one service of the app. The smallest is: service "my-app" {}`, Name)
	}
	v.noAgent = m.Agentless()
	v.consul(m.Consul)
	v.envoy(m.Envoy)
	v.lifecycle(m.Lifecycle)
	v.source(m.Consul.Body, m.Consul.Source, m.Consul.SHA256)
	v.source(m.Envoy.Body, m.Envoy.Source, m.Envoy.SHA256)
	byProcess := map[string]map[string]*Service{}
	for _, s := range m.Services {
		if byProcess[s.Process] == nil {
			byProcess[s.Process] = map[string]*Service{}
		}
		byProcess[s.Process][s.Label] = s
	}
	first, ids, names := map[string]*Service{}, map[string]*Service{}, map[string]*Service{}
	for _, s := range m.Services {
		if other := first[s.Label]; other != nil {
			v.fail(s.NameRange, "Duplicate service", "The service %q stands on line %d already.", s.Label, other.NameRange.Start.Line)
			continue
		}
		first[s.Label] = s
		v.service(s, byProcess[s.Process])
		inProcess := s.Process + "/" + s.Name
		if other := names[inProcess]; other != nil {
			v.fail(firstGiven(givenAt(s.Body, "name"), s.NameRange), "Duplicate name",
				"The service %q on line %d has the name %s in Consul already. In one process each has a name of its own.", other.Label, other.NameRange.Start.Line, other.Name)
			continue
		}
		names[inProcess] = s
		for _, id := range []string{s.ID, droplet.SidecarID(s.ID)} {
			if other := ids[id]; other != nil {
				v.fail(firstGiven(givenAt(s.Body, "id"), s.NameRange), "Duplicate id",
					"The service %q on line %d and its sidecar have the ids %s and %s already.", other.Label, other.NameRange.Start.Line, other.ID, droplet.SidecarID(other.ID))
			}
			ids[id] = s
		}
	}
	v.configs(m)
	v.opaqueValues(m)
	v.agentless(m)
	v.ports(m)
	v.variables(m)
	v.tasks(m)
}

// lifecycle checks how long the parts of a stop may be.
func (v *validator) lifecycle(l *Lifecycle) {
	for name, d := range map[string]Duration{"drain_delay": l.DrainDelay, "drain_timeout": l.DrainTimeout} {
		if d.Duration > l.mostDrain() {
			v.fail(givenAt(l.Body, name), "Duration too long", "%q is longer than %s, three tenths of the grace.", d, l.mostDrain())
		}
	}
}

// ownedChecks are the names of the checks that every sidecar has already.
var ownedChecks = []string{"ready", "alias"}

// service checks one service. siblings are the services of its instance.
func (v *validator) service(s *Service, siblings map[string]*Service) {
	if strings.ContainsAny(s.Name, "_.") || s.Name != strings.ToLower(s.Name) {
		v.warn(firstGiven(givenAt(s.Body, "name"), s.NameRange), "A name that Consul's DNS cannot serve",
			"%q has letters other than a-z, digits and dashes: %s.service.consul will not resolve. Calls through the mesh work.", s.Name, s.Name)
	}
	distinct(v, s.Checks, "check", func(c *Check) (string, hcl.Range) { return c.Name, c.NameRange })
	distinct(v, s.TaggedAddresses, "tagged address", func(a *TaggedAddress) (string, hcl.Range) { return a.Name, a.NameRange })
	for _, c := range s.Checks {
		v.check(c, s, siblings)
	}
	for _, c := range s.Sidecar.Checks {
		v.check(c, s, siblings)
		if slices.Contains(ownedChecks, c.Name) {
			v.fail(c.NameRange, "A name that the buildpack uses", "Every sidecar has a check %q already. Choose another name.", c.Name)
		}
	}
	if s.Sidecar.Expose != nil {
		for _, p := range s.Sidecar.Expose.Paths {
			if p.LocalPort == 0 && !s.HasPort() && givenAt(p.Body, "local_path_port").Filename == "" {
				v.fail(p.NameRange, "A path without a port", "The service %q has no port. Say local_path_port.", s.Label)
			}
		}
	}
	distinct(v, s.Sidecar.Checks, "check of the sidecar", func(c *Check) (string, hcl.Range) { return c.Name, c.NameRange })
	v.accessLogs(s.Sidecar.AccessLogs)
	distinct(v, s.Sidecar.EnvoyExtensions, "Envoy extension", func(e *EnvoyExtension) (string, hcl.Range) { return e.Name, e.NameRange })
	distinct(v, s.Upstreams, "upstream", func(u *Upstream) (string, hcl.Range) { return u.Name, u.NameRange })
	type destination struct{ service, query, namespace, partition, peer, datacenter string }
	callers := map[destination]*Upstream{}
	for _, u := range s.Upstreams {
		v.upstream(u, s)
		called := destination{u.Service, u.PreparedQuery, u.Namespace, u.Partition, u.Peer, u.Datacenter}
		if u.PreparedQuery != "" {
			called.service = "" // the query is in its place
		}
		if other := callers[called]; other != nil && other.Name != u.Name {
			v.fail(u.NameRange, "Two upstreams for one service", "The upstream %q on line %d calls the same. Consul has one for each.", other.Name, other.NameRange.Start.Line)
		}
		callers[called] = u
	}
}

// distinct refuses two blocks of one service with the same label.
func distinct[T any](v *validator, blocks []T, what string, label func(T) (string, hcl.Range)) {
	first := map[string]int{}
	for _, block := range blocks {
		name, at := label(block)
		if line, found := first[name]; found {
			v.fail(at, "Duplicate "+what, "The %s %q stands on line %d already.", what, name, line)
			continue
		}
		first[name] = at.Start.Line
	}
}

// check checks a check: one kind, and only attributes that belong to it.
func (v *validator) check(c *Check, s *Service, siblings map[string]*Service) {
	given := map[string]bool{
		"http": c.HTTP != nil, "tcp": c.TCP != nil && *c.TCP, "udp": c.UDP != nil && *c.UDP, "grpc": c.GRPC != nil,
		"h2ping": c.H2Ping != nil && *c.H2Ping, "ttl": c.TTL != nil, "alias": c.Alias != nil,
	}
	var chosen []string
	for _, kind := range checkKinds {
		if given[kind] {
			chosen = append(chosen, kind)
		}
	}
	has := content(c.Body, typeOfCheck).Attributes
	if len(chosen) != 1 {
		// Where a kind is said in a wrong way, that is the place.
		place := c.NameRange
		for _, kind := range checkKinds {
			if has[kind] != nil && kind != first(chosen) {
				place = has[kind].Expr.Range()
				break
			}
		}
		v.fail(place, "A check needs exactly one kind",
			`Say one of: http = "/path", tcp = true, udp = true, grpc = "name of the gRPC service, or empty", h2ping = true, ttl = "30s", alias = "service".`)
		return
	}
	kind := chosen[0]
	for name := range has {
		if kinds, limited := attributeKinds[name]; limited && !slices.Contains(kinds, kind) {
			v.fail(at(c.Body, name), "Not for this kind of check", "%s is for: %s. This check is %s.", name, strings.Join(kinds, ", "), kind)
		}
	}
	if c.FailuresBeforeCritical < c.FailuresBeforeWarning {
		v.fail(at(c.Body, "failures_before_warning"), "It never warns",
			"failures_before_critical is %d: the check is critical before it warns.", c.FailuresBeforeCritical)
	}
	v.checkValues(c)
	elsewhere := kind == "http" && !strings.HasPrefix(*c.HTTP, "/")
	switch {
	case elsewhere && c.TLS:
		v.fail(at(c.Body, "tls"), "Not for a whole URL", "The URL says by itself that it is https.")
	case kind == "alias" && siblings[*c.Alias] == nil:
		v.fail(at(c.Body, "alias"), "No such service in this instance",
			"An alias follows another service of the process %s. These are: %s.", s.Process, strings.Join(slices.Sorted(maps.Keys(siblings)), ", "))
	case kind == "alias" && *c.Alias == s.Label:
		v.fail(at(c.Body, "alias"), "A check cannot follow its own service", "Name another service of this instance.")
	case kind != "ttl" && kind != "alias" && !elsewhere && !s.HasPort():
		v.fail(c.NameRange, "A check without a port", "The service %q %s.", s.Label, v.insteadOfPort(s))
	}
}

// Names and values of headers (RFC 9110, field-name and field-value), and a grpc check
// in Consul's own form.
var (
	validHeader   = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")
	controlInText = regexp.MustCompile(`[\x00-\x08\x0a-\x1f\x7f]`)
	consulGRPC    = regexp.MustCompile(`^[^/]*:\d+(/.*)?$`)
)

// checkValues refuses what a check could never be run with.
func (v *validator) checkValues(c *Check) {
	for _, name := range slices.Sorted(maps.Keys(c.Headers)) {
		place := opaque{c.Body, "headers", nil}.at(name)
		if !validHeader.MatchString(name) {
			v.fail(place, "Not a header", "%q: a header's name has letters, digits and any of !#$%%&'*+-.^_`|~.", name)
		}
		if slices.ContainsFunc(c.Headers[name], controlInText.MatchString) {
			v.fail(place, "Not a header", "The value of %s has a line break or another control character, which no request can have.", name)
		}
	}
	if c.GRPC != nil && consulGRPC.MatchString(*c.GRPC) {
		_, service, _ := strings.Cut(*c.GRPC, "/")
		v.fail(at(c.Body, "grpc"), "Not a name of a gRPC service", "The address is the app's, as the port of the service says. Say the name alone: grpc = %q", service)
	}
}

// insteadOfPort says what a check can do in a service without a port.
func (v *validator) insteadOfPort(s *Service) string {
	hint := "has no port. Give it one, or use"
	if s.Listens() {
		hint = "listens on a Unix socket, which a check does not reach. Use"
	}
	if !v.noAgent {
		hint += " a ttl check, or"
	}
	return hint + " http with a whole URL"
}

func first(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[0]
}

var checkKinds = []string{"http", "tcp", "udp", "grpc", "h2ping", "ttl", "alias"}

// attributeKinds are the attributes of a check that belong to some kinds only.
var attributeKinds = map[string][]string{
	"method": {"http"}, "headers": {"http"}, "body": {"http"}, "disable_redirects": {"http"},
	"tls": {"http", "tcp", "grpc", "h2ping"}, "tls_server_name": {"http", "tcp", "grpc", "h2ping"},
	"tls_skip_verify": {"http", "tcp", "grpc", "h2ping"},
	"interval":        {"http", "tcp", "udp", "grpc", "h2ping"}, "timeout": {"http", "tcp", "udp", "grpc", "h2ping"},
	"success_before_passing": {"http", "tcp", "udp", "grpc", "h2ping"}, "failures_before_warning": {"http", "tcp", "udp", "grpc", "h2ping"},
	"failures_before_critical": {"http", "tcp", "udp", "grpc", "h2ping"},
}

func (v *validator) accessLogs(logs *AccessLogs) {
	switch {
	case logs == nil:
	case logs.Type == "file" && logs.Path == "":
		v.fail(at(logs.Body, "type"), "No file named", "type = \"file\" needs a path.")
	case logs.Type != "file" && logs.Path != "":
		v.fail(at(logs.Body, "path"), "A path without type file", "Say type = \"file\" too.")
	case logs.JSONFormat != "" && logs.TextFormat != "":
		v.fail(at(logs.Body, "text_format"), "Two formats", "Say json_format or text_format, not both.")
	}
}

func (v *validator) upstream(u *Upstream, s *Service) {
	elsewhere := u.Datacenter != "" || u.Peer != "" || u.Namespace != "" || u.Partition != "" || u.PreparedQuery != ""
	if u.Service == s.Name && !elsewhere {
		v.fail(u.NameRange, "A service cannot be its own upstream",
			"The app can call itself on 127.0.0.1. Did you mean another service, or one in another datacenter?")
	}
	has := content(u.Body, typeOfUpstream).Attributes
	for _, pair := range [][2]string{
		{"peer", "datacenter"}, {"prepared_query", "service"}, {"prepared_query", "peer"}, {"socket", "port"}, {"socket", "address"},
	} {
		if has[pair[0]] != nil && has[pair[1]] != nil {
			v.fail(at(u.Body, pair[0]), "Two that exclude each other", "Say %s or %s, not both.", pair[0], pair[1])
		}
	}
	if has["socket_mode"] != nil && u.Socket == "" {
		v.fail(at(u.Body, "socket_mode"), "A socket's mode without a socket", "Say socket = \"/home/vcap/tmp/x\" too.")
	}
}

// variables refuses services and upstreams that would share environment
// variables and differ in their values.
func (v *validator) variables(m *Mesh) {
	type owner struct {
		what, process, value string
		line                 int
	}
	first := map[string]owner{}
	claim := func(variable, what, process, value string, at hcl.Range, hint string) {
		other, taken := first[variable]
		switch {
		case !taken:
			first[variable] = owner{what, process, value, at.Start.Line}
		case other.process == process || other.value != value:
			v.fail(at, "Two for one variable", "The %s and the %s on line %d would both be found in %s. %s", what, other.what, other.line, variable, hint)
		}
	}
	for _, s := range m.callers() {
		if s.HasPort() {
			claim(s.Variable()+"_PORT", fmt.Sprintf("service %q", s.Label), s.Process, fmt.Sprint(s.Port), s.NameRange,
				fmt.Sprintf("Give it another label: service %q { name = %q }", s.Label+"-2", s.Name))
		}
		for _, u := range s.Upstreams {
			claim(u.Variable()+"_ADDR", fmt.Sprintf("upstream %q", u.Name), s.Process, u.LocalAddress(), u.NameRange,
				fmt.Sprintf("Give it another name: upstream %q { service = %q }", u.Name+"-"+s.Label, u.Service))
		}
	}
}

var notInVariable = regexp.MustCompile(`[^A-Z0-9]`)

func variable(prefix, name string) string {
	return prefix + notInVariable.ReplaceAllString(strings.ToUpper(name), "_")
}
