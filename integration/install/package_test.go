package install

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/consul-mesh/mesh-buildpack/src/pairs"
)

// want is everything that is in a zip.
var want = []string{
	"CHANGELOG.md", "LICENSE", "README.md", "VERSION",
	"bin/detect", "bin/finalize", "bin/release", "bin/run", "bin/supply",
	"build/buildpack", "build/mesh", "licenses.txt", "manifest.yml", "sbom.cdx.json",
}

const megabyte = 1 << 20

func TestZipHasWhatIsNeeded(t *testing.T) {
	files := open(t, zipPath(""))
	if diff := cmp.Diff(want, names(files)); diff != "" {
		t.Error(diff)
	}
	for name, limit := range map[string]uint64{"build/mesh": 8 * megabyte, "build/buildpack": 12 * megabyte} {
		if size := files[name].UncompressedSize64; size >= limit {
			t.Errorf("%s has %d bytes, the limit is %d", name, size, limit)
		}
	}
	info, err := os.Stat(zipPath(""))
	if err != nil || info.Size() >= 12*megabyte {
		t.Errorf("the zip has %d bytes: %v", info.Size(), err)
	}
	for name, file := range files {
		mode := os.FileMode(0o644)
		if strings.HasPrefix(name, "bin/") || strings.HasPrefix(name, "build/") {
			mode = 0o755
		}
		if file.Mode() != mode {
			t.Errorf("%s has mode %s", name, file.Mode())
		}
	}
}

