package staging

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSupplyLeavesADropletThatIsWhole(t *testing.T) {
	f := newFoundation(t)
	if err := f.supply(); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"agent.json", "bin/consul", "bin/envoy", "bin/mesh", "config.yml",
		"launch.yml", "mesh.json", "profile.d/mesh.sh", "service.json", "sidecar.sh",
	}
	if got := tree(t, filepath.Join(f.deps, "0")); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("deps/0 has %q, want %q", got, want)
	}
	if f.dep("bin/consul") != consulText || f.dep("bin/envoy") != envoyText {
		t.Error("the programs are not the ones that were served")
	}
	for _, file := range want {
		mode := os.FileMode(0o444)
		switch {
		case strings.HasPrefix(file, "bin/"):
			mode = 0o555
		case file == "config.yml":
			mode = 0o644 // libbuildpack's
		}
		info, err := os.Stat(filepath.Join(f.deps, "0", file))
		if err != nil || info.Mode() != mode {
			t.Errorf("%s: %v %v, want %v", file, info.Mode(), err, mode)
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
	if !strings.Contains(f.output, defaultConsul+" from the build cache") {
		t.Errorf("output: %s", f.output)
	}
}

func TestABadCacheIsNotUsed(t *testing.T) {
	f := newFoundation(t)
	if err := f.supply(); err != nil {
		t.Fatal(err)
	}
	sum := fmt.Sprintf("%x", sha256.Sum256(f.files["envoy"]))
	f.write(f.cache, "mesh/envoy-"+sum+"/envoy", "something else")
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

// TestCachedBuildpack: what the packager puts into a zip with everything inside
// is staged without a server, and not kept a second time.
func TestCachedBuildpack(t *testing.T) {
	f := newFoundation(t)
	f.server.Close()
	manifest := f.read("manifest.yml")
	for name, file := range map[string]string{"consul.zip": "dependencies/0123/consul.zip", "envoy": "dependencies/4567/envoy"} {
		f.write(f.buildpack, file, string(f.files[name]))
		address := fmt.Sprintf("uri: %q", f.server.URL+"/"+name)
		manifest = strings.ReplaceAll(manifest, address, address+", file: "+file)
	}
	f.write(f.buildpack, "manifest.yml", manifest)
	if err := f.supply(); err != nil {
		t.Fatal(err)
	}
	if f.dep("bin/consul") != consulText || f.dep("bin/envoy") != envoyText {
		t.Error("the programs are not the ones in the buildpack")
	}
	if kept := tree(t, f.cache); len(kept) != 1 {
		t.Errorf("the cache has %q", kept)
	}
	f.write(f.buildpack, "dependencies/4567/envoy", "another")
	f.deps = f.newDeps()
	if err := f.supply(); err == nil || !strings.Contains(err.Error(), "dependencies/4567/envoy: its checksum is") {
		t.Errorf("with another file in the buildpack: %v", err)
	}
}

// TestDefaultsOfTheOperator: they are at the buildpack's top, count where the app's file
// says nothing, and are named in the log.
func TestDefaultsOfTheOperator(t *testing.T) {
	f := newFoundation(t)
	f.write(f.buildpack, "defaults.hcl", "consul {\n  mode      = \"agentless\"\n  addresses = [\"consul.example.com\"]\n}\n")
	if err := f.supply(); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(f.dep("mesh.json"), `"consul.example.com"`) || f.requests["consul.zip"] != 0 {
		t.Errorf("after %v mesh.json is %s", f.requests, f.dep("mesh.json"))
	}
	if !strings.Contains(f.output, "of the operator's defaults.hcl: consul.mode, consul.addresses") {
		t.Errorf("output: %s", f.output)
	}
	f.write(f.app, "mesh.hcl", "service \"web\" {}\nconsul { mode = \"agent\" }")
	f.deps = f.newDeps()
	if err := f.supply(); err != nil || f.dep("bin/consul") != consulText {
		t.Errorf("the app's own mode does not count: %v", err)
	}
	f.write(f.buildpack, "defaults.hcl", "consul {\n  datacenter = \"cf\"\n  log_level  = \"loud\"\n}\n")
	f.deps = f.newDeps()
	if err := f.supply(); err == nil || !strings.Contains(err.Error(), "on defaults.hcl line 3, in consul") {
		t.Errorf("a mistake of the operator's: %v", err)
	}
}

// TestStagedFolder: an app's folder that was staged before is staged again, whichever
// version has left its script there.
func TestStagedFolder(t *testing.T) {
	f := newFoundation(t)
	f.write(f.app, ".profile.d/mesh.sh", "# Made by the Consul mesh buildpack. In another version.\n")
	for range 2 {
		f.deps = f.newDeps()
		if err := f.supply(); err != nil {
			t.Fatal(err)
		}
		profile, err := os.ReadFile(filepath.Join(f.app, ".profile.d/mesh.sh"))
		if err != nil || string(profile) != f.dep("profile.d/mesh.sh") {
			t.Errorf("the app's profile script is not the one in deps: %v", err)
		}
	}
}
