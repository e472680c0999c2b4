package staging

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/consul-mesh/mesh-buildpack/src/pairs"
)

// TestPrecedence: source in mesh.hcl, then override.yml, then the manifest.
func TestPrecedence(t *testing.T) {
	f := newFoundation(t)
	f.files["overridden"] = zipped(t, "consul", "the override's")
	f.write(f.deps, "1/override.yml", "mesh:\n  dependencies:\n  "+f.entry(defaultConsul, "overridden"))
	f.write(f.app, "mesh.hcl", "service \"web\" {}\nconsul { source = \"own/consul\" }\n")
	f.write(f.app, "own/consul", "the app's")
	programs := func(want string) {
		t.Helper()
		if err := f.supply(); err != nil {
			t.Fatal(err)
		}
		if got := f.dep("bin/consul"); got != want {
			t.Errorf("consul is %q, want %q", got, want)
		}
		if err := os.RemoveAll(f.app + "/.profile.d"); err != nil {
			t.Fatal(err)
		}
	}
	programs("the app's")
	f.write(f.app, "mesh.hcl", `service "web" {}`)
	programs("the override's")
	if err := os.Remove(f.deps + "/1/override.yml"); err != nil {
		t.Fatal(err)
	}
	programs(consulText)
	if asked := fmt.Sprint(f.requests); asked != "map[consul.zip:1 envoy:1 overridden:1]" {
		t.Errorf("the server was asked for %s", asked)
	}
}

// TestOverride: what an earlier buildpack's override.yml can say.
func TestOverride(t *testing.T) {
	for name, test := range map[string]struct{ override, says string }{
		"a version of its own":    {"  dependencies:\n  - {name: envoy, version: 1.38.9, uri: %[1]q, sha256: %[2]s, cf_stacks: [cflinuxfs4]}\n  default_versions: [{name: consul, version: 2.0.x}]\n", "consul 2.0.2 from"},
		"an address that is down": {"  dependencies:\n  - {name: consul, version: " + pairs.Consul + ", uri: 'http://127.0.0.1:1/x', sha256: %[2]s, cf_stacks: [cflinuxfs4]}\n", "failed to fetch " + defaultConsul + " from http://127.0.0.1:1/x"},
		"no checksum":             {"  dependencies:\n  - {name: consul, version: " + pairs.Consul + ", uri: %[1]q, cf_stacks: [cflinuxfs4]}\n", "the manifest has no checksum for " + defaultConsul},
		"another buildpack's":     {"  other: x\nruby:\n  dependencies: [{name: consul, version: " + pairs.Consul + "}]\n", defaultConsul + " from http://127.0.0.1"},
		"no YAML":                 {"  - {", "failed to read"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFoundation(t)
			override := test.override
			if strings.Contains(override, "%") {
				override = fmt.Sprintf(strings.ReplaceAll(override, "%[2]s", "%[2]x"), f.server.URL+"/envoy", []byte("0123456789abcdef0123456789abcdef"))
			}
			f.write(f.deps, "1/override.yml", "mesh:\n"+override)
			said := ""
			if err := f.supply(); err != nil {
				said = err.Error()
			}
			if said += f.output; !strings.Contains(said, test.says) {
				t.Errorf("it lacks %q:\n%s", test.says, said)
			}
		})
	}
}

func TestVersions(t *testing.T) {
	for name, test := range map[string]struct{ mesh, says string }{
		"the default":           {``, defaultConsul + " from, " + defaultEnvoy + " from"},
		"envoy follows consul":  {`consul { version = "2.0.2" }`, "consul 2.0.2 from, envoy 1.37.2 from"},
		"a patch":               {`consul { version = "2.0.x" }`, "consul 2.0.2 from"},
		"the newest of a minor": {`envoy { version = "1.x" }`, "envoy 1.100.0 from"},
		"numbers, not letters":  {`envoy { version = ">= 1.37.0 < 1.39.0" }`, defaultEnvoy + " from"},
		"an unlisted pair":      {`envoy { version = "1.20.0" }`, "envoy 1.20.0 is neither listed by HashiCorp for " + defaultConsul + " nor tested with it here; " + defaultEnvoy + " is"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFoundation(t)
			f.manifest(map[string]string{
				defaultConsul: "consul.zip", "consul 2.0.2": "consul.zip",
				"envoy 1.100.0": "envoy", defaultEnvoy: "envoy", "envoy 1.37.2": "envoy", "envoy 1.20.0": "envoy",
			})
			f.write(f.app, "mesh.hcl", "service \"web\" {}\n"+test.mesh)
			if err := f.supply(); err != nil {
				t.Fatal(err)
			}
			for _, part := range strings.Split(test.says, ", ") {
				if !strings.Contains(f.output, part) {
					t.Errorf("output lacks %q:\n%s", part, f.output)
				}
			}
			// Of all that the manifest has, one of each is downloaded.
			if asked := fmt.Sprint(f.requests); asked != "map[consul.zip:1 envoy:1]" {
				t.Errorf("the server was asked for %s", asked)
			}
		})
	}
}

// TestManifestOfThePlatform: a platform team may offer another Envoy than the
// one that is tested here.
func TestManifestOfThePlatform(t *testing.T) {
	f := newFoundation(t)
	f.manifest(map[string]string{defaultConsul: "consul.zip", "envoy 1.35.3": "envoy"})
	f.write(f.buildpack, "manifest.yml", strings.Replace(f.read("manifest.yml"), "version: "+pairs.Envoy+"}", "version: 1.35.x}", 1))
	f.write(f.app, "mesh.hcl", `service "web" {}`)
	if err := f.supply(); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(f.output, "envoy 1.35.3 from") {
		t.Errorf("it took another:\n%s", f.output)
	}
}

// TestOverrideForNoStack: libbuildpack leaves out an entry that names none.
func TestOverrideForNoStack(t *testing.T) {
	f := newFoundation(t)
	f.write(f.deps, "1/override.yml", "mesh:\n  dependencies:\n  - {name: envoy, version: 9.9.9, uri: \"https://example.com/envoy\", sha256: \"0\"}\n")
	if err := f.supply(); err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"envoy 9.9.9 has no cf_stacks", "hint: add cf_stacks: [cflinuxfs4]"} {
		if !strings.Contains(f.output, part) {
			t.Errorf("the log lacks %q:\n%s", part, f.output)
		}
	}
}
