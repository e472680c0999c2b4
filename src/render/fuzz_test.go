package render

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/consul-mesh/mesh-buildpack/src/meshfile"
)

// FuzzParseAndRender: whatever a file says, it is either rendered, twice to
// the same bytes, or refused with a place for every mistake.
func FuzzParseAndRender(f *testing.F) {
	for _, pattern := range []string{"testdata/*.hcl", "testdata/api/*.hcl", "../meshfile/testdata/*/*.hcl", "../meshfile/testdata/*/*.json"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(text, filepath.Ext(file) == ".json")
		}
	}
	f.Fuzz(func(t *testing.T, text []byte, asJSON bool) {
		name := meshfile.Name
		if asJSON {
			name = meshfile.JSONName
		}
		mesh, _, err := meshfile.Parse(name, text, context)
		if err != nil {
			var found *meshfile.Diagnostics
			if !errors.As(err, &found) || len(found.List) == 0 {
				t.Fatalf("refused without a diagnostic: %v", err)
			}
			for _, diag := range found.List {
				if diag.Subject == nil || diag.Subject.Start.Line < 1 {
					t.Errorf("a mistake without a line: %v", diag)
				}
			}
			return
		}
		if diff := cmp.Diff(Files(mesh, "0"), Files(mesh, "0")); diff != "" {
			t.Errorf("rendered twice (-first +again):\n%s", diff)
		}
	})
}
