package staging

import (
	"strings"
	"testing"
)

func TestOverride(t *testing.T) {
	f := newFoundation(t)
	f.files["mine.zip"] = zipped(t, "consul", "my own consul")
	f.write(f.deps, "1/override.yml", "mesh:\n  dependencies:\n  "+
		strings.ReplaceAll(f.entry("consul 1.22.7", "mine.zip"), "\n", "\n  ")+"\n")
	if err := f.supply(); err != nil {
		t.Fatal(err)
	}
	if f.dep("bin/consul") != "my own consul" {
		t.Errorf("consul is %q", f.dep("bin/consul"))
	}
}

func TestVersions(t *testing.T) {
	for name, test := range map[string]struct{ mesh, says string }{
		"the default":          {``, "consul 1.22.7 from, envoy 1.38.2 from"},
		"envoy follows consul": {`consul { version = "2.0.2" }`, "consul 2.0.2 from, envoy 1.37.2 from"},
		"a constraint":         {`consul { version = "2.0.x" }`, "consul 2.0.2 from"},
		"an unlisted pair":     {`envoy { version = "1.20.0" }`, "envoy 1.20.0 is neither listed by HashiCorp for consul 1.22.7 nor tested with it here; envoy 1.38.2 is"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFoundation(t)
			f.write(f.app, "mesh.hcl", "service \"web\" {}\n"+test.mesh)
			if err := f.supply(); err != nil {
				t.Fatal(err)
			}
			for _, part := range strings.Split(test.says, ", ") {
				if !strings.Contains(f.output, part) {
					t.Errorf("output lacks %q:\n%s", part, f.output)
				}
			}
		})
	}
}
