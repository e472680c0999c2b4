package foundation

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/go-cmp/cmp"

	"github.com/consul-mesh/mesh-buildpack/integration/cell"
	"github.com/consul-mesh/mesh-buildpack/integration/container"
	"github.com/consul-mesh/mesh-buildpack/src/droplet"
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

// EndpointsAre returns nil while the Envoy of a caller sends requests to all
// instances of a service, which is named as its app, and to nothing else.
func EndpointsAre(ctx context.Context, caller *cell.Instance, service *cell.RunningApp) error {
	want := map[string]string{}
	for _, i := range service.Instances() {
		want[SidecarOf(i)] = "healthy"
	}
	got, err := Endpoints(ctx, caller, service.App().Name)
	if err == nil && !maps.Equal(want, got) {
		err = fmt.Errorf("the Envoy of %s has %v, want %v", caller.App(), got, want)
	}
	return err
}

// CatalogIs returns nil while the catalog has the servers and some instances, each
// with the service of its app's name and the sidecar, passing, and nothing else.
func (f *Foundation) CatalogIs(ctx context.Context, instances ...*cell.Instance) error {
	var want, got []string
	for _, i := range f.Servers.Instances() {
		want = append(want, fmt.Sprintf("node server-%d at %s", i.Index(), i.Address()))
	}
	for _, i := range instances {
		node := NodeOf(i)
		want = append(want, fmt.Sprintf("node %s at %s", node, i.Address()))
		for _, id := range []string{i.App(), droplet.SidecarID(i.App())} {
			want = append(want, fmt.Sprintf("service %s on %s: passing", id, node))
		}
	}
	var nodes []struct {
		Node, Address string
		Services      []struct{ ID string }
		Checks        []struct{ ServiceID, Status, Name string }
	}
	if err := f.Consul(ctx, http.MethodGet, "/v1/internal/ui/nodes", nil, &nodes); err != nil {
		return err
	}
	for _, node := range nodes {
		got = append(got, fmt.Sprintf("node %s at %s", node.Node, node.Address))
		for _, one := range node.Services {
			if one.ID == "consul" {
				continue
			}
			state := "passing"
			for _, check := range node.Checks {
				if (check.ServiceID == one.ID || check.ServiceID == "") && check.Status != "passing" {
					state = check.Name + " " + check.Status
				}
			}
			got = append(got, fmt.Sprintf("service %s on %s: %s", one.ID, node.Node, state))
		}
	}
	return Same(want, got, "the catalog is not what runs")
}

// NodeOf is the name of an instance's node.
func NodeOf(i *cell.Instance) string { return i.App() + "-" + i.GUID() }

// Same returns nil where two lists have the same lines, and otherwise what is
// wrong with them.
func Same(want, got []string, wrong string) error {
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		return fmt.Errorf("%s (-want +got):\n%s", wrong, diff)
	}
	return nil
}
