package registry

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"sync/atomic"

	"github.com/consul-mesh/mesh-buildpack/src/droplet"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/consul"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/envoy"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/instance"
)

// Registration is one service of service.json, split into what is registered
// at once and what only when the app works.
type Registration struct {
	droplet.Service
	Name        string
	Protocol    string // of the sidecar, empty where none is declared
	network     string // where the app listens: "tcp" or "unix", empty where it does not
	address     string
	SidecarPort int  // the sidecar's public port
	listened    bool // the app was seen to listen; of Listening alone

	Registered  atomic.Bool
	away        atomic.Bool                       // the agent has dropped it, and is told again
	remembered  atomic.Pointer[map[string]string] // states of checks by id, as an agent had them
	shown       atomic.Bool                       // it was in rotation once
	Works       atomic.Bool                       // the app has passed its checks once
	Said        atomic.Pointer[string]            // the state of the ready check that the agent was told last
	entriesSaid string                            // what was said last of its configuration entries

	// writing is held while an agent is told of the service, so that what it hears
	// last is what was made last; doubt is about what it was told.
	writing oneAtATime
	doubt   doubt

	// definition is the service and its sidecar. Its checks are the app's own. The
	// agent starts a check critical and runs it first after a random part of its
	// interval; registered as passing once the app was seen to pass, they cost no
	// time. Those that only an agent runs do.
	definition droplet.Definition
}

// Request is what Consul's API is told of one service.
type Request struct {
	Service map[string]any   // the body of /v1/agent/service/register
	Checks  []map[string]any // bodies of /v1/agent/check/register, for when the app works
	Entries []any            // bodies of /v1/catalog/register, without an agent
}

// Requests gives those of all processes, with all checks critical.
func Requests(i instance.Instance) ([]Request, error) {
	var config droplet.Config
	if err := instance.ReadJSON(i.Path(droplet.ConfigFile), &config); err != nil {
		return nil, err
	}
	services, err := Registrations(i, config)
	v := &viaServers{Node: &Node{Inst: i, Config: config, Access: &consul.Access{}}}
	var all []Request
	for _, r := range services {
		service, sidecar := r.catalog()
		request := Request{Service: droplet.API(r.withoutChecks()), Entries: []any{v.entry(r, inCatalog(sidecar)), v.entry(r, inCatalog(service))}}
		for _, check := range r.definition.Checks {
			request.Checks = append(request.Checks, r.alone(check))
		}
		all = append(all, request)
	}
	return all, err
}

// Registrations reads service.json and amends it where PORT is not what
// staging took it for.
func Registrations(i instance.Instance, config droplet.Config) ([]*Registration, error) {
	var file droplet.Definitions
	if err := instance.ReadJSON(i.Path(droplet.ServiceFile), &file); err != nil {
		return nil, err
	}
	var all []*Registration
	for _, service := range config.Services {
		n := slices.IndexFunc(file.Services, func(d droplet.Definition) bool { return d.ID == service.ID })
		if n < 0 {
			return nil, fmt.Errorf("%s names a service %q that %s does not have\nhint: restage the app",
				droplet.ConfigFile, service.ID, droplet.ServiceFile)
		}
		all = append(all, NewRegistration(i, service, file.Services[n]))
	}
	return all, nil
}

// NewRegistration amends a definition, which then is the registration's own.
func NewRegistration(i instance.Instance, service droplet.Service, definition droplet.Definition) *Registration {
	r := &Registration{Service: service, Name: definition.Name, definition: definition}
	sidecar := r.sidecar()
	r.SidecarPort = sidecar.Port
	r.Protocol, _ = sidecar.Proxy.Config["protocol"].(string)
	if definition.Address != "" {
		sidecar.Address = i.Address.String() // it would get the service's, which is not for callers in the mesh
	}
	findApp(i, r)
	if isUDP(r.definition.Checks) {
		r.network = "" // it need not listen on the port's TCP
	}
	for n := range r.definition.Checks {
		if check := &r.definition.Checks[n]; check.Status == "" && isProbed(*check) {
			check.Status = consul.Passing
		}
	}
	for n := range sidecar.Checks {
		if check := &sidecar.Checks[n]; check.Status == "" && check.AliasService != "" {
			// The agent looks at once, but may tell the servers seconds later what
			// it has seen.
			check.Status = consul.Passing
		}
	}
	return r
}

// EnvoySidecar is what its Envoy has to know of it.
func (r *Registration) EnvoySidecar() envoy.Sidecar {
	return envoy.Sidecar{
		ID: r.ID, Name: r.Name, Protocol: r.Protocol, Port: r.SidecarPort, AdminPort: r.AdminPort, Config: r.sidecar().Proxy.Config,
	}
}

// ports are those on which its app and its Envoy listen, as far as the definition says.
func (r *Registration) ports() []int {
	proxy := r.sidecar().Proxy
	ports := []int{r.definition.Port, r.SidecarPort, r.AdminPort, envoy.MetricsPort(proxy.Config)}
	for _, u := range proxy.Upstreams {
		ports = append(ports, u.LocalBindPort)
	}
	if proxy.Expose != nil {
		for _, path := range proxy.Expose.Paths {
			ports = append(ports, path.ListenerPort)
		}
	}
	return ports
}

// Tells says that it can be seen whether the app works.
func (r *Registration) Tells() bool {
	return r.network != "" || slices.ContainsFunc(r.definition.Checks, isProbed)
}

