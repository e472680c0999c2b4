package meshfile

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
)

// validator collects every mistake of one file.
type validator struct {
	whole hcl.Range // where a mistake of the whole file is shown
	diags hcl.Diagnostics
}

func (v *validator) add(severity hcl.DiagnosticSeverity, subject hcl.Range, summary, detail string, args ...any) {
	v.diags = append(v.diags, &hcl.Diagnostic{
		Severity: severity, Summary: summary, Detail: fmt.Sprintf(detail, args...), Subject: &subject,
	})
}

func (v *validator) fail(subject hcl.Range, summary, detail string, args ...any) {
	v.add(hcl.DiagError, subject, summary, detail, args...)
}

func (v *validator) warn(subject hcl.Range, summary, detail string, args ...any) {
	v.add(hcl.DiagWarning, subject, summary, detail, args...)
}

// at is where an attribute of a block stands, or the block where it has none.
func at(body hcl.Body, name string) hcl.Range {
	if body == nil {
		return hcl.Range{}
	}
	content, _, _ := body.PartialContent(&hcl.BodySchema{Attributes: []hcl.AttributeSchema{{Name: name}}})
	if content != nil && content.Attributes[name] != nil {
		return content.Attributes[name].Expr.Range()
	}
	return body.MissingItemRange()
}

// mesh checks everything that the schema's tags cannot say, and fills in the
// defaults that depend on other values. Its input may be half decoded.
func (v *validator) mesh(m *Mesh) {
	if len(m.Services) == 0 {
		v.fail(v.whole, "No service", `A %s names at least one service of the app. The smallest is: service "my-app" {}`, Name)
	}
	v.consul(m.Consul)
	byProcess := map[string]map[string]*Service{}
	for _, s := range m.Services {
		if byProcess[s.Process] == nil {
			byProcess[s.Process] = map[string]*Service{}
		}
		byProcess[s.Process][s.Name] = s
	}
	first := map[string]*Service{}
	for _, s := range m.Services {
		if other := first[s.Name]; other != nil {
			v.fail(s.NameRange, "Duplicate service", "The service %q stands on line %d already.", s.Name, other.NameRange.Start.Line)
			continue
		}
		first[s.Name] = s
		v.service(s, byProcess[s.Process])
	}
	m.assignPorts()
	v.ports(m)
	v.variables(m)
}

// service checks one service. siblings are the services of its instance.
func (v *validator) service(s *Service, siblings map[string]*Service) {
	if s.ID == "" {
		s.ID = s.Name
	}
	if strings.ContainsAny(s.Name, "_.") || s.Name != strings.ToLower(s.Name) {
		v.warn(s.NameRange, "A name that Consul's DNS cannot serve",
			"%q has letters other than a-z, digits and dashes: %s.service.consul will not resolve. Calls through the mesh work.", s.Name, s.Name)
	}
	distinct(v, s.Checks, "check", func(c *Check) (string, hcl.Range) { return c.Name, c.NameRange })
	distinct(v, s.TaggedAddresses, "tagged address", func(a *TaggedAddress) (string, hcl.Range) { return a.Name, a.NameRange })
	for _, c := range s.Checks {
		v.check(c, s, siblings)
	}
	for _, c := range s.Sidecar.Checks {
		v.check(c, s, siblings)
	}
	distinct(v, s.Sidecar.Checks, "check of the sidecar", func(c *Check) (string, hcl.Range) { return c.Name, c.NameRange })
	v.accessLogs(s.Sidecar.AccessLogs)
	distinct(v, s.Upstreams, "upstream", func(u *Upstream) (string, hcl.Range) { return u.Name, u.NameRange })
	for _, u := range s.Upstreams {
		v.upstream(u, s)
	}
}

