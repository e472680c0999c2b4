package mesh

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/consul-mesh/mesh-buildpack/integration/cell"
	"github.com/consul-mesh/mesh-buildpack/integration/foundation"
)

// TestServersMoved: an agent whose servers have all got other addresses, and that has
// heard none of the old ones say so, finds them at their name again.
func TestServersMoved(t *testing.T) {
	t.Parallel()
	const name, client = "moving-server", "follows"
	policies := []cell.Policy{{Source: client, Destination: client, Protocol: "tcp", Start: 8301}}
	for _, server := range []string{name, name + "-next"} {
		for _, protocol := range []string{"tcp", "udp"} {
			policies = append(policies,
				cell.Policy{Source: client, Destination: server, Protocol: protocol, Start: 8300, End: 8301},
				cell.Policy{Source: server, Destination: client, Protocol: protocol, Start: 8301})
		}
	}
	if err := shared.Allow(policies...); err != nil {
		t.Fatal(err)
	}
	before := singleServer(t, name, name)
	follower := start(t, write(t, client, map[string]string{
		"Procfile": "web: ./echo\n",
		"mesh.hcl": fmt.Sprintf("service %q { protocol = \"http\" }\nconsul {\n datacenter = \"cf\"\n retry_join = [\"%s.apps.internal\"]\n}\n", client, name),
	}))
	eventually(t, "it is in rotation", func(ctx ctx) error { return passesAt(ctx, before, follower) })

	next := singleServer(t, name+"-next", name)
	for _, i := range before.Instances() {
		restore, err := shared.Silence(i) // its last words would be heard
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = restore() }()
	}
	if err := before.Delete(deadline(t)); err != nil {
		t.Fatal(err)
	}
	waitLog(t, follower, "the servers have all moved to "+next.Instance(0).Address())
	eventually(t, "it is in rotation where the servers are now", func(ctx ctx) error { return passesAt(ctx, next, follower) })
}

// singleServer is a control plane of one, behind a route.
func singleServer(t *testing.T, name, route string) *cell.RunningApp {
	t.Helper()
	dir, err := shared.Source("consul-server", shared.Binaries.Consul())
	if err != nil {
		t.Fatal(err)
	}
	procfile := filepath.Join(dir, "Procfile")
	text, err := os.ReadFile(procfile)
	if err != nil {
		t.Fatal(err)
	}
	alone := strings.NewReplacer("-bootstrap-expect=3", "-bootstrap-expect=1", "-node=server-", "-node="+name+"-").Replace(string(text))
	if err := os.WriteFile(procfile, []byte(alone), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "config", "join.hcl")); err != nil { // there is nobody to join
		t.Fatal(err)
	}
	return start(t, cell.App{Name: name, Dir: dir, InternalRoute: route, Buildpacks: []cell.Buildpack{shared.Last}})
}

// passesAt returns nil while a server's catalog has all of an app's sidecars passing.
func passesAt(ctx ctx, server, app *cell.RunningApp) error {
	var found []struct{ Node struct{ Node string } }
	if err := shared.ConsulAt(ctx, server.Instance(0), http.MethodGet, "/v1/health/connect/"+app.App().Name+"?passing", nil, &found); err != nil {
		return err
	}
	if len(found) != 1 || found[0].Node.Node != foundation.NodeOf(app.Instance(0)) {
		return fmt.Errorf("the catalog has %v", found)
	}
	return nil
}
