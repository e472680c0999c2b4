package staging

import (
	"bytes"
	"strings"
	"testing"
)

// TestNamedLast: who names this buildpack last reads in which order they belong.
func TestNamedLast(t *testing.T) {
	for name, test := range map[string]struct {
		files map[string]string // below deps, where this buildpack has 1
		want  string
	}{
		"behind the app's own": {map[string]string{"0/config.yml": "name: ruby\nconfig: {}\n"}, "name mesh_buildpack before ruby_buildpack"},
		"alone":                {nil, "name the app's own buildpack after mesh_buildpack"},
		"no name":              {map[string]string{"0/config.yml": "[]"}, "name the app's own buildpack after mesh_buildpack"},
		"its own name":         {map[string]string{"1/config.yml": "name: mesh"}, "name the app's own buildpack after mesh_buildpack"},
	} {
		f := newFoundation(t)
		for path, text := range test.files {
			f.write(f.deps, path, text)
		}
		var out bytes.Buffer
		if err := Finalize(t.Context(), f.buildpack, []string{f.app, f.cache, f.deps, "1", t.TempDir()}, &out); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(out.String(), test.want) {
			t.Errorf("%s: %s", name, &out)
		}
	}
}
