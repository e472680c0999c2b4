package envoy

import (
	"net/http"
	"strings"
	"testing"

	"github.com/consul-mesh/mesh-buildpack/src/mesh/consul"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/meshtest"
)

// TestSinksOfOthers: an operator's address of metrics that means nothing here
// keeps no app from starting, and is said.
func TestSinksOfOthers(t *testing.T) {
	t.Parallel()
	for text, says := range map[string]string{
		"udp://127.0.0.1:8125":      "",
		"unix:///var/run/stats":     "",
		"udp://${HOST_IP}:8125":     "variables",
		"$STATSD_URL":               "variables",
		"udp://statsd.example:8125": "ParseAddr",
		"tcp://127.0.0.1:8125":      "neither udp",
	} {
		t.Run(text, func(t *testing.T) {
			t.Parallel()
			c := &consul.Client{Base: "http://servers"}
			c.HTTP.Transport = meshtest.Transport(func(string) (int, string) {
				return http.StatusOK, `[{"Config":{"envoy_statsd_url":"` + text + `"}}]`
			})
			said := ""
			log := func(_ string, args ...any) { said = args[len(args)-1].(error).Error() }
			config, err := BootstrapConfig(t.Context(), c, "", Sidecar{}, log)
			if err != nil {
				t.Fatal(err)
			}
			sinks, err := statsSinks(config)
			if err != nil || len(sinks) == 1 != (says == "") || !strings.Contains(said, says) || says == "" && said != "" {
				t.Errorf("%d sinks, %v; said %q, want %q", len(sinks), err, said, says)
			}
		})
	}
}

// TestDefaultsThatCannotBeRead: servers that cannot answer now are asked again;
// what they refuse, or do not have, an Envoy starts without.
func TestDefaultsThatCannotBeRead(t *testing.T) {
	t.Parallel()
	for text, test := range map[string]struct {
		status int
		fails  bool
	}{
		"No cluster leader":                                  {http.StatusInternalServerError, true},
		"No known Consul servers":                            {http.StatusInternalServerError, true},
		"Your IP is issuing too many concurrent connections": {http.StatusTooManyRequests, true},
		"Permission denied":                                  {http.StatusForbidden, false},
		"":                                                   {0, true}, // no answer
	} {
		t.Run(text, func(t *testing.T) {
			t.Parallel()
			c := &consul.Client{Base: "http://servers"}
			c.HTTP.Transport = meshtest.Transport(func(string) (int, string) { return test.status, text })
			if _, err := BootstrapConfig(t.Context(), c, "", Sidecar{}, t.Logf); (err != nil) != test.fails {
				t.Errorf("got the error %v", err)
			}
		})
	}
}