// AppWorks says that the app has passed its checks once.
func (r *Registration) AppWorks() bool { return r.Works.Load() }

// State is what the agent was told last of the ready check, empty before.
func (r *Registration) State() string {
	if said := r.Said.Load(); said != nil {
		return *said
	}
	return ""
}

// sidecar is the part of the definition that is the sidecar's.
func (r *Registration) sidecar() *droplet.Sidecar { return &r.definition.Connect.SidecarService }

// notYet is the port of a sidecar that was never in rotation (RFC 863,
// discard). A caller's Envoy puts off for up to a second that a host which has
// just come passes its checks, but not that another comes in its place; and
// what it holds against a dead instance that had the address ends with that.
const notYet = 9

// body is what an agent is told of a service whose ready check has a state,
// with the app's checks once that works: it drops those that are not named.
// Before that the sidecar is there under a port that nobody listens on, while
// its Envoy listens on its own already.
func (r *Registration) body(state string) droplet.Definition {
	body := r.withoutChecks()
	if r.Works.Load() {
		body.Checks = slices.Clone(r.definition.Checks)
	}
	sidecar := &body.Connect.SidecarService
	if state != consul.Passing && !r.shown.Load() {
		putOff(sidecar)
	}
	sidecar.Checks = slices.Clone(sidecar.Checks)
	for i := range sidecar.Checks {
		if check := &sidecar.Checks[i]; state != "" && check.CheckID == droplet.ReadyCheckID(r.ID) {
			check.Status = state
		}
	}
	return body
}

// withoutChecks is a copy of the definition without the app's own checks.
func (r *Registration) withoutChecks() droplet.Definition {
	definition := r.definition
	definition.Checks = nil
	return definition
}

// putOff has callers find a sidecar where nobody listens.
func putOff(sidecar *droplet.Sidecar) {
	config := map[string]any{}
	maps.Copy(config, sidecar.Proxy.Config)
	if config["bind_port"] == nil {
		config["bind_port"] = sidecar.Port
	}
	sidecar.Proxy.Config, sidecar.Port = config, notYet
}

// alone is a check of the app as the body of /v1/agent/check/register, where the id
// has another key than within a service.
func (r *Registration) alone(check droplet.Check) map[string]any {
	body := droplet.API(check)
	body["ID"], body["ServiceID"] = check.CheckID, r.ID
	delete(body, "CheckID")
	return body
}

// ownChecks are the app's, once it works, and those of its sidecar that the file
// declares.
func (r *Registration) ownChecks() []droplet.Check {
	var all []droplet.Check
	if r.Works.Load() {
		all = append(all, r.definition.Checks...)
	}
	for _, check := range r.sidecar().Checks {
		if check.CheckID != droplet.ReadyCheckID(r.ID) && check.CheckID != droplet.AliasCheckID(r.ID) {
			all = append(all, check)
		}
	}
	return all
}

// isApps says that a check is the app's, and not one of its sidecar.
func (r *Registration) isApps(check droplet.Check) bool {
	return slices.ContainsFunc(r.definition.Checks, func(c droplet.Check) bool { return c.CheckID == check.CheckID })
}

// isAgents says that only an agent runs a check, or the app reports to it.
func isAgents(check droplet.Check) bool { return !isProbed(check) }

// states are those of the checks by their ids: what an agent alone runs is as it
// was seen last.
func (r *Registration) states(ctx context.Context) map[string]string {
	checks := r.ownChecks()
	remembered := map[string]string{}
	if last := r.remembered.Load(); last != nil {
		remembered = *last
	}
	states := map[string]string{droplet.AliasCheckID(r.ID): consul.Passing}
	for i, wrong := range probeAll(ctx, checks) {
		id, state := checks[i].CheckID, consul.Passing
		switch {
		case isAgents(checks[i]):
			state = cmp.Or(remembered[id], consul.Critical)
		case wrong != nil:
			state = consul.Critical
		}
		states[id] = state
		if state == consul.Critical && r.isApps(checks[i]) {
			states[droplet.AliasCheckID(r.ID)] = consul.Critical
		}
	}
	return states
}

// bodyAgain is body for an agent that knew the service: checks have the states
// that they have, and one that fails does not deregister the service before long.
func (r *Registration) bodyAgain(states map[string]string) droplet.Definition {
	body := r.body(r.State())
	for _, checks := range [][]droplet.Check{body.Checks, body.Connect.SidecarService.Checks} {
		for i := range checks {
			state, known := states[checks[i].CheckID]
			if !known {
				continue // which is said from here
			}
			checks[i].Status = state
			if state == consul.Critical {
				checks[i].DeregisterCriticalServiceAfter = droplet.Duration{}
			}
		}
	}
	return body
}

// Upstreams are those of the sidecar.
func (r *Registration) Upstreams() []consul.Upstream {
	var all []consul.Upstream
	for _, u := range r.sidecar().Proxy.Upstreams {
		one := consul.Upstream{
			Name: u.DestinationName, Datacenter: u.Datacenter, Peer: u.DestinationPeer,
			Query: u.DestinationType == droplet.PreparedQuery, Local: u.LocalBindSocketPath,
		}
		if one.Local == "" {
			one.Local = net.JoinHostPort(u.LocalBindAddress, strconv.Itoa(u.LocalBindPort))
		}
		all = append(all, one)
	}
	return all
}
