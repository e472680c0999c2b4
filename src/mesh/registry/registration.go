package registry

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/consul-mesh/mesh-buildpack/src/droplet"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/consul"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/envoy"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/instance"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/wait"
)

// Registration is one service of service.json, split into what is registered
// at once and what only when the app works.
type Registration struct {
	droplet.Service
	Name        string
	Protocol    string // of the sidecar, empty where none is declared
	network     string // where the app listens: "tcp" or "unix", empty where it does not
	address     string
	SidecarPort int // the sidecar's public port

	Registered atomic.Bool
	away       atomic.Bool                       // the agent has dropped it, and is told again
	remembered atomic.Pointer[map[string]string] // states of checks by id, as an agent had them
	shown      atomic.Bool                       // it was in rotation once
	Works      atomic.Bool                       // the app has passed its checks once
	Said       atomic.Pointer[string]            // the state of the ready check that the agent was told last

	// writing is held while an agent is told of the service, so that what it hears
	// last is what was made last; doubt is about what it was told.
	writing oneAtATime
	doubt   doubt

	// definition is the service and its sidecar, without the app's own checks, as
	// /v1/agent/service/register takes it.
	definition map[string]any
	// checks are the app's own, each the body of /v1/agent/check/register. The
	// agent starts a check critical and runs it first after a random part of
	// its interval; registered as passing once the app was seen to pass, they
	// cost no time. Those that only an agent runs do.
	checks []map[string]any
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
		all = append(all, Request{r.definition, r.checks, []any{v.entry(r, sidecar), v.entry(r, service)}})
	}
	return all, err
}

// Registrations reads service.json and amends it where PORT is not what
// staging took it for.
func Registrations(i instance.Instance, config droplet.Config) ([]*Registration, error) {
	var file struct {
		Services []map[string]any `json:"services"`
	}
	if err := instance.ReadJSON(i.Path(droplet.ServiceFile), &file); err != nil {
		return nil, err
	}
	definitions := map[string]map[string]any{}
	for _, definition := range file.Services {
		id, _ := definition["id"].(string)
		definitions[id] = definition
	}
	var all []*Registration
	for _, service := range config.Services {
		definition := definitions[service.ID]
		if definition == nil {
			return nil, fmt.Errorf("%s names a service %q that %s does not have\nhint: restage the app",
				droplet.ConfigFile, service.ID, droplet.ServiceFile)
		}
		all = append(all, NewRegistration(i, service, definition))
	}
	return all, nil
}

// NewRegistration splits the definition of a service, as service.json has it.
func NewRegistration(i instance.Instance, service droplet.Service, definition map[string]any) *Registration {
	r := &Registration{Service: service, definition: definition}
	r.Name, _ = definition["name"].(string)
	sidecar := wait.Object(wait.Object(definition["connect"])["sidecar_service"])
	proxy := wait.Object(sidecar["proxy"])
	r.SidecarPort = wait.Number(sidecar["port"])
	r.Protocol, _ = wait.Object(proxy["config"])["protocol"].(string)
	if definition["address"] != nil {
		sidecar["address"] = i.Address.String() // it would get the service's, which is not for callers in the mesh
	}
	findApp(i, r, sidecar, proxy)
	for _, check := range wait.Objects(definition["checks"]) {
		body := apiCheck(check, "ID")
		body["ServiceID"] = r.ID
		if body["status"] == nil && isProbed(body) {
			body["Status"] = consul.Passing
		}
		r.checks = append(r.checks, body)
	}
	if has(r.checks, "udp") && !has(r.checks, "http", "tcp", "grpc", "h2ping") {
		r.network = "" // it need not listen on the port's TCP
	}
	delete(definition, "checks")
	var checks []any
	for _, check := range wait.Objects(sidecar["checks"]) {
		api := apiCheck(check, "CheckID")
		if api["aliasservice"] != nil && api["status"] == nil {
			// The agent looks at once, but may tell the servers seconds later what
			// it has seen.
			api["status"] = consul.Passing
		}
		checks = append(checks, api)
	}
	sidecar["checks"] = checks
	r.definition = wait.Object(apiKeys(definition))
	return r
}

// EnvoySidecar is what its Envoy has to know of it.
func (r *Registration) EnvoySidecar() envoy.Sidecar {
	config := wait.Object(wait.Object(r.sidecarDefinition()["proxy"])["config"])
	return envoy.Sidecar{ID: r.ID, Name: r.Name, Protocol: r.Protocol, Port: r.SidecarPort, AdminPort: r.AdminPort, Config: config}
}

