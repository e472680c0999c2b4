package meshfile

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func contains(text string, parts ...string) bool {
	for _, part := range parts {
		if !strings.Contains(text, part) {
			return false
		}
	}
	return true
}

// TestElsewhere: a file of another name or place is named where there is none.
func TestElsewhere(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]string{
		"Mesh.hcl":                         "there is Mesh.hcl: its name has to be mesh.hcl",
		"mesh.hcl.txt":                     "there is mesh.hcl.txt: its name has to be mesh.hcl",
		"sub/mesh.hcl":                     "there is sub/mesh.hcl: it belongs to the top of what is pushed; cf push -p sub",
		"BOOT-INF/classes/mesh.hcl":        "`jar uf APP.jar mesh.hcl` puts it",
		"node_modules/mesh.hcl":            "add a file mesh.hcl",
		"one/two/three/four/five/mesh.hcl": "add a file mesh.hcl",
		"something":                        "add a file mesh.hcl",
		".git/mesh.hcl":                    "add a file mesh.hcl",
	} {
		dir := t.TempDir()
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, path)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, path), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, _, err := Load(dir, Context{}); err == nil || !contains(err.Error(), "no mesh.hcl at the top of the app", want) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// TestTooLong: a file that no person has written is not shown.
func TestTooLong(t *testing.T) {
	t.Parallel()
	_, _, err := Parse(Name, []byte(strings.Repeat("x", 30<<20)), Context{})
	if err == nil || len(err.Error()) > 500 || !contains(err.Error(), "31457280 bytes", "may have") {
		t.Errorf("got %.500v", err)
	}
}
