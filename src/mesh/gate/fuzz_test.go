package gate

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/consul-mesh/mesh-buildpack/src/droplet"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/instance"
)

// FuzzDeclaredBy: whatever other buildpacks and the platform have left in a droplet's
// files, a command is of a kind, or the files are named in an error.
func FuzzDeclaredBy(f *testing.F) {
	for _, text := range []string{
		`{processes: [{type: web, command: x, platforms: {cloudfoundry: {sidecar_for: [web]}}}]}`, `processes: {}`, `{"start_command": "x"}`,
		`start_command: [1]`, "web: x\n", "- a", "&a [*a]", "? 1\n: 2", "\x00", "a: &a [*a, *a]", "<<: 1",
	} {
		f.Add([]byte(text), []byte(text), []byte(text))
	}
	top := f.TempDir()
	for _, folder := range []string{"deps/1", "app"} {
		if err := os.MkdirAll(filepath.Join(top, folder), 0o755); err != nil {
			f.Fatal(err)
		}
	}
	inst, err := instance.New(filepath.Join(top, "deps/0/bin/mesh"), func(string) string { return "" })
	if err != nil {
		f.Fatal(err)
	}
	inst.Process = "web"
	config := droplet.Config{Services: []droplet.Service{{ID: "s", Process: "web"}}}
	f.Fuzz(func(t *testing.T, launch, staged, procfile []byte) {
		for path, text := range map[string][]byte{"deps/1/launch.yml": launch, "staging_info.yml": staged, "app/Procfile": procfile} {
			if err := os.WriteFile(filepath.Join(top, path), text, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		kind, err := kindOf(inst, config, "x")
		if (kind == "") != (err != nil) || err != nil && err.Error() == "" {
			t.Errorf("the kind is %q, %v", kind, err)
		}
	})
}
