package render

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/consul-mesh/mesh-buildpack/src/droplet"
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
				if file.Path == droplet.SidecarFile && filepath.Base(dir) != "everything" {
					continue // it is the same for all
				}
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

// TestSidecarScript: of all that the app and other buildpacks export, a sidecar has what
// it needs, each value as it was, however it is quoted; and its program is started
// with that.
func TestSidecarScript(t *testing.T) {
	t.Parallel()
	deps := t.TempDir()
	program := filepath.Join(deps, "0", "bin", "mesh")
	if err := os.MkdirAll(filepath.Dir(program), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(program, []byte("#!/bin/sh\necho \"$@\"\ntr '\\0' '\\1' </proc/$$/environ\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(deps, "0", "sidecar.sh"), sidecarScript("0"), 0o644); err != nil {
		t.Fatal(err)
	}
	kept := []string{
		"DEPS_DIR=" + deps, "PATH=" + os.Getenv("PATH"), "CF_INSTANCE_INDEX=0",
		"VCAP_SERVICES={\"a\": [\"it's\", \"$HOME\", \"two\\nlines\"]}\n", "MEMORY_LIMIT=",
	}
	cmd := exec.Command("bash", "-c", sidecarCommand("0", "proxy"))
	cmd.Env = append(slices.Clone(kept), "GODEBUG=http2debug=1", "LD_LIBRARY_PATH=/nowhere", "IFS=E", "SHELLOPTS=braceexpand:errexit:nounset", "BASH_FUNC_exec%%=() { echo hijacked; }", "not-a-name=1")
	output, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	said, environment, _ := strings.Cut(string(output), "\n")
	got := strings.Split(strings.TrimSuffix(environment, "\x01"), "\x01")
	// What bash adds, and what is no variable to it, is no variable to Go's runtime either.
	got = slices.DeleteFunc(got, func(entry string) bool {
		return slices.ContainsFunc([]string{"_=", "PWD=", "OLDPWD=", "SHLVL=", "not-a-name="}, func(own string) bool { return strings.HasPrefix(entry, own) })
	})
	slices.Sort(got)
	slices.Sort(kept)
	if diff := cmp.Diff(kept, got); diff != "" || said != "proxy" {
		t.Errorf("started with %q, in the environment (-want +got):\n%s", said, diff)
	}
}

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
	return Files(mesh, "0")
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
	for path, text := range map[string]string{
		"deps/0/bin/mesh": "#!/bin/sh\necho \"$@\"\n", "empty/0/bin/mesh": "", "cut/0/bin/mesh": "\x7fELF\x02\x01\x01", "app/.keep": "",
	} {
		full := filepath.Join(top, path)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	var script, sourced string
	for _, file := range renderFile(t, "testdata/everything.hcl") {
		if file.Path == "profile.d/mesh.sh" {
			script, sourced = filepath.Join(top, "mesh.sh"), string(file.Content)
			if err := os.WriteFile(script, file.Content, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	wrapped := regexp.MustCompile(`(?s)'(set -- "\$\{DEPS.*?)' "\$2"`).FindStringSubmatch(sourced)[1]
	for name, test := range map[string]struct {
		program, command, prelude, staging string
		want                               string
	}{
		"the app":                 {program: "launcher", command: "./run 'a b' && x", want: wrapped + "|./run 'a b' && x"},
		"the app under set -eu":   {program: "launcher", command: "./run", prelude: "set -eu", want: wrapped + "|./run"},
		"the app, sourced twice":  {program: "launcher", command: "./run", prelude: `source "$SCRIPT"`, want: wrapped + "|./run"},
		"our agent":               {program: "launcher", command: `. "$DEPS_DIR/0/sidecar.sh" agent`, want: `. "$DEPS_DIR/0/sidecar.sh" agent`},
		"our proxy":               {program: "launcher", command: `. "$DEPS_DIR/0/sidecar.sh" proxy`, want: `. "$DEPS_DIR/0/sidecar.sh" proxy`},
		"a person's shell":        {program: "shell", command: "bash", want: "bash"},
		"a shell by the launcher": {program: "launcher", command: "bash", want: "bash"},
		"an entrypoint prefix":    {program: "launcher", command: "./run", staging: `{"config":{"entrypoint_prefix":"x"}}`, want: "./run"},
	} {
		t.Run(name, func(t *testing.T) {
			// Not parallel: the cases share staging_info.yml.
			if err := os.WriteFile(filepath.Join(top, "staging_info.yml"), []byte(test.staging), 0o644); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command("bash", "-c", `cd "$1"; `+test.prelude+"\n"+
				`source "$SCRIPT"; shift; printf %s "$1"; [ $# -eq 1 ] || printf '|%s' "${@:2}"`,
				"/tmp/lifecycle/"+test.program, filepath.Join(top, "app"), test.command)
			cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "SCRIPT=" + script, "DEPS_DIR=" + filepath.Join(top, "deps")}
			got, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, got)
			}
			if string(got) != test.want {
				t.Errorf("starts %q, want %q", got, test.want)
			}
		})
	}
	if err := os.Remove(filepath.Join(top, "staging_info.yml")); err != nil { // of the case that came last
		t.Fatal(err)
	}
	for deps, want := range map[string]string{
		"deps":  "app -- bash -c echo the app\n",
		"gone":  "mesh: the app starts outside the mesh: " + top + "/gone/0/bin/mesh is missing or broken\nthe app\n",
		"empty": "mesh: the app starts outside the mesh: " + top + "/empty/0/bin/mesh is missing or broken\nthe app\n",
		"cut":   "mesh: the app starts outside the mesh: " + top + "/cut/0/bin/mesh is missing or broken\nthe app\n",
	} {
		t.Run("runs with the program of "+deps, func(t *testing.T) {
			cmd := exec.Command("bash", "-c", `cd "$1"; source "$SCRIPT"; shift; exec bash -c "$@"`,
				"/tmp/lifecycle/launcher", filepath.Join(top, "app"), "echo the app")
			cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "SCRIPT=" + script, "DEPS_DIR=" + filepath.Join(top, deps)}
			got, err := cmd.CombinedOutput()
			if err != nil || !strings.HasSuffix(string(got), want) {
				t.Errorf("%v: it says %q, want %q", err, got, want)
			}
		})
	}
}
