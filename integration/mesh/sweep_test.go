package mesh

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/consul-mesh/mesh-buildpack/integration/foundation"
)

// TestSweep: what the last instance of a service leaves when it dies is listed by
// meshctl sweep, and taken out when it is told to; what lives stays. It is not run
// beside other tests, whose nodes it might take for dead.
func TestSweep(t *testing.T) {
	dies, lives := agentless.start(t, agentless.echo(t, "dies")), agentless.start(t, agentless.echo(t, "lives"))
	dead := vanish(t, dies, 0)[0]
	node := "dies-" + dead.GUID()
	eventually(t, "its session has ended", func(ctx ctx) error {
		var sessions []any
		err := shared.Consul(ctx, "GET", "/v1/session/node/"+node, nil, &sessions)
		if err == nil && len(sessions) > 0 {
			err = fmt.Errorf("it has %v", sessions)
		}
		return err
	})

	said := sweep(t, shared)
	if !strings.Contains(said, node) || strings.Contains(said, lives.Instance(0).GUID()) || !strings.Contains(said, "Nothing was changed") {
		t.Errorf("meshctl sweep says:\n%s", said)
	}
	if nodes, err := shared.Nodes(t.Context()); err != nil || !slices.Contains(nodes, node) {
		t.Errorf("after a dry run there are %v, %v", nodes, err)
	}
	if said := sweep(t, shared, "-delete"); !strings.Contains(said, "taken out of the catalog") {
		t.Errorf("meshctl sweep -delete says:\n%s", said)
	}
	nodes, err := shared.Nodes(t.Context())
	if err != nil || slices.Contains(nodes, node) || !slices.Contains(nodes, "lives-"+lives.Instance(0).GUID()) {
		t.Errorf("afterwards there are %v, %v", nodes, err)
	}
	if said := sweep(t, shared); !strings.Contains(said, "has a session") {
		t.Errorf("meshctl sweep says:\n%s", said)
	}
}

func sweep(t *testing.T, f *foundation.Foundation, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(f.Binaries.Build(), "meshctl"), append([]string{"sweep", "-wait", "1s"}, args...)...)
	cmd.Env = append(os.Environ(), "CONSUL_HTTP_ADDR="+f.Servers.Instance(0).Address()+":8080")
	said, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("meshctl sweep %v: %v\n%s", args, err, said)
	}
	return string(said)
}
