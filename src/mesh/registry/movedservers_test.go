package registry

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/consul-mesh/mesh-buildpack/src/droplet"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/instance"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/meshtest"
)

// TestMovedServers: servers that answer at their names have moved where the agent knows
// only others, and none of those lives. Behind a load balancer the living have other
// addresses than their name.
func TestMovedServers(t *testing.T) {
	t.Parallel()
	const here = "127.83.0.1"
	listener, err := net.Listen("tcp", fmt.Sprintf("%s:%d", here, serverRPC))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	for name, test := range map[string]struct {
		members, join string
		moved         bool
	}{
		"all are elsewhere and dead":    {server("10.0.0.1", 4) + "," + server("10.0.0.2", 3), here, true},
		"behind a load balancer":        {server("10.0.0.1", 1) + "," + server("10.0.0.2", 4), here, false},
		"one of three has moved":        {server("10.0.0.1", 4) + "," + server(here, 4), here, false},
		"nobody answers at their names": {server("10.0.0.1", 4), "127.83.0.2", false},
		"the agent may see none":        {`{"Addr": "10.0.0.9", "Status": 1}`, here, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &meshtest.Script{Answers: map[string]func(int) (int, string){
				meshtest.AskMembers: func(int) (int, string) { return http.StatusOK, "[" + test.members + "]" },
			}}
			v := scriptedAgent(t, s)
			inst, err := instance.New(filepath.Join(t.TempDir(), "deps/0/bin/mesh"), func(string) string { return "" })
			if err != nil {
				t.Fatal(err)
			}
			v.Inst = inst
			if err := os.MkdirAll(filepath.Dir(inst.Path(droplet.AgentFile)), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(inst.Path(droplet.AgentFile), fmt.Appendf(nil, `{"retry_join": [%q]}`, test.join), 0o644); err != nil {
				t.Fatal(err)
			}
			if got := v.movedServers(t.Context()); (got != "") != test.moved || test.moved && !strings.Contains(got, here) {
				t.Errorf("got %q", got)
			}
		})
	}
}

// server is a member of the gossip as the agent's API has it, with a status of serf's.
func server(address string, status int) string {
	return fmt.Sprintf(`{"Addr": %q, "Status": %d, "Tags": {"role": "consul"}}`, address, status)
}
