package mesh

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/consul-mesh/mesh-buildpack/integration/cell"
)

// agentlessFile is meshFile without an agent.
func agentlessFile(name string, lines ...string) string {
	return fmt.Sprintf("service %q {\n%s\n}\nconsul {\n  mode = \"agentless\"\n  ports { http = 8080 }\n}\n", name, strings.Join(lines, "\n"))
}

func agentless(t *testing.T, name string, lines ...string) cell.App {
	t.Helper()
	return write(t, name, map[string]string{"mesh.hcl": agentlessFile(name, lines...), "Procfile": "web: ./echo\n"})
}

func TestAgentlessStart(t *testing.T) {
	back := start(t, agentless(t, "direct", `protocol = "http"`, `check "health" { http = "/" }`))
	caller := start(t, agentless(t, "asker", `upstream "direct" { port = 9001 }`), "direct")
	client := caller.Instance(0).HTTPClient()
	eventually(t, "the service answers", func(ctx ctx) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1:9001/", nil)
		if err != nil {
			return err
		}
		response, err := client.Do(request)
		if err != nil {
			return err
		}
		response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("status %s", response.Status)
		}
		return nil
	})
	_, text, code := statusOf(t, caller)
	t.Log(code, text)
	t.Log(tail(back))
	if err := back.Stop(deadline(t)); err != nil {
		t.Fatal(err)
	}
	t.Log(tail(back))
	nodes, _ := shared.Nodes(t.Context())
	t.Log(nodes)
}