// TestDefaults: what an operator says for all apps is in the zip, counts for an app whose
// file says nothing, and is judged when the zip is made.
func TestDefaults(t *testing.T) {
	file := filepath.Join(t.TempDir(), "consul.hcl")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	args := []string{"run", "./src/cmd/package", "-manifest", "mirror.yml", "-defaults", file, "-out", "defaults"}
	write("consul { mode = \"agentles\" }\n")
	if said, err := command(checkout, "go", args...); err == nil || !strings.Contains(err.Error(), "on consul.hcl line 1") {
		t.Errorf("a mistake is packed: %v\n%s", err, said)
	}
	write("consul {\n  mode      = \"agentless\"\n  addresses = [\"0.consul-server.apps.internal\"]\n}\nenvoy { memory = 48 }\n")
	must(t, checkout, "go", args...)
	app := frontend(t, unpacked(t, filepath.Join(checkout, "defaults", filepath.Base(zipPath("")))), shared.Last)
	if err := os.WriteFile(filepath.Join(app.Dir, "mesh.hcl"), []byte("service \"frontend\" {}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	forget(t, app)
	droplet, err := stage(t, app)
	if err != nil {
		t.Fatal(err)
	}
	if len(droplet.Sidecars) != 1 || droplet.Sidecars[0].Memory != 48 || !strings.Contains(droplet.Log, "of the operator's defaults.hcl: consul.mode, consul.addresses, envoy.memory") {
		t.Errorf("the sidecars are %+v:\n%s", droplet.Sidecars, droplet.Log)
	}
}

func TestCachedZipHasTheDownloads(t *testing.T) {
	files := open(t, zipPath("-cached"))
	var downloads []string
	for _, name := range names(files) {
		if !slices.Contains(want, name) {
			downloads = append(downloads, filepath.Base(name))
		}
	}
	expected := []string{filepath.Base(shared.Binaries.ConsulZip()), filepath.Base(shared.Binaries.Envoy())}
	slices.Sort(downloads)
	if diff := cmp.Diff(expected, downloads); diff != "" || len(files) != len(want)+len(expected) {
		t.Error(diff)
	}
}

// TestSameBytes: another folder and another umask give the same zip.
func TestSameBytes(t *testing.T) {
	other := filepath.Join(t.TempDir(), "other")
	must(t, checkout, "bash", "-c", "umask 077; git clone --quiet . "+other+"; cd "+other+"; make programs && go run ./src/cmd/package")
	first, err := os.ReadFile(zipPath(""))
	if err != nil {
		t.Fatal(err)
	}
	second, err := os.ReadFile(filepath.Join(other, "build", filepath.Base(zipPath(""))))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first, second) {
		t.Error("the zips differ")
	}
}

// TestBillOfMaterials: it has every module that Go says is linked, and so have
// the licences.
func TestBillOfMaterials(t *testing.T) {
	files := open(t, zipPath(""))
	var bom struct {
		BomFormat    string
		SerialNumber string
		Metadata     struct{ Timestamp string }
		Components   []struct {
			Name, Version string
			Hashes        []struct{ Content string }
		}
	}
	if err := json.Unmarshal(content(t, files["sbom.cdx.json"]), &bom); err != nil {
		t.Fatal(err)
	}
	if bom.BomFormat != "CycloneDX" || bom.SerialNumber != "" || bom.Metadata.Timestamp != "" {
		t.Errorf("the head is %+v", bom)
	}
	has := map[string]bool{}
	for _, component := range bom.Components {
		has[component.Name+" "+component.Version] = true
	}
	for _, name := range []string{"buildpack v" + version, "mesh v" + version, "consul " + pairs.Consul, "consul 2.0.2", "envoy " + pairs.Envoy} {
		if !has[name] {
			t.Errorf("the bill of materials lacks %s", name)
		}
	}
	licenses := string(content(t, files["licenses.txt"]))
	if !strings.Contains(licenses, "==== The Go standard library\n\nCopyright 2009 The Go Authors") {
		t.Error("the licences lack Go's own")
	}
	modules := 0
	for _, program := range []string{"buildpack", "mesh"} {
		for line := range strings.Lines(must(t, checkout, "go", "version", "-m", "build/"+program)) {
			fields := strings.Fields(line)
			if len(fields) < 3 || fields[0] != "dep" {
				continue
			}
			modules++
			if !has[fields[1]+" "+fields[2]] {
				t.Errorf("the bill of materials lacks %s %s", fields[1], fields[2])
			}
			if !strings.Contains(licenses, "==== "+fields[1]+"/") {
				t.Errorf("the licences lack %s", fields[1])
			}
		}
	}
	if modules < 10 {
		t.Errorf("only %d modules are linked", modules)
	}
}

// TestABadDownloadIsNotPackaged, and is fetched again when it is good.
func TestABadDownloadIsNotPackaged(t *testing.T) {
	t.Setenv("GOCACHE", strings.TrimSpace(must(t, checkout, "go", "env", "GOCACHE")))
	t.Setenv("XDG_CACHE_HOME", t.TempDir()) // where the downloads are kept
	const good = "a program of a few bytes"
	download := filepath.Join(t.TempDir(), "download")
	manifest, out := filepath.Join(t.TempDir(), "small.yml"), t.TempDir()
	small := regexp.MustCompile("uri: .*").ReplaceAllString(read(t, "mirror.yml"), "uri: file://"+download)
	small = regexp.MustCompile("sha256: .*").ReplaceAllString(small, fmt.Sprintf("sha256: %x", sha256.Sum256([]byte(good))))
	if err := os.WriteFile(manifest, []byte(small), 0o644); err != nil {
		t.Fatal(err)
	}
	pack := func(text string) error {
		if err := os.WriteFile(download, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		_, err := command(checkout, "go", "run", "./src/cmd/package", "-cached", "-manifest", manifest, "-out", out)
		return err
	}
	err := pack("<html>")
	if err == nil || !strings.Contains(err.Error(), "sha256 mismatch") || !strings.Contains(err.Error(), "hint: ") {
		t.Errorf("a bad download gives %v", err)
	}
	if left, _ := os.ReadDir(out); len(left) > 0 {
		t.Errorf("a bad download leaves %v", left)
	}
	if err := pack(good); err != nil {
		t.Error(err)
	}
}

func open(t *testing.T, path string) map[string]*zip.File {
	t.Helper()
	reader, err := zip.OpenReader(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { reader.Close() })
	files := map[string]*zip.File{}
	for _, file := range reader.File {
		files[file.Name] = file
	}
	return files
}

func names(files map[string]*zip.File) []string {
	var all []string
	for name := range files {
		all = append(all, name)
	}
	slices.Sort(all)
	return all
}

func content(t *testing.T, file *zip.File) []byte {
	t.Helper()
	reader, err := file.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	var text bytes.Buffer
	if _, err := text.ReadFrom(reader); err != nil {
		t.Fatal(err)
	}
	return text.Bytes()
}

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(checkout, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
