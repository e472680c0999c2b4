package meshfile

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
)

// validName is what Consul accepts as a service name and what is safe in
// paths, environment variables and check ids.
var validName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$`)

// validator collects every mistake of one file.
type validator struct {
	diags hcl.Diagnostics
}

// validate checks everything that HCL's own schema cannot say. Its input may
// be a half-decoded Mesh. whole is where a mistake of the whole file is shown.
func (m *Mesh) validate(whole hcl.Range) hcl.Diagnostics {
	v := &validator{}
	if len(m.Services) == 0 {
		v.fail(whole, "No service",
			`A %s names at least one service of the app. The smallest is: service "my-app" {}`, Name)
	}
	v.uniqueServices(m.Services)
	v.uniqueVariables(m.Services)
	v.ports(m.Services)
	for _, service := range m.Services {
		v.service(service)
	}
	v.consul(m.Consul)
	return v.diags
}

func (v *validator) fail(subject hcl.Range, summary, detail string, args ...any) {
	v.diags = append(v.diags, &hcl.Diagnostic{
		Severity: hcl.DiagError,
		Summary:  summary,
		Detail:   fmt.Sprintf(detail, args...),
		Subject:  &subject,
	})
}

func (v *validator) service(s *Service) {
	v.name("a service", s.Name, s.NameRange)
	if !slices.Contains(Protocols, s.Protocol) {
		v.fail(s.ProtocolRange, "Unknown protocol", "%q is none of: %s.", s.Protocol, strings.Join(Protocols, ", "))
	}
	names := map[string]bool{}
	for _, check := range s.Checks {
		if names[check.Name] {
			v.fail(check.NameRange, "Duplicate check", "The service %q has another check %q.", s.Name, check.Name)
		}
		names[check.Name] = true
		v.check(check)
	}
	clear(names)
	for _, upstream := range s.Upstreams {
		v.name("an upstream", upstream.Name, upstream.NameRange)
		if upstream.Name == s.Name && upstream.Datacenter == "" {
			v.fail(upstream.NameRange, "A service cannot be its own upstream",
				"The app can call itself on 127.0.0.1. Did you mean another service, or one in another datacenter?")
		}
	}
}

func (v *validator) check(c *Check) {
	v.name("a check", c.Name, c.NameRange)
	kinds := 0
	for _, set := range []bool{c.HTTP != nil, c.TCP != nil && *c.TCP, c.GRPC != nil} {
		if set {
			kinds++
		}
	}
	if kinds != 1 {
		v.fail(c.Range, "A check needs exactly one kind",
			`Say one of: http = "/path", tcp = true, grpc = "name of the gRPC service, or empty".`)
	}
	if c.HTTP != nil && !strings.HasPrefix(*c.HTTP, "/") {
		v.fail(c.HTTPRange, "Not a path",
			"An http check names a path on the service's own port, such as \"/health\"; it got %q.", *c.HTTP)
	}
	v.duration(c.Interval, c.IntervalRange)
	v.duration(c.Timeout, c.TimeoutRange)
}

func (v *validator) duration(text string, at hcl.Range) {
	d, err := time.ParseDuration(text)
	switch {
	case err != nil:
		v.fail(at, "Not a duration", "%q is not a duration such as \"500ms\", \"5s\" or \"1m30s\".", text)
	case d < 100*time.Millisecond:
		v.fail(at, "Duration too short", "%q is shorter than 100ms, which would keep the machine busy.", text)
	}
}

func (v *validator) name(kind, name string, at hcl.Range) {
	if !validName.MatchString(name) {
		v.fail(at, "Not a name",
			"%q names %s: letters, digits, dashes, dots and underscores, with a letter or digit at both ends.", name, kind)
	}
}

func (v *validator) consul(c *Consul) {
	if len(c.RetryJoin) == 0 {
		v.fail(c.RetryJoinRange, "No server to join",
			"retry_join lists at least one address of a Consul server, such as %q.", DefaultRetryJoin)
	}
	for _, address := range c.RetryJoin {
		if strings.TrimSpace(address) == "" {
			v.fail(c.RetryJoinRange, "Empty address", "retry_join has an address that is empty.")
		}
	}
	if !validName.MatchString(c.Datacenter) || c.Datacenter != strings.ToLower(c.Datacenter) {
		v.fail(c.DatacenterRange, "Not a datacenter name",
			"%q: a datacenter has lower-case letters, digits, dashes and underscores.", c.Datacenter)
	}
}

func (v *validator) uniqueServices(services []*Service) {
	first := map[string]*Service{}
	for _, s := range services {
		if other := first[s.Name]; other != nil {
			v.fail(s.NameRange, "Duplicate service", "The service %q stands on line %d already.",
				s.Name, other.NameRange.Start.Line)
			continue
		}
		first[s.Name] = s
	}
}

// uniqueVariables refuses upstreams that would share their environment
// variables.
func (v *validator) uniqueVariables(services []*Service) {
	first := map[string]*Upstream{}
	for _, s := range services {
		for _, upstream := range s.Upstreams {
			variable := upstream.Variable()
			if other := first[variable]; other != nil {
				v.fail(upstream.NameRange, "Two upstreams for one variable",
					"%q and %q on line %d would both be found in %s_ADDR.",
					upstream.Name, other.Name, other.NameRange.Start.Line, variable)
				continue
			}
			first[variable] = upstream
		}
	}
}

// ports refuses ports that are out of range, used twice, or taken by the
// platform, by Consul or by Envoy.
func (v *validator) ports(services []*Service) {
	type claim struct {
		owner string
		line  int
	}
	claims := map[int]claim{}
	use := func(port int, owner string, at hcl.Range) {
		if port == 0 && at.Filename == "" {
			return // not given
		}
		switch other, taken := claims[port]; {
		case port < 1 || port > 65535:
			v.fail(at, "Port out of range", "A port is a number from 1 to 65535, not %d.", port)
		case portOwner(port) != "":
			v.fail(at, "Port already taken", "Port %d belongs to %s in every container. Choose another one.", port, portOwner(port))
		case taken:
			v.fail(at, "Port already taken", "Port %d belongs to %s on line %d.", port, other.owner, other.line)
		default:
			claims[port] = claim{owner, at.Start.Line}
		}
	}
	withoutPort := map[string]*Service{}
	for _, s := range services {
		use(s.Port, fmt.Sprintf("the service %q", s.Name), s.PortRange)
		if s.Port == 0 {
			if other := withoutPort[s.Process]; other != nil {
				v.fail(s.NameRange, "Two services on one port",
					"%q and %q are both without a port, so both would be the app's PORT. Give one of them its own.", other.Name, s.Name)
			}
			withoutPort[s.Process] = s
		}
	}
	for _, s := range services {
		for _, upstream := range s.Upstreams {
			use(upstream.Port, fmt.Sprintf("the upstream %q", upstream.Name), upstream.PortRange)
			if upstream.Port == defaultAppPort && len(withoutPort) > 0 {
				v.fail(upstream.PortRange, "Port already taken", "Port %d is the app's PORT on Cloud Foundry.", defaultAppPort)
			}
		}
	}
}

// defaultAppPort is PORT in every container, unless the app's route says
// otherwise (Cloud Foundry: developer guide, environment variables, PORT).
const defaultAppPort = 8080

// Variable is the stem of the environment variables that name the upstream's
// local address, such as MESH_UPSTREAM_MY_API.
func (u *Upstream) Variable() string {
	return "MESH_UPSTREAM_" + strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		}
		return '_'
	}, u.Name)
}
