package staging

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The programs here are a few bytes each: these tests are about what becomes
// of downloads and of mistakes. The real ones are staged in integration/.
const (
	consulText = "#!/bin/sh\necho consul\n"
	envoyText  = "#!/bin/sh\necho envoy\n"
)

// foundation is a buildpack, a server of its downloads, and an app to stage.
type foundation struct {
	t                                   *testing.T
	buildpack, app, cache, deps, output string
	files                               map[string][]byte // served by name
	requests                            map[string]int
	server                              *httptest.Server
}

func newFoundation(t *testing.T) *foundation {
	t.Helper()
	f := &foundation{
		t: t, buildpack: t.TempDir(), app: t.TempDir(), cache: t.TempDir(), deps: t.TempDir(),
		files:    map[string][]byte{"consul.zip": zipped(t, "consul", consulText), "envoy": []byte(envoyText)},
		requests: map[string]int{},
	}
	f.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := strings.TrimPrefix(r.URL.Path, "/")
		f.requests[name]++
		if _, found := f.files[name]; !found {
			http.NotFound(w, r)
			return
		}
		w.Write(f.files[name])
	}))
	t.Cleanup(f.server.Close)
	f.write(f.buildpack, "VERSION", "1.2.3\n")
	f.write(f.buildpack, "build/mesh", "the container program")
	f.manifest(map[string]string{
		"consul 1.22.7": "consul.zip", "consul 2.0.2": "consul.zip",
		"envoy 1.38.2": "envoy", "envoy 1.37.2": "envoy", "envoy 1.20.0": "envoy",
	})
	f.write(f.app, "mesh.hcl", `service "web" {}`)
	if err := os.Mkdir(filepath.Join(f.deps, "0"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("CF_STACK", "cflinuxfs4")
	return f
}

func (f *foundation) write(dir, path, text string) {
	f.t.Helper()
	if err := writeFile(filepath.Join(dir, path), []byte(text), 0o644); err != nil {
		f.t.Fatal(err)
	}
}

// manifest makes the buildpack's manifest.yml: "name version" to file served.
func (f *foundation) manifest(entries map[string]string) {
	f.t.Helper()
	text := "language: mesh\ndefault_versions: [{name: consul, version: 1.22.x}, {name: envoy, version: 1.38.x}]\ndependencies:\n"
	for entry, file := range entries {
		text += f.entry(entry, file)
	}
	f.write(f.buildpack, "manifest.yml", text)
}

func (f *foundation) entry(entry, file string) string {
	name, version, _ := strings.Cut(entry, " ")
	return fmt.Sprintf("- {name: %s, version: %s, uri: %q, sha256: %x, cf_stacks: [cflinuxfs4]}\n",
		name, version, f.server.URL+"/"+file, sha256.Sum256(f.files[file]))
}

func (f *foundation) supply() error {
	f.t.Helper()
	var out bytes.Buffer
	err := Supply(f.t.Context(), f.buildpack, []string{f.app, f.cache, f.deps, "0"}, &out)
	f.output = out.String()
	return err
}

func (f *foundation) dep(path string) string {
	f.t.Helper()
	text, err := os.ReadFile(filepath.Join(f.deps, "0", path))
	if err != nil {
		f.t.Fatal(err)
	}
	return string(text)
}

func zipped(t *testing.T, name, text string) []byte {
	t.Helper()
	var archive bytes.Buffer
	writer := zip.NewWriter(&archive)
	file, err := writer.Create(name)
	if err == nil {
		_, err = io.WriteString(file, text)
	}
	if err == nil {
		err = writer.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return archive.Bytes()
}

// tree lists every file below a folder.
func tree(t *testing.T, dir string) []string {
	t.Helper()
	var files []string
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			files = append(files, strings.TrimPrefix(path, dir+"/"))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestSupplyLeavesADropletThatIsWhole(t *testing.T) {
	f := newFoundation(t)
	if err := f.supply(); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"agent.json", "bin/consul", "bin/envoy", "bin/mesh", "config.yml",
		"launch.yml", "mesh.json", "profile.d/mesh.sh", "service.json",
	}
	if got := tree(t, filepath.Join(f.deps, "0")); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("deps/0 has %q, want %q", got, want)
	}
	if f.dep("bin/consul") != consulText || f.dep("bin/envoy") != envoyText {
		t.Error("the programs are not the ones that were served")
	}
	for _, program := range []string{"consul", "envoy", "mesh"} {
		info, err := os.Stat(filepath.Join(f.deps, "0/bin", program))
		if err != nil || info.Mode().Perm() != 0o755 {
			t.Errorf("%s: %v %v", program, info.Mode(), err)
		}
	}
	profile, err := os.ReadFile(filepath.Join(f.app, ".profile.d/mesh.sh"))
	if err != nil || string(profile) != f.dep("profile.d/mesh.sh") {
		t.Errorf("the app's profile script is not the one in deps: %v", err)
	}
	if !strings.Contains(f.dep("config.yml"), "version: 1.2.3") {
		t.Errorf("config.yml: %s", f.dep("config.yml"))
	}
}

func TestSecondStagingUsesTheCache(t *testing.T) {
	f := newFoundation(t)
	for range 2 {
		if err := f.supply(); err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(filepath.Join(f.app, ".profile.d")); err != nil {
			t.Fatal(err)
		}
	}
	if f.requests["consul.zip"] != 1 || f.requests["envoy"] != 1 {
		t.Errorf("requests: %v", f.requests)
	}
	if !strings.Contains(f.output, "consul 1.22.7 from the build cache") {
		t.Errorf("output: %s", f.output)
	}
}

func TestABadCacheIsNotUsed(t *testing.T) {
	f := newFoundation(t)
	if err := f.supply(); err != nil {
		t.Fatal(err)
	}
	sum := fmt.Sprintf("%x", sha256.Sum256(f.files["envoy"]))
	f.write(f.cache, "mesh/"+sum+"/envoy", "something else")
	if err := os.RemoveAll(filepath.Join(f.app, ".profile.d")); err != nil {
		t.Fatal(err)
	}
	if err := f.supply(); err != nil {
		t.Fatal(err)
	}
	if f.dep("bin/envoy") != envoyText || f.requests["envoy"] != 2 {
		t.Errorf("bin/envoy is %q after %d requests", f.dep("bin/envoy"), f.requests["envoy"])
	}
}

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

// TestBadInput: one clear error each, and nothing left behind.
func TestBadInput(t *testing.T) {
	for name, test := range map[string]struct {
		break_ func(*foundation)
		says   []string
	}{
		"no mesh.hcl": {
			func(f *foundation) { os.Remove(filepath.Join(f.app, "mesh.hcl")) },
			[]string{"no mesh.hcl at the top of the app", `service "my-app" {}`},
		},
		"a syntax error": {
			func(f *foundation) { f.write(f.app, "mesh.hcl", "service \"web\" {\n") },
			[]string{"on mesh.hcl line 1", "There is no closing brace"},
		},
		"an unknown block": {
			func(f *foundation) { f.write(f.app, "mesh.hcl", "service \"web\" {}\nconsl {}\n") },
			[]string{"on mesh.hcl line 2", `Did you mean "consul"?`, "docs/mesh-hcl.md"},
		},
		"an unknown version": {
			func(f *foundation) {
				f.write(f.app, "mesh.hcl", "service \"web\" {}\nconsul { version = \"1.2.3\" }\n")
			},
			[]string{`no consul matches version "1.2.3"`, `hint: this buildpack has ["1.22.7" "2.0.2"]`},
		},
		"a checksum that differs": {
			func(f *foundation) { f.files["envoy"] = []byte("<html>please log in</html>") },
			[]string{"failed to fetch envoy 1.38.2 from http://127.0.0.1", "its checksum is", "and should be", "hint:"},
		},
		"a zip without the program": {
			func(f *foundation) {
				f.files["consul.zip"] = zipped(f.t, "readme", "x")
				f.manifest(map[string]string{"consul 1.22.7": "consul.zip", "envoy 1.38.2": "envoy"})
			},
			[]string{`failed to unpack consul 1.22.7: the archive has no file "consul" at its top`},
		},
		"a zip that climbs out": {
			func(f *foundation) {
				f.files["consul.zip"] = zipped(f.t, "../consul", "x")
				f.manifest(map[string]string{"consul 1.22.7": "consul.zip", "envoy 1.38.2": "envoy"})
			},
			[]string{"failed to unpack consul 1.22.7", ".."},
		},
		"a download that is not there": {
			func(f *foundation) { delete(f.files, "envoy") },
			[]string{"failed to fetch envoy 1.38.2", "404", "in 3 attempts", "hint: staging must reach 127.0.0.1"},
		},
		"a server that cannot be reached": {
			func(f *foundation) { f.server.Close() },
			[]string{"failed to fetch", "connection refused", "hint: staging must reach"},
		},
		"another stack": {
			func(f *foundation) { f.t.Setenv("CF_STACK", "cflinuxfs3") },
			[]string{"required stack cflinuxfs3 was not found", "hint:"},
		},
		"an app with a profile script of the same name": {
			func(f *foundation) { f.write(f.app, ".profile.d/mesh.sh", "theirs") },
			[]string{"the app has a file .profile.d/mesh.sh", "hint: rename it"},
		},
		"an unbuilt buildpack": {
			func(f *foundation) { os.Remove(filepath.Join(f.buildpack, "build/mesh")) },
			[]string{"failed to read the container program", "hint: run make build"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFoundation(t)
			test.break_(f)
			before := tree(t, f.app)
			err := f.supply()
			if err == nil {
				t.Fatal("staged without an error")
			}
			for _, part := range test.says {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("the error lacks %q:\n%v", part, err)
				}
			}
			if left := tree(t, filepath.Join(f.deps, "0")); len(left) != 0 {
				t.Errorf("deps/0 has %q", left)
			}
			if after := tree(t, f.app); fmt.Sprint(after) != fmt.Sprint(before) {
				t.Errorf("the app had %q and has %q", before, after)
			}
			for _, cached := range tree(t, f.cache) {
				if strings.Contains(cached, ".fetch-") {
					t.Errorf("the cache has %q", cached)
				}
			}
		})
	}
}

