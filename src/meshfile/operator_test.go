package meshfile

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// operators writes an operator's file and reads it.
func operators(t *testing.T, text string) (*Defaults, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), DefaultsName)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return ReadDefaults(path)
}

const forAll = `
service_binding = "mesh-${app.space}"
consul {
  mode       = "agentless"
  addresses  = ["consul.example.com"]
  retry_join = ["gossip.example.com"]
  ports {
    http = 8443
    grpc = 8444
  }
}
envoy {
  memory    = 80
  log_level = "off"
  metrics { prometheus = "0.0.0.0:9102" }
}
lifecycle { grace = "30s" }
`

// TestDefaults: an app's file counts before the operator's, attribute by attribute.
func TestDefaults(t *testing.T) {
	t.Parallel()
	defaults, err := operators(t, forAll)
	if err != nil {
		t.Fatal(err)
	}
	context := staged
	context.Defaults = defaults
	for name, test := range map[string]struct {
		file, text string
		want       []string // of the origins
	}{
		"nothing": {Name, `service "a" {}`, []string{
			`service_binding "mesh-dev" defaults.hcl:2`, `consul.mode "agentless" defaults.hcl:4`, `consul.addresses ["consul.example.com"] defaults.hcl:5`,
			`consul.ports.grpc 8444 defaults.hcl:9`, `envoy.memory 80 defaults.hcl:13`, `envoy.metrics.prometheus "0.0.0.0:9102" defaults.hcl:15`,
			`envoy.concurrency 1 :0`, `lifecycle.grace "30s" defaults.hcl:17`,
		}},
		"some of it": {Name, "service \"a\" {}\nenvoy { memory = 90 }\nconsul {\n  ports { http = 8445 }\n}\nservice_binding = \"own\"", []string{
			`envoy.memory 90 mesh.hcl:2`, `envoy.log_level "off" defaults.hcl:14`, `consul.ports.http 8445 mesh.hcl:4`, `consul.ports.grpc 8444 defaults.hcl:9`,
			`consul.addresses ["consul.example.com"] defaults.hcl:5`, `service_binding "own" mesh.hcl:6`,
		}},
		"the other mode": {Name, "service \"a\" {}\nconsul { mode = \"agent\" }", []string{
			`consul.mode "agent" mesh.hcl:2`, `consul.retry_join ["gossip.example.com"] defaults.hcl:6`, `consul.ports.http 8500 :0`, `envoy.memory 80 defaults.hcl:13`,
		}},
		"JSON": {JSONName, `{"service": {"a": {}}, "envoy": {"memory": 90}}`, []string{
			`envoy.memory 90 mesh.hcl.json:1`, `envoy.log_level "off" defaults.hcl:14`, `consul.mode "agentless" defaults.hcl:4`,
		}},
	} {
		mesh, _, err := Parse(test.file, []byte(test.text), context)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var got strings.Builder
		for _, o := range mesh.Origins() {
			fmt.Fprintf(&got, "%s %s %s:%d\n", o.Name, o.Value, o.File, o.Line)
		}
		for _, line := range test.want {
			if !strings.Contains("\n"+got.String(), "\n"+line+"\n") {
				t.Errorf("%s: it lacks %s:\n%s", name, line, got.String())
			}
		}
		if strings.Contains(got.String(), "consul.addresses") == (mesh.Consul.Mode == "agent") {
			t.Errorf("%s: the addresses are not those of the mode %s:\n%s", name, mesh.Consul.Mode, got.String())
		}
	}
}

// TestMistakesWithDefaults: each is shown in the file where it stands.
func TestMistakesWithDefaults(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		defaults, app string
		says          []string
	}{
		"a value":           {"envoy { memory = 5 }", "", []string{"1 mistake in mesh.hcl with defaults.hcl", "on defaults.hcl line 1, in envoy"}},
		"a value not taken": {"envoy { memory = 5 }", "envoy { memory = 64 }", nil},
		"a conflict":        {"envoy {\n  metrics { prometheus = \"0.0.0.0:9001\" }\n}", "service \"b\" { port = 9001 }", []string{"is taken by", "defaults.hcl"}},
		"a credential":      {"consul {\n  config = { acl = { tokens = { agent = \"c4n4ry\" } } }\n}", "", []string{"on defaults.hcl line 2"}},
	} {
		defaults, err := operators(t, test.defaults)
		if err != nil {
			t.Fatal(err)
		}
		context := staged
		context.Defaults = defaults
		_, _, err = Parse(Name, []byte("service \"a\" {}\n"+test.app), context)
		if err == nil && test.says != nil || err != nil && test.says == nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, part := range test.says {
			if !strings.Contains(err.Error(), part) || strings.Contains(err.Error(), "c4n4ry") {
				t.Errorf("%s: it lacks %q: %v", name, part, err)
			}
		}
	}
}

// TestNotInDefaults: what is one app's, or the manifest's, is refused, and so is what
// the language does not have.
func TestNotInDefaults(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`service "a" {}`:                  "A block service is one app's",
		"consul { version = \"1.22.x\" }": "manifest.yml says",
		"envoy { source = \"x\" }":        "manifest.yml says",
		"consul { mod = \"agent\" }":      `Did you mean "mode"?`,
		"consul {":                        "defaults.hcl line 1",
	} {
		if _, err := operators(t, text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
	if defaults, err := ReadDefaults(filepath.Join(t.TempDir(), DefaultsName)); defaults != nil || err != nil {
		t.Errorf("without a file: %v %v", defaults, err)
	}
}