// Tells says that it can be seen whether the app works.
func (r *Registration) Tells() bool {
	return r.network != "" || slices.ContainsFunc(r.checks, isProbed)
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

// sidecarDefinition is the part of the definition that is the sidecar's.
func (r *Registration) sidecarDefinition() map[string]any { return sidecarOf(r.definition) }

func sidecarOf(service map[string]any) map[string]any {
	return wait.Object(wait.Object(service["connect"])["sidecarservice"])
}

// notYet is the port of a sidecar that was never in rotation (RFC 863,
// discard). A caller's Envoy puts off for up to a second that a host which has
// just come passes its checks, but not that another comes in its place; and
// what it holds against a dead instance that had the address ends with that.
const notYet = 9

// body is what an agent is told of a service whose ready check has a state,
// with the app's checks once that works: it drops those that are not named.
// Before that the sidecar is there under a port that nobody listens on, while
// its Envoy listens on its own already.
func (r *Registration) body(state string) map[string]any {
	body := maps.Clone(r.definition)
	sidecar := wait.Own(wait.Own(body, "connect"), "sidecarservice")
	if state != consul.Passing && !r.shown.Load() {
		putOff(sidecar)
	}
	var checks []any
	for _, check := range wait.Objects(sidecar["checks"]) {
		check = maps.Clone(check)
		if state != "" && check["CheckID"] == droplet.ReadyCheckID(r.ID) {
			check["status"] = state
		}
		checks = append(checks, check)
	}
	sidecar["checks"] = checks
	if !r.Works.Load() {
		return body
	}
	checks = nil
	for _, check := range r.checks {
		check = maps.Clone(check)
		check["CheckID"] = check["ID"]
		delete(check, "ID")
		delete(check, "ServiceID")
		checks = append(checks, check)
	}
	body["checks"] = checks
	return body
}

// putOff has callers find a sidecar where nobody listens.
func putOff(sidecar map[string]any) {
	config := wait.Own(wait.Own(sidecar, "proxy"), "config")
	if config["bind_port"] == nil {
		config["bind_port"] = sidecar["port"]
	}
	sidecar["port"] = notYet
}

// ownChecks are the app's, once it works, and those of its sidecar that the file
// declares.
func (r *Registration) ownChecks() []map[string]any {
	var all []map[string]any
	if r.Works.Load() {
		all = append(all, r.checks...)
	}
	for _, check := range wait.Objects(r.sidecarDefinition()["checks"]) {
		if check["CheckID"] != droplet.ReadyCheckID(r.ID) && check["CheckID"] != droplet.AliasCheckID(r.ID) {
			all = append(all, check)
		}
	}
	return all
}

// checkID is the id of a check, which has one name in the app's own and another
// in those of a sidecar.
func checkID(check map[string]any) (id string, apps bool) {
	if id, apps = check["ID"].(string); !apps {
		id, _ = check["CheckID"].(string)
	}
	return id, apps
}

// isAgents says that only an agent runs a check, or the app reports to it.
func isAgents(check map[string]any) bool { return !isProbed(check) }

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
		id, apps := checkID(checks[i])
		state := consul.Passing
		switch {
		case isAgents(checks[i]):
			state = cmp.Or(remembered[id], consul.Critical)
		case wrong != nil:
			state = consul.Critical
		}
		states[id] = state
		if apps && state == consul.Critical {
			states[droplet.AliasCheckID(r.ID)] = consul.Critical
		}
	}
	return states
}

// bodyAgain is body for an agent that knew the service: checks have the states
// that they have, and one that fails does not deregister the service before long.
func (r *Registration) bodyAgain(states map[string]string) map[string]any {
	body := r.body(r.State())
	for _, check := range slices.Concat(wait.Objects(body["checks"]), wait.Objects(sidecarOf(body)["checks"])) {
		id, _ := check["CheckID"].(string)
		state, known := states[id]
		if !known {
			continue // which is said from here
		}
		delete(check, "status")
		check["Status"] = state
		if state == consul.Critical {
			delete(check, "deregistercriticalserviceafter")
		}
	}
	return body
}

// apiCheck gives a check the keys of Consul's API. There the id has another
// name: CheckID within a service, ID on its own.
func apiCheck(check map[string]any, idKey string) map[string]any {
	api := wait.Object(apiKeys(check))
	id := api["id"]
	delete(api, "id")
	api[idKey] = id
	return api
}

// apiKeys turns a definition as Consul reads it from disk into one as its API
// takes it. The API refuses some of the keys with underscores (socket_path,
// access_logs' json_format); it takes all of them without,
// and their case does not matter (Consul 1.22, agent/structs).
func apiKeys(value any) any {
	switch value := value.(type) {
	case map[string]any:
		api := map[string]any{}
		for key, item := range value {
			if !opaque[strings.ToLower(key)] {
				item = apiKeys(item)
			}
			api[strings.ReplaceAll(key, "_", "")] = item
		}
		return api
	case []any:
		api := make([]any, len(value))
		for i, item := range value {
			api[i] = apiKeys(item)
		}
		return api
	}
	return value
}

// opaque are the keys of objects whose own keys are somebody's names.
var opaque = map[string]bool{
	"config": true, "meta": true, "header": true, "tagged_addresses": true,
}

// Upstreams are those of the sidecar.
func (r *Registration) Upstreams() []consul.Upstream {
	proxy := wait.Object(r.sidecarDefinition()["proxy"])
	var all []consul.Upstream
	for _, u := range wait.Objects(proxy["upstreams"]) {
		text := func(key string) string { value, _ := u[key].(string); return value }
		one := consul.Upstream{
			Name: text("destinationname"), Datacenter: text("datacenter"), Peer: text("destinationpeer"),
			Query: text("destinationtype") == "prepared_query", Local: text("localbindsocketpath"),
		}
		if one.Local == "" {
			one.Local = net.JoinHostPort(text("localbindaddress"), strconv.Itoa(wait.Number(u["localbindport"])))
		}
		all = append(all, one)
	}
	return all
}