func TestTooFewArguments(t *testing.T) {
	t.Parallel()
	err := Supply(t.Context(), t.TempDir(), []string{"a", "b"}, io.Discard)
	if err == nil || !strings.Contains(err.Error(), "hint:") {
		t.Errorf("error: %v", err)
	}
}

// TestSource: a program of the app's own, checked where a checksum is given.
func TestSource(t *testing.T) {
	f := newFoundation(t)
	own := zipped(t, "consul", "my own consul")
	f.write(f.app, "vendor/consul.zip", string(own))
	file := "service \"web\" {}\nconsul {\n  source = \"vendor/consul.zip\"\n  sha256 = \"%x\"\n}\n"
	f.write(f.app, "mesh.hcl", fmt.Sprintf(file, sha256.Sum256(own)))
	if err := f.supply(); err != nil {
		t.Fatal(err)
	}
	if f.dep("bin/consul") != "my own consul" || f.requests["consul.zip"] != 0 {
		t.Errorf("consul is %q after %d downloads", f.dep("bin/consul"), f.requests["consul.zip"])
	}

	f = newFoundation(t)
	f.write(f.app, "vendor/consul.zip", string(own))
	f.write(f.app, "mesh.hcl", fmt.Sprintf(file, sha256.Sum256([]byte("another"))))
	if err := f.supply(); err == nil || !strings.Contains(err.Error(), "the checksum of the source vendor/consul.zip is") {
		t.Errorf("with another checksum: %v", err)
	}

	f = newFoundation(t)
	f.write(f.app, "mesh.hcl", fmt.Sprintf(file, sha256.Sum256(own)))
	if err := f.supply(); err == nil || !strings.Contains(err.Error(), "failed to read the source vendor/consul.zip") {
		t.Errorf("without the file: %v", err)
	}
}

// TestAddressesAreNotLoggedWhole: what may be a credential in an address stays
// out of the log and of errors.
func TestAddressesAreNotLoggedWhole(t *testing.T) {
	f := newFoundation(t)
	address := strings.Replace(f.server.URL, "http://", "http://user:canary1@", 1) + "/envoy?token=canary2"
	manifest := strings.ReplaceAll(f.read("manifest.yml"), f.server.URL+"/envoy", address)
	f.write(f.buildpack, "manifest.yml", manifest)
	if err := f.supply(); err != nil {
		t.Fatal(err)
	}
	f.server.Close()
	if err := os.RemoveAll(filepath.Join(f.cache, "mesh")); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(f.app, ".profile.d")); err != nil {
		t.Fatal(err)
	}
	said := f.output
	err := f.supply()
	if err == nil {
		t.Fatal("staged without a server")
	}
	said += f.output + err.Error()
	if strings.Contains(said, "canary") {
		t.Errorf("a credential is in:\n%s", said)
	}
}

func (f *foundation) read(path string) string {
	f.t.Helper()
	text, err := os.ReadFile(filepath.Join(f.buildpack, path))
	if err != nil {
		f.t.Fatal(err)
	}
	return string(text)
}
