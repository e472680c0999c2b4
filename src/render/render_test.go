package render

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/consul-mesh/mesh-buildpack/src/meshfile"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestGolden renders every testdata/NAME.hcl and compares each file with the
// one of its name in testdata/NAME. Those in testdata/api say what Consul takes
// by its API, as the runtime registers it, but not from a file on disk.
func TestGolden(t *testing.T) {
	t.Parallel()
	var sources []string
	for _, pattern := range []string{"testdata/*.hcl", "testdata/api/*.hcl"} {
		found, err := filepath.Glob(pattern)
		if err != nil || len(found) == 0 {
			t.Fatalf("no files %s: %v", pattern, err)
		}
		sources = append(sources, found...)
	}
	for _, source := range sources {
		dir := strings.TrimSuffix(source, ".hcl")
		t.Run(filepath.Base(dir), func(t *testing.T) {
			t.Parallel()
			for _, file := range renderFile(t, source) {
				golden := filepath.Join(dir, file.Path)
				if *update {
					if err := os.MkdirAll(filepath.Dir(golden), 0o755); err != nil {
						t.Fatal(err)
					}
					if err := os.WriteFile(golden, file.Content, 0o644); err != nil {
						t.Fatal(err)
					}
				}
				want, err := os.ReadFile(golden)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(string(want), string(file.Content)); diff != "" {
					t.Errorf("%s (-want +got):\n%s", file.Path, diff)
				}
			}
		})
	}
}

// context is what expressions in the golden files look at.
var context = meshfile.NewContext([]string{
	`VCAP_APPLICATION={"application_id":"0f1e","application_name":"Shop","space_name":"dev","organization_name":"acme","application_uris":["shop.example.com"]}`,
	"COLOUR=blue",
})

func renderFile(t *testing.T, source string) []File {
	t.Helper()
	text, err := os.ReadFile(source)
	if err != nil {
		t.Fatal(err)
	}
	mesh, _, err := meshfile.Parse(filepath.Base(source), text, context)
	if err != nil {
		t.Fatal(err)
	}
	files, err := Files(mesh, "0")
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestSameBytesEveryTime(t *testing.T) {
	t.Parallel()
	first := renderFile(t, "testdata/everything.hcl")
	for range 20 {
		if diff := cmp.Diff(first, renderFile(t, "testdata/everything.hcl")); diff != "" {
			t.Fatalf("rendered twice (-first +again):\n%s", diff)
		}
	}
}

// TestProfileScript sources the script as Cloud Foundry's launcher does and
// looks at the command that would start.
func TestProfileScript(t *testing.T) {
	t.Parallel()
	top := t.TempDir()
	for path, mode := range map[string]os.FileMode{"deps/0/bin/mesh": 0o755, "app/.keep": 0o644} {
		full := filepath.Join(top, path)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	var script string
	for _, file := range renderFile(t, "testdata/everything.hcl") {
		if file.Path == "profile.d/mesh.sh" {
			script = filepath.Join(top, "mesh.sh")
			if err := os.WriteFile(script, file.Content, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	wrapped := `exec "$DEPS_DIR/0/bin/mesh" app -- bash -c "$0"`
	for name, test := range map[string]struct {
		program, command, prelude, staging string
		deps                               string
		want                               string
	}{
		"the app":                 {program: "launcher", command: "./run 'a b' && x", want: wrapped + "|./run 'a b' && x"},
		"the app under set -eu":   {program: "launcher", command: "./run", prelude: "set -eu", want: wrapped + "|./run"},
		"the app, sourced twice":  {program: "launcher", command: "./run", prelude: `source "$SCRIPT"`, want: wrapped + "|./run"},
		"our agent":               {program: "launcher", command: `exec "$DEPS_DIR/0/bin/mesh" agent`, want: `exec "$DEPS_DIR/0/bin/mesh" agent`},
		"our proxy":               {program: "launcher", command: `exec "$DEPS_DIR/0/bin/mesh" proxy`, want: `exec "$DEPS_DIR/0/bin/mesh" proxy`},
		"a person's shell":        {program: "shell", command: "bash", want: "bash"},
		"a shell by the launcher": {program: "launcher", command: "bash", want: "bash"},
		"an entrypoint prefix":    {program: "launcher", command: "./run", staging: `{"config":{"entrypoint_prefix":"x"}}`, want: "./run"},
		"without the program":     {program: "launcher", command: "./run", deps: "elsewhere", want: "mesh: the app starts outside the mesh: " + top + "/elsewhere/0/bin/mesh is missing\n./run"},
	} {
		t.Run(name, func(t *testing.T) {
			// Not parallel: the cases share staging_info.yml.
			if err := os.WriteFile(filepath.Join(top, "staging_info.yml"), []byte(test.staging), 0o644); err != nil {
				t.Fatal(err)
			}
			deps := test.deps
			if deps == "" {
				deps = "deps"
			}
			cmd := exec.Command("bash", "-c", `cd "$1"; `+test.prelude+"\n"+
				`source "$SCRIPT"; shift; printf %s "$1"; [ $# -eq 1 ] || printf '|%s' "${@:2}"`,
				"/tmp/lifecycle/"+test.program, filepath.Join(top, "app"), test.command)
			cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "SCRIPT=" + script, "DEPS_DIR=" + filepath.Join(top, deps)}
			got, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, got)
			}
			if string(got) != test.want {
				t.Errorf("starts %q, want %q", got, test.want)
			}
		})
	}
}
