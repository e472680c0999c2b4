package envoy

import (
	"fmt"
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

// TestMetricsPortOfDefaults: the Envoys of an instance share no port that an operator
// says for all, and what a file says stays.
func TestMetricsPortOfDefaults(t *testing.T) {
	t.Parallel()
	const key = "envoy_prometheus_bind_addr"
	taken := map[int]bool{9103: true, 21000: true, 21001: true}
	for _, test := range []struct {
		defaults string
		nth      int
		own      map[string]any
		want     string
		said     bool
	}{
		{"0.0.0.0:9102", 0, nil, "0.0.0.0:9102", false},
		{"0.0.0.0:9102", 1, nil, "0.0.0.0:9104", true},
		{"0.0.0.0:9102", 2, nil, "0.0.0.0:9105", true},
		{"[::]:21000", 0, nil, "[::]:21002", true},
		{"0.0.0.0:9102", 1, map[string]any{key: "0.0.0.0:9200"}, "0.0.0.0:9200", false},
		{"9102", 1, nil, "9102", false},
	} {
		c := &consul.Client{Base: "http://servers"}
		c.HTTP.Transport = meshtest.Transport(func(string) (int, string) {
			return http.StatusOK, `[{"Config":{"` + key + `":"` + test.defaults + `"}}]`
		})
		said := ""
		log := func(format string, args ...any) { said += fmt.Sprintf(format, args...) }
		config, err := BootstrapConfig(t.Context(), c, "", Sidecar{ID: "web", Nth: test.nth, Taken: taken, Config: test.own}, log)
		if err != nil {
			t.Fatal(err)
		}
		if config[key] != test.want || (said != "") != test.said {
			t.Errorf("%+v: listens on %v, said %q", test, config[key], said)
		}
	}
}
