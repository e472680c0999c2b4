package runtime

import (
	"fmt"
	"net"
	"strconv"
	"strings"

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

	registered bool

	// definition is the body of /v1/agent/service/register: the service and its
	// sidecar, without the app's own checks.
	definition map[string]any
	// checks are the app's own, each the body of /v1/agent/check/register. The
	// agent starts a check critical and runs it first after a random part of
	// its interval; registered as passing once the app was seen to pass, they
	// cost no time.
	checks []map[string]any
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
	i.findApp(r, proxy)
	for _, check := range objects(definition["checks"]) {
		body := apiCheck(check, "ID")
		body["ServiceID"] = r.ID
		body["Status"] = "passing"
		r.checks = append(r.checks, body)
	}
	delete(definition, "checks")
	var checks []map[string]any
	for _, check := range objects(sidecar["checks"]) {
		checks = append(checks, apiCheck(check, "CheckID"))
	}
	sidecar["checks"] = checks
	return r
}

// findApp says where the app listens, and amends what staging took PORT for.
func (i Instance) findApp(r *registration, proxy map[string]any) {
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
	for _, check := range objects(r.definition["checks"]) {
		for _, kind := range []string{"http", "tcp", "udp", "grpc", "h2ping"} {
			if text, ok := check[kind].(string); ok {
				check[kind] = strings.Replace(text, staged, r.address, 1)
			}
		}
	}
}

// apiCheck turns a check as Consul reads it from disk into one as its API
// takes it: there the id has another name, CheckID within a service and ID on
// its own, and keys have no underscores (their case does not matter).
// Everything else of a service definition the API takes in both spellings
// (Consul 1.22, agent/structs/check_type.go and check_definition.go).
func apiCheck(check map[string]any, idKey string) map[string]any {
	api := map[string]any{}
	for key, value := range check {
		if key == "id" {
			key = idKey
		}
		api[strings.ReplaceAll(key, "_", "")] = value
	}
	return api
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
