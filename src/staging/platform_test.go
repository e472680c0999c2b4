package staging

import (
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/cloudfoundry/libbuildpack"

	"github.com/consul-mesh/mesh-buildpack/src/pairs"
)

// What libbuildpack's own way does stands beside what is done here in its
// place: where libbuildpack has become better, a test of these fails, and the
// part of the adapter can go.

// libbuildpacks is libbuildpack's own view of the foundation's buildpack.
func (f *foundation) libbuildpacks() (*libbuildpack.Manifest, *libbuildpack.Installer) {
	f.t.Helper()
	manifest, err := libbuildpack.NewManifest(f.buildpack, libbuildpack.NewLogger(io.Discard), time.Now())
	if err != nil {
		f.t.Fatal(err)
	}
	installer := libbuildpack.NewInstaller(manifest)
	if err := installer.SetAppCacheDir(f.cache); err != nil {
		f.t.Fatal(err)
	}
	return manifest, installer
}

var envoyDependency = libbuildpack.Dependency{Name: "envoy", Version: pairs.Envoy}

func TestAnOverrideOfAnEntryThatExists(t *testing.T) {
	f := newFoundation(t)
	f.files["mine"] = []byte("my own envoy")
	f.write(f.deps, "1/override.yml", "mesh:\n  dependencies:\n  "+f.entry(defaultEnvoy, "mine"))

	manifest, _ := f.libbuildpacks()
	if err := manifest.ApplyOverride(f.deps); err != nil {
		t.Fatal(err)
	}
	if entry, err := manifest.GetEntry(envoyDependency); err != nil || !strings.HasSuffix(entry.URI, "/envoy") {
		t.Errorf("libbuildpack's ApplyOverride gives %v, %v", entry, err)
	}
	if err := f.supply(); err != nil {
		t.Fatal(err)
	}
	if f.dep("bin/envoy") != "my own envoy" || f.requests["envoy"] != 0 {
		t.Errorf("envoy is %q after %v", f.dep("bin/envoy"), f.requests)
	}
}

func TestARawFileIsAProgram(t *testing.T) {
	f := newFoundation(t)
	f.files["envoy-"+pairs.Envoy+"-linux-x86_64"] = f.files["envoy"]
	f.manifest(map[string]string{defaultConsul: "consul.zip", defaultEnvoy: "envoy-" + pairs.Envoy + "-linux-x86_64"})
	_, installer := f.libbuildpacks()
	theirs := t.TempDir()
	if err := installer.InstallDependency(envoyDependency, theirs); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(filepath.Join(theirs, "envoy-"+pairs.Envoy+"-linux-x86_64")); err != nil || info.Mode()&0o111 != 0 {
		t.Errorf("libbuildpack installs %q, %v", tree(t, theirs), info)
	}
	if err := f.supply(); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(filepath.Join(f.deps, "0/bin/envoy")); err != nil || info.Mode() != 0o555 {
		t.Errorf("envoy: %v, %v", info, err)
	}
}

func TestATruncatedCacheHeals(t *testing.T) {
	f := newFoundation(t)
	_, installer := f.libbuildpacks()
	if err := installer.InstallDependency(envoyDependency, t.TempDir()); err != nil {
		t.Fatal(err)
	}
	if err := f.supply(); err != nil {
		t.Fatal(err)
	}
	count := 0
	for _, file := range tree(t, f.cache) {
		if strings.HasSuffix(file, "/envoy") {
			count++
			if err := os.Truncate(filepath.Join(f.cache, file), 5); err != nil {
				t.Fatal(err)
			}
		}
	}
	if count != 2 {
		t.Fatalf("the cache has %q", tree(t, f.cache))
	}
	for range 2 {
		_, installer := f.libbuildpacks()
		if installer.InstallDependency(envoyDependency, t.TempDir()) == nil {
			t.Error("libbuildpack heals its cache too")
		}
		f.deps = f.newDeps()
		if err := f.supply(); err != nil {
			t.Fatal(err)
		}
		if f.dep("bin/envoy") != envoyText {
			t.Errorf("envoy is %q", f.dep("bin/envoy"))
		}
	}
}

// TestHashingReadsInPieces: see TestMemory for the whole of supply.
func TestHashingReadsInPieces(t *testing.T) {
	f := newFoundation(t)
	const size = 50 << 20
	f.large(size)
	theirs := allocated(func() {
		_, installer := f.libbuildpacks()
		if err := installer.InstallDependency(envoyDependency, t.TempDir()); err != nil {
			t.Fatal(err)
		}
	})
	if theirs < size {
		t.Errorf("libbuildpack takes %d MB for a file of %d", theirs>>20, size>>20)
	}
	ours := allocated(func() {
		if err := f.supply(); err != nil {
			t.Fatal(err)
		}
	})
	t.Logf("libbuildpack takes %d MB for one file, supply %d for two", theirs>>20, ours>>20)
	if ours > size/2 {
		t.Errorf("supply takes %d MB", ours>>20)
	}
}

func allocated(do func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	do()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

func TestAnyStack(t *testing.T) {
	f := newFoundation(t)
	f.write(f.buildpack, "manifest.yml", strings.ReplaceAll(f.read("manifest.yml"), "[cflinuxfs4]", "[any_stack]"))
	manifest, _ := f.libbuildpacks()
	if versions := manifest.AllDependencyVersions("envoy"); len(versions) != 0 {
		t.Errorf("libbuildpack finds %q", versions)
	}
	for _, stack := range []string{"cflinuxfs4", "cflinuxfs5"} {
		t.Setenv("CF_STACK", stack)
		f.deps = f.newDeps()
		if err := f.supply(); err != nil {
			t.Fatalf("%s: %v", stack, err)
		}
	}
}

// TestTheCacheKeepsWhatIsUsed: as libbuildpack's CleanupAppCache, which its
// users have to call.
func TestTheCacheKeepsWhatIsUsed(t *testing.T) {
	f := newFoundation(t)
	f.files["other"] = []byte("another envoy")
	f.manifest(map[string]string{defaultConsul: "consul.zip", defaultEnvoy: "envoy", "envoy 1.37.2": "other"})
	for _, version := range []string{pairs.Envoy, "1.37.2"} {
		f.write(f.app, "mesh.hcl", fmt.Sprintf("service \"web\" {}\nenvoy { version = %q }\n", version))
		f.deps = f.newDeps()
		if err := f.supply(); err != nil {
			t.Fatal(err)
		}
	}
	kept := strings.Join(tree(t, f.cache), " ")
	if strings.Contains(kept, fmt.Sprintf("%x", sha256.Sum256(f.files["envoy"]))) || strings.Count(kept, "/envoy ") != 1 {
		t.Errorf("the cache has %s", kept)
	}
}
