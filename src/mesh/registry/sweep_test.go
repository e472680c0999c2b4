package registry

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/consul-mesh/mesh-buildpack/src/mesh/meshtest"
)

// TestSweepAddress: of the nodes with an instance's address, those of its own
// foundation are dead, and of others those that show no sign of life.
func TestSweepAddress(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		nodes := `[
			{"Node": "app-guid", "Meta": {"cf-app": "app", "cf-api": "here"}},
			{"Node": "own", "Meta": {"cf-app": "app", "cf-api": "here", "cf-agentless": "true"}},
			{"Node": "foreign-living", "Meta": {"cf-app": "app", "cf-api": "elsewhere", "cf-agentless": "true"}},
			{"Node": "foreign-dead", "Meta": {"cf-app": "app", "cf-api": "elsewhere", "cf-agentless": "true"}},
			{"Node": "hidden", "Meta": {"cf-app": "app", "cf-agentless": "true"}},
			{"Node": "agent-living", "Meta": {"cf-app": "app", "cf-api": "elsewhere"}},
			{"Node": "agent-dead", "Meta": {"cf-app": "app"}},
			{"Node": "somebody"}]`
		var removed []string
		v := viaScripted(t, meshtest.Transport(func(path string) (int, string) {
			switch {
			case path == "/v1/catalog/nodes":
				return http.StatusOK, nodes
			case path == "/v1/session/node/foreign-living":
				return http.StatusOK, `[{"ID": "session"}]`
			case path == "/v1/session/node/hidden":
				return http.StatusForbidden, "Permission denied"
			case path == "/v1/health/node/agent-living":
				return http.StatusOK, `[{"CheckID": "serfHealth", "Status": "passing"}]`
			case path == "/v1/health/node/agent-dead":
				return http.StatusOK, `[{"CheckID": "serfHealth", "Status": "critical"}]`
			case strings.HasPrefix(path, "/v1/catalog/node/"):
				removed = append(removed, strings.TrimPrefix(path, "/v1/catalog/node/"))
				return http.StatusOK, "{}"
			}
			return http.StatusOK, "[]"
		}))
		v.Inst.API, v.Inst.Address = "here", netip.MustParseAddr("10.0.0.1")
		v.SweepAddress(t.Context())
		if want := []string{"own", "foreign-dead", "agent-dead"}; !slices.Equal(removed, want) {
			t.Errorf("looked for %q to take them out, want %q", removed, want)
		}
	})
}