// distinct refuses two blocks of one service with the same label.
func distinct[T any](v *validator, blocks []T, what string, label func(T) (string, hcl.Range)) {
	first := map[string]int{}
	for _, block := range blocks {
		name, at := label(block)
		if line, found := first[name]; found {
			v.fail(at, "Duplicate "+what, "Line %d has a %s %q already.", line, what, name)
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
	if len(chosen) != 1 {
		v.fail(c.NameRange, "A check needs exactly one kind",
			`Say one of: http = "/path", tcp = true, udp = true, grpc = "name of the gRPC service, or empty", h2ping = true, ttl = "30s", alias = "service".`)
		return
	}
	kind := chosen[0]
	for name := range content(c.Body, typeOfCheck).Attributes {
		if kinds, limited := attributeKinds[name]; limited && !slices.Contains(kinds, kind) {
			v.fail(at(c.Body, name), "Not for this kind of check", "%s is for: %s. This check is %s.", name, strings.Join(kinds, ", "), kind)
		}
	}
	switch {
	case kind == "alias" && siblings[*c.Alias] == nil:
		v.fail(at(c.Body, "alias"), "No such service in this instance",
			"An alias follows another service of the process %s. These are: %s.", s.Process, strings.Join(slices.Sorted(maps.Keys(siblings)), ", "))
	case kind == "alias" && *c.Alias == s.Name:
		v.fail(at(c.Body, "alias"), "A check cannot follow its own service", "Name another service of this instance.")
	case kind != "ttl" && kind != "alias" && !s.Listens() && !(kind == "http" && !strings.HasPrefix(*c.HTTP, "/")):
		v.fail(c.NameRange, "A check without a port", "The service %q has no port. Give it one, or use a ttl check.", s.Name)
	}
}

var checkKinds = []string{"http", "tcp", "udp", "grpc", "h2ping", "ttl", "alias"}

// attributeKinds are the attributes of a check that belong to some kinds only.
var attributeKinds = map[string][]string{
	"method": {"http"}, "headers": {"http"}, "body": {"http"}, "disable_redirects": {"http"},
	"tls": {"http", "tcp", "grpc", "h2ping"}, "tls_server_name": {"http", "tcp", "grpc", "h2ping"},
	"tls_skip_verify": {"http", "tcp", "grpc", "h2ping"},
	"interval":        {"http", "tcp", "udp", "grpc", "h2ping"}, "timeout": {"http", "tcp", "udp", "grpc", "h2ping"},
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
	if u.Service == "" {
		u.Service = u.Name
	}
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

// ownedAgentKeys are the keys of the agent's configuration that the buildpack
// sets itself, with what to say instead.
var ownedAgentKeys = map[string]string{
	"acl": "the bound service", "advertise_addr": "", "advertise_reconnect_timeout": "", "auto_encrypt": "the bound service",
	"bind_addr": "", "bootstrap": "", "bootstrap_expect": "", "client_addr": "", "data_dir": "",
	"datacenter": "datacenter", "disable_update_check": "", "enable_local_script_checks": "", "enable_script_checks": "",
	"encrypt": "the bound service", "leave_on_terminate": "", "log_level": "log_level", "node_id": "", "node_meta": "node_meta",
	"node_name": "", "ports": "the block ports", "retry_interval": "retry_interval", "retry_join": "retry_join",
	"retry_max": "retry_max", "server": "", "service": "a service block", "services": "a service block", "start_join": "retry_join", "tls": "the bound service",
}

func (v *validator) consul(c *Consul) {
	if c.RetryJoin == nil && content(c.Body, typeOfConsul).Attributes["retry_join"] == nil {
		c.RetryJoin = []string{DefaultRetryJoin}
	}
	if len(c.RetryJoin) == 0 {
		v.fail(at(c.Body, "retry_join"), "No server to join",
			"retry_join lists at least one address of a Consul server, such as %q.", DefaultRetryJoin)
	}
	for _, address := range c.RetryJoin {
		if strings.TrimSpace(address) == "" || strings.ContainsFunc(address, isControl) {
			v.fail(at(c.Body, "retry_join"), "Not an address", "%q is no address of a server.", address)
		}
	}
	for key := range attributesOf(c.Config) {
		if instead, owned := ownedAgentKeys[key]; owned {
			detail := "The buildpack sets %s itself."
			if instead != "" {
				detail += " Use " + instead + "."
			}
			v.fail(at(c.Body, "config"), "A key that the buildpack sets", detail, key)
		}
	}
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }

// variables refuses services and upstreams that would share environment
// variables and differ in their values.
func (v *validator) variables(m *Mesh) {
	type owner struct {
		what, process, value string
		line                 int
	}
	first := map[string]owner{}
	claim := func(variable, what, process, value string, at hcl.Range) {
		other, taken := first[variable]
		switch {
		case !taken:
			first[variable] = owner{what, process, value, at.Start.Line}
		case other.process == process || other.value != value:
			v.fail(at, "Two for one variable", "The %s and the %s on line %d would both be found in %s.", what, other.what, other.line, variable)
		}
	}
	for _, s := range m.Services {
		if s.Listens() {
			claim(s.Variable()+"_PORT", fmt.Sprintf("service %q", s.Name), s.Process, fmt.Sprint(s.Port), s.NameRange)
		}
		for _, u := range s.Upstreams {
			claim(u.Variable()+"_ADDR", fmt.Sprintf("upstream %q", u.Name), s.Process, u.LocalAddress(), u.NameRange)
		}
	}
}

var notInVariable = regexp.MustCompile(`[^A-Z0-9]`)

func variable(prefix, name string) string {
	return prefix + notInVariable.ReplaceAllString(strings.ToUpper(name), "_")
}
