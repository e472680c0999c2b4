package consulfile

import (
	"testing"

	"github.com/consul-mesh/mesh-buildpack/src/meshfile"
)

// FuzzImport: whatever stands in a definition, there is a text that is HCL, or an error.
func FuzzImport(f *testing.F) {
	f.Add("a.hcl", []byte("service {\n  name = \"web\"\n  check {\n    tcp = \"localhost:1\"\n  }\n}\n"))
	f.Add("a.json", []byte(`{"services": [{"name": "web", "checks": [{"http": "http://[::1]:1/x"}], "connect": {"sidecar_service": {"proxy": {"upstreams": [{"destination_name": "a b"}]}}}}]}`))
	f.Add("a.json", []byte(`{"Name": "web", "TaggedAddresses": {"": []}, "Weights": 1, "Meta": [1], "Check": {"name": "\u0000"}}`))
	f.Fuzz(func(t *testing.T, name string, src []byte) {
		text, left, err := Import(name, src)
		if err != nil {
			return
		}
		for _, l := range left {
			if l.Path == "" || l.Reason == "" {
				t.Errorf("what is left out has no name or reason: %v", l)
			}
		}
		context := meshfile.NewContext(nil)
		context.Staging = true
		_, _, _ = meshfile.Parse(meshfile.Name, text, context) // it must not panic
	})
}
