package staging

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/consul-mesh/mesh-buildpack/src/pairs"
)

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
			[]string{`no consul matches version "1.2.3"`, `hint: this buildpack has ["` + pairs.Consul + `" "2.0.2"]`},
		},
		"a checksum that differs": {
			func(f *foundation) { f.files["envoy"] = []byte("<html>please log in</html>") },
			[]string{"failed to fetch " + defaultEnvoy + " from http://127.0.0.1", "its checksum is", "and should be", "hint: what the address gives is a web page"},
		},
		"a zip without the program": {
			func(f *foundation) {
				f.files["consul.zip"] = zipped(f.t, "readme", "x")
				f.manifest(map[string]string{defaultConsul: "consul.zip", defaultEnvoy: "envoy"})
			},
			[]string{`failed to unpack ` + defaultConsul + `: the archive has no file "consul" at its top`},
		},
		"a zip that climbs out": {
			func(f *foundation) {
				f.files["consul.zip"] = zipped(f.t, "../consul", "x")
				f.manifest(map[string]string{defaultConsul: "consul.zip", defaultEnvoy: "envoy"})
			},
			[]string{"failed to unpack " + defaultConsul + ": the archive has an entry", "../consul", "points outside"},
		},
		"a download that is not there": {
			func(f *foundation) { delete(f.files, "envoy") },
			[]string{"failed to fetch " + defaultEnvoy, "the server says 404 Not Found", "hint: is the address right"},
		},
		"a server that cannot be reached": {
			func(f *foundation) { f.server.Close() },
			[]string{"failed to fetch", "connection refused", "in 3 attempts", "hint: staging must reach 127.0.0.1"},
		},
		"another stack": {
			func(f *foundation) { f.t.Setenv("CF_STACK", "cflinuxfs3") },
			[]string{"required stack cflinuxfs3 was not found", "hint:"},
		},
		"an app with a profile script of the same name": {
			func(f *foundation) { f.write(f.app, ".profile.d/mesh.sh", "theirs") },
			[]string{"the app has a file .profile.d/mesh.sh", "hint: rename it"},
		},
		"a file where a folder of scripts is to be": {
			func(f *foundation) { f.write(f.app, ".profile.d", "theirs") },
			[]string{"the app has a file .profile.d,", "hint: rename it"},
		},
		"a buildpack without its VERSION": {
			func(f *foundation) { os.Remove(filepath.Join(f.buildpack, "VERSION")) },
			[]string{"unable to read VERSION", "hint: the buildpack is not whole"},
		},
		"a cached buildpack without a file": {
			func(f *foundation) {
				address := fmt.Sprintf("uri: %q", f.server.URL+"/envoy")
				f.write(f.buildpack, "manifest.yml", strings.ReplaceAll(f.read("manifest.yml"), address, address+", file: dependencies/1/envoy"))
				f.write(f.buildpack, "dependencies/2/another", "")
			},
			[]string{"the buildpack lacks its file of envoy", "dependencies/1/envoy", "hint: the zip is not whole"},
		},
		"a buildpack that is listed twice": {
			func(f *foundation) { f.write(f.deps, "7/mesh.json", "{}") },
			[]string{"this buildpack is listed twice", "hint: name it once"},
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

// TestAPlaceWithoutSidecars: with ten buildpacks or more, places have two
// digits.
func TestAPlaceWithoutSidecars(t *testing.T) {
	for place, fails := range map[string]bool{"02": true, "09": true, "10": false, "9": false} {
		f := newFoundation(t)
		if err := os.Mkdir(filepath.Join(f.deps, place), 0o755); err != nil {
			t.Fatal(err)
		}
		err := Supply(t.Context(), f.buildpack, []string{f.app, f.cache, f.deps, place}, io.Discard)
		if failed := err != nil && strings.Contains(err.Error(), "the app would have no sidecars\nhint: "); failed != fails || (err != nil) != fails {
			t.Errorf("in place %s: %v", place, err)
		}
	}
}
