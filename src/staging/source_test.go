package staging

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

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
	if err := f.supply(); err == nil || !strings.Contains(err.Error(), "vendor/consul.zip: its checksum is") {
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
