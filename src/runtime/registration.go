package runtime

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
)

// registration is one service of service.json, split into what is registered
// at once and what only when the app works.
type registration struct {
	droplet.Service
	name     string
	protocol string // of the sidecar, empty where none is declared
	network  string // where the app listens: "tcp" or "unix", empty where it does not
	address  string
	sidecar  int // the sidecar's public port

	registered atomic.Bool
	away       atomic.Bool                       // the agent has dropped it, and is told again
	remembered atomic.Pointer[map[string]string] // states of checks by id, as an agent had them
	shown      atomic.Bool                       // it was in rotation once
	works      atomic.Bool                       // the app has passed its checks once
	envoy      atomic.Pointer[envoy]             // nil until it is started
	said       atomic.Pointer[string]            // the state of the ready check that the agent was told last

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

// Registration is what Consul's API is told of one service.
type Registration struct {
	Service map[string]any   // the body of /v1/agent/service/register
	Checks  []map[string]any // bodies of /v1/agent/check/register, for when the app works
	Entries []any            // bodies of /v1/catalog/register, without an agent
}

// Registrations gives those of all processes, with all checks critical.
func (i Instance) Registrations() ([]Registration, error) {
	var config droplet.Config
	if err := readJSON(i.path(droplet.ConfigFile), &config); err != nil {
		return nil, err
	}
	services, err := i.registrations(config)
	v := &viaServers{proxy: &proxy{inst: i, config: config, access: &access{}}}
	var all []Registration
	for _, r := range services {
		service, sidecar := r.catalog()
		all = append(all, Registration{r.definition, r.checks, []any{v.entry(r, sidecar), v.entry(r, service)}})
	}
	return all, err
}

// registrations reads service.json and amends it where PORT is not what
// staging took it for.
func (i Instance) registrations(config droplet.Config) ([]*registration, error) {
	var file struct {
		Services []map[string]any `json:"services"`
	}
	if err := readJSON(i.path(droplet.ServiceFile), &file); err != nil {
		return nil, err
	}
	definitions := map[string]map[string]any{}
	for _, definition := range file.Services {
		id, _ := definition["id"].(string)
		definitions[id] = definition
	}
	var all []*registration
	for _, service := range config.Services {
		definition := definitions[service.ID]
		if definition == nil {
			return nil, fmt.Errorf("%s names a service %q that %s does not have\nhint: restage the app",
				droplet.ConfigFile, service.ID, droplet.ServiceFile)
		}
		all = append(all, i.newRegistration(service, definition))
	}
	return all, nil
}

func (i Instance) newRegistration(service droplet.Service, definition map[string]any) *registration {
	r := &registration{Service: service, definition: definition}
	r.name, _ = definition["name"].(string)
	sidecar := object(object(definition["connect"])["sidecar_service"])
	proxy := object(sidecar["proxy"])
	r.sidecar = number(sidecar["port"])
	r.protocol, _ = object(proxy["config"])["protocol"].(string)
	if definition["address"] != nil {
		sidecar["address"] = i.Address.String() // it would get the service's, which is not for callers in the mesh
	}
	i.findApp(r, sidecar, proxy)
	for _, check := range objects(definition["checks"]) {
		body := apiCheck(check, "ID")
		body["ServiceID"] = r.ID
		if body["status"] == nil && isProbed(body) {
			body["Status"] = passing
		}
		r.checks = append(r.checks, body)
	}
	if has(r.checks, "udp") && !has(r.checks, "http", "tcp", "grpc", "h2ping") {
		r.network = "" // it need not listen on the port's TCP
	}
	delete(definition, "checks")
	var checks []any
	for _, check := range objects(sidecar["checks"]) {
		api := apiCheck(check, "CheckID")
		if api["aliasservice"] != nil && api["status"] == nil {
			// The agent looks at once, but may tell the servers seconds later what
			// it has seen.
			api["status"] = passing
		}
		checks = append(checks, api)
	}
	sidecar["checks"] = checks
	r.definition = object(apiKeys(definition))
	return r
}

// tells says that it can be seen whether the app works.
func (r *registration) tells() bool {
	return r.network != "" || slices.ContainsFunc(r.checks, isProbed)
}

// appWorks says that the app has passed its checks once.
func (r *registration) appWorks() bool { return r.works.Load() }

// state is what the agent was told last of the ready check, empty before.
func (r *registration) state() string {
	if said := r.said.Load(); said != nil {
		return *said
	}
	return ""
}

// sidecarDefinition is the part of the definition that is the sidecar's.
func (r *registration) sidecarDefinition() map[string]any { return sidecarOf(r.definition) }

func sidecarOf(service map[string]any) map[string]any {
	return object(object(service["connect"])["sidecarservice"])
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
func (r *registration) body(state string) map[string]any {
	body := maps.Clone(r.definition)
	sidecar := own(own(body, "connect"), "sidecarservice")
	if state != passing && !r.shown.Load() {
		putOff(sidecar)
	}
	var checks []any
	for _, check := range objects(sidecar["checks"]) {
		check = maps.Clone(check)
		if state != "" && check["CheckID"] == droplet.ReadyCheckID(r.ID) {
			check["status"] = state
		}
		checks = append(checks, check)
	}
	sidecar["checks"] = checks
	if !r.works.Load() {
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
	config := own(own(sidecar, "proxy"), "config")
	if config["bind_port"] == nil {
		config["bind_port"] = sidecar["port"]
	}
	sidecar["port"] = notYet
}

// ownChecks are the app's, once it works, and those of its sidecar that the file
// declares.
func (r *registration) ownChecks() []map[string]any {
	var all []map[string]any
	if r.works.Load() {
		all = append(all, r.checks...)
	}
	for _, check := range objects(r.sidecarDefinition()["checks"]) {
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
func (r *registration) states(ctx context.Context) map[string]string {
	checks := r.ownChecks()
	remembered := map[string]string{}
	if last := r.remembered.Load(); last != nil {
		remembered = *last
	}
	states := map[string]string{droplet.AliasCheckID(r.ID): passing}
	for i, wrong := range probeAll(ctx, checks) {
		id, apps := checkID(checks[i])
		state := passing
		switch {
		case isAgents(checks[i]):
			state = cmp.Or(remembered[id], critical)
		case wrong != nil:
			state = critical
		}
		states[id] = state
		if apps && state == critical {
			states[droplet.AliasCheckID(r.ID)] = critical
		}
	}
	return states
}

// bodyAgain is body for an agent that knew the service: checks have the states
// that they have, and one that fails does not deregister the service before long.
func (r *registration) bodyAgain(states map[string]string) map[string]any {
	body := r.body(r.state())
	for _, check := range slices.Concat(objects(body["checks"]), objects(sidecarOf(body)["checks"])) {
		id, _ := check["CheckID"].(string)
		state, known := states[id]
		if !known {
			continue // which is said from here
		}
		delete(check, "status")
		check["Status"] = state
		if state == critical {
			delete(check, "deregistercriticalserviceafter")
		}
	}
	return body
}

// own gives an object a copy of the one at key, to be changed.
func own(parent map[string]any, key string) map[string]any {
	child := map[string]any{}
	maps.Copy(child, object(parent[key]))
	parent[key] = child
	return child
}

// findApp says where the app listens, and amends what staging took PORT for.
func (i Instance) findApp(r *registration, sidecar, proxy map[string]any) {
	if socket, ok := r.definition["socket_path"].(string); ok {
		r.network, r.address = "unix", socket
		return
	}
	port := number(r.definition["port"])
	if port == 0 {
		return
	}
	host, ok := proxy["local_service_address"].(string)
	if !ok {
		host = "127.0.0.1"
	}
	r.network, r.address = "tcp", net.JoinHostPort(host, strconv.Itoa(port))
	if !r.FollowsPort || i.Port == 0 || i.Port == port {
		return
	}
	staged := r.address
	r.address = net.JoinHostPort(host, strconv.Itoa(i.Port))
	r.definition["port"] = i.Port
	for _, tagged := range object(r.definition["tagged_addresses"]) {
		follow(object(tagged), "port", port, i.Port)
	}
	for _, path := range objects(object(proxy["expose"])["paths"]) {
		follow(path, "local_path_port", port, i.Port)
	}
	for _, check := range slices.Concat(objects(r.definition["checks"]), objects(sidecar["checks"])) {
		for _, kind := range []string{"http", "tcp", "udp", "grpc", "h2ping"} {
			if text, ok := check[kind].(string); ok {
				check[kind] = strings.Replace(text, staged, r.address, 1)
			}
		}
	}
}

// has says whether one of the checks is of one of the kinds.
func has(checks []map[string]any, kinds ...string) bool {
	return slices.ContainsFunc(checks, func(check map[string]any) bool {
		return slices.ContainsFunc(kinds, func(kind string) bool { return check[kind] != nil })
	})
}

// follow amends a port that staging took for the app's.
func follow(definition map[string]any, key string, staged, port int) {
	if number(definition[key]) == staged {
		definition[key] = port
	}
}

// apiCheck gives a check the keys of Consul's API. There the id has another
// name: CheckID within a service, ID on its own.
func apiCheck(check map[string]any, idKey string) map[string]any {
	api := object(apiKeys(check))
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

func address(port int) string { return "127.0.0.1:" + strconv.Itoa(port) }

// The functions below read decoded JSON, and give the zero value where it has
// another shape.

func object(value any) map[string]any {
	m, _ := value.(map[string]any)
	return m
}

func objects(value any) []map[string]any {
	var all []map[string]any
	list, _ := value.([]any)
	for _, item := range list {
		all = append(all, object(item))
	}
	return all
}

func number(value any) int {
	n, _ := value.(float64)
	return int(n)
}
