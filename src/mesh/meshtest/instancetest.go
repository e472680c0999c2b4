package meshtest

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/consul-mesh/mesh-buildpack/src/mesh/instance"
)

// InstanceOf is an instance whose deps/0 has the given files.
func InstanceOf(t *testing.T, files map[string]string, env map[string]string) instance.Instance {
	t.Helper()
	top := t.TempDir()
	for name, text := range files {
		path := filepath.Join(top, "deps/0", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	inst, err := instance.New(filepath.Join(top, "deps/0/bin/mesh"), func(name string) string { return env[name] })
	if err != nil {
		t.Fatal(err)
	}
	return inst
}
