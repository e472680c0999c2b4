package foundation

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/consul-mesh/mesh-buildpack/integration/cell"
	"github.com/consul-mesh/mesh-buildpack/integration/container"
)

// Part is one of the processes that make up an instance in the mesh.
type Part string

// The parts.
const (
	Consul    Part = "consul"
	Envoy     Part = "envoy"
	MeshAgent Part = "mesh agent"
	MeshProxy Part = "mesh proxy"
	MeshApp   Part = "mesh app"
	Echo      Part = "echo" // the app itself
)

// Parts are the processes of an instance that are one of the parts.
func Parts(i *cell.Instance) (map[Part]container.ProcessInfo, error) {
	processes, err := i.List()
	if err != nil {
		return nil, err
	}
	parts := map[Part]container.ProcessInfo{}
	for _, process := range processes {
		if part := PartOf(process.Args); part != "" && process.HostPid != 0 {
			parts[part] = process
		}
	}
	return parts, nil
}

// PartOf is the part that a command line belongs to, empty if it is none.
func PartOf(args []string) Part {
	if len(args) == 0 {
		return ""
	}
	program := filepath.Base(args[0])
	switch {
	case strings.HasPrefix(program, "envoy"):
		return Envoy
	case program == "echo":
		return Echo
	case len(args) == 1:
		return ""
	case program == "consul" && args[1] == "agent":
		return Consul
	case program == "mesh":
		switch part := Part("mesh " + args[1]); part {
		case MeshAgent, MeshProxy, MeshApp:
			return part
		}
	}
	return ""
}

// Endpoints are the instances of a service that the Envoy of a caller knows, as
// address:port of their sidecars, with Envoy's flags of their health: "healthy",
// or why it sends them nothing.
func Endpoints(ctx context.Context, caller *cell.Instance, service string) (map[string]string, error) {
	text, err := From(ctx, caller, "http://127.0.0.1:19000/clusters")
	if err != nil {
		return nil, fmt.Errorf("failed to ask the admin API of Envoy: %w", err)
	}
	endpoints := map[string]string{}
	for line := range strings.Lines(text) {
		// CLUSTER::ADDRESS:PORT::health_flags::FLAGS
		fields := strings.Split(strings.TrimSpace(line), "::")
		if len(fields) != 4 || fields[2] != "health_flags" {
			continue
		}
		// Where the caller has timeouts of its own, the name is HASH~SERVICE….
		if _, name, found := strings.Cut(fields[0], "~"); found {
			fields[0] = name
		}
		if strings.HasPrefix(fields[0], service+".") {
			endpoints[fields[1]] = fields[3]
		}
	}
	return endpoints, nil
}

// SidecarOf is the address and port at which callers reach an instance.
func SidecarOf(i *cell.Instance) string { return i.Address() + ":21000" }
