package registry

import (
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/consul-mesh/mesh-buildpack/src/mesh/instance"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/wait"
)

// findApp says where the app listens, and amends what staging took PORT for.
func findApp(i instance.Instance, r *Registration, sidecar, proxy map[string]any) {
	if socket, ok := r.definition["socket_path"].(string); ok {
		r.network, r.address = "unix", socket
		return
	}
	port := wait.Number(r.definition["port"])
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
	for _, tagged := range wait.Object(r.definition["tagged_addresses"]) {
		follow(wait.Object(tagged), "port", port, i.Port)
	}
	for _, path := range wait.Objects(wait.Object(proxy["expose"])["paths"]) {
		follow(path, "local_path_port", port, i.Port)
	}
	for _, check := range slices.Concat(wait.Objects(r.definition["checks"]), wait.Objects(sidecar["checks"])) {
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
	if wait.Number(definition[key]) == staged {
		definition[key] = port
	}
}

// Holds says that the app, which has passed, keeps anybody else from a port on
// loopback, or needs none.
func (r *Registration) Holds(port string) bool {
	_, its, err := net.SplitHostPort(r.address)
	return r.network == "unix" || r.network == "tcp" && err == nil && its == port
}
