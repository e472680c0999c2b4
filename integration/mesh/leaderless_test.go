package mesh

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/consul-mesh/mesh-buildpack/integration/cell"
	"github.com/consul-mesh/mesh-buildpack/integration/foundation"
)

// TestServersWithoutLeader: an instance that comes first to a server without a leader,
// which answers whatever it is asked about itself, goes on to one that has one.
func TestServersWithoutLeader(t *testing.T) {
	const lonely, instances = "lonely-server", 4
	source, err := shared.Source("consul-server", shared.Binaries.Consul())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(source, "config", "join.hcl"), nil, 0o600); err != nil { // it waits for two others
		t.Fatal(err)
	}
	server, err := shared.Push(deadline(t), cell.App{Name: lonely, Dir: source, Buildpacks: []cell.Buildpack{shared.Last}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Delete(context.Background()) })
	name := "of-lonely"
	policy := cell.Policy{Source: name, Destination: lonely, Protocol: "tcp", Start: 8080, End: 8081}
	if err := shared.Allow(policy); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = shared.Disallow(policy) })
	app := write(t, name, map[string]string{"Procfile": "web: ./echo\n", "mesh.hcl": fmt.Sprintf(`service %q {}
consul {
  mode      = "agentless"
  addresses = [%q, %q, %q, %q]
  ports {
    http = 8080
    grpc = 8081
  }
}
`, name, lonely+".apps.internal", "0."+lonely+".apps.internal", server.Instance(0).Address(), foundation.ServersApp+".apps.internal")})
	app.Instances = instances
	backend := running(t, agentless.launchDroplet(t, app, stage(t, app)))
	waitLog(t, backend, "passing, in rotation")
	for _, line := range said(backend, "not servers answer") {
		t.Errorf("a start has come to an end: %v", line)
	}
}
