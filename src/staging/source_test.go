package staging

import (
	"crypto/sha256"
	"encoding/pem"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestSourceInTheApp: a program of the app's own, checked where a checksum is
// given.
func TestSourceInTheApp(t *testing.T) {
	own := "my own consul"
	archive := zipped(t, "consul", own)
	for name, test := range map[string]struct {
		prepare func(f *foundation, file string)
		sum     string
		says    string // empty where it is staged
	}{
		"an archive":         {nil, fmt.Sprintf("%x", sha256.Sum256(archive)), ""},
		"without a checksum": {nil, "", ""},
		"the program itself": {func(f *foundation, file string) { f.write(f.app, "vendor/consul", own) }, "", ""},
		"another checksum":   {nil, fmt.Sprintf("%x", sha256.Sum256(nil)), "vendor/consul: its checksum is"},
		"no file":            {func(_ *foundation, file string) { os.Remove(file) }, "", "failed to read the source vendor/consul: "},
		"a folder":           {func(_ *foundation, file string) { os.Remove(file); os.Mkdir(file, 0o755) }, "", "it is no file\nhint: it is a file inside the app"},
		"a link inside":      {func(_ *foundation, file string) { os.Rename(file, file+"2"); os.Symlink("consul2", file) }, "", ""},
		"a link outside":     {func(_ *foundation, file string) { os.Remove(file); os.Symlink("/bin/sh", file) }, "", "failed to read the source vendor/consul: "},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFoundation(t)
			f.write(f.app, "vendor/consul", string(archive))
			if test.prepare != nil {
				test.prepare(f, filepath.Join(f.app, "vendor/consul"))
			}
			sum := ""
			if test.sum != "" {
				sum = fmt.Sprintf("sha256 = %q", test.sum)
			}
			f.write(f.app, "mesh.hcl", "service \"web\" {}\nconsul {\n  source = \"vendor/consul\"\n"+sum+"\n}\n")
			err := f.supply()
			switch {
			case test.says == "" && err != nil:
				t.Fatal(err)
			case test.says != "" && (err == nil || !strings.Contains(err.Error(), test.says) || !strings.Contains(err.Error(), "\nhint: ")):
				t.Fatalf("the error lacks %q: %v", test.says, err)
			case test.says == "" && f.dep("bin/consul") != own:
				t.Errorf("consul is %q", f.dep("bin/consul"))
			}
			if f.requests["consul.zip"] != 0 {
				t.Error("the manifest's was downloaded")
			}
		})
	}
}

// TestArchiveInTheApp: the program is where the path after // says.
func TestArchiveInTheApp(t *testing.T) {
	for inside, says := range map[string]string{
		"v1/bin/consul":    "",
		"v2/bin/consul":    "failed to install consul",
		"../../bin/consul": "points outside",
		"":                 "points outside",
	} {
		t.Run(inside, func(t *testing.T) {
			f := newFoundation(t)
			f.write(f.app, "vendor/consul.zip", string(zipped(t, "v1/bin/consul", "in its depth")))
			f.write(f.app, "mesh.hcl", fmt.Sprintf("service \"web\" {}\nconsul { source = %q }\n", "vendor/consul.zip//"+inside))
			err := f.supply()
			switch {
			case says == "" && err != nil:
				t.Fatal(err)
			case says != "" && (err == nil || !strings.Contains(err.Error(), says)):
				t.Fatalf("the error lacks %q: %v", says, err)
			case says == "" && f.dep("bin/consul") != "in its depth":
				t.Errorf("consul is %q", f.dep("bin/consul"))
			}
		})
	}
}

// TestSourceOnAServer: an https address with a query that is a credential, as
// buckets give them, and an archive with the program in its depth.
func TestSourceOnAServer(t *testing.T) {
	f := newFoundation(t)
	f.files["builds.zip"] = zipped(t, "v1/bin/consul", "my own consul")
	server := httptest.NewTLSServer(f.server.Config.Handler)
	t.Cleanup(server.Close)
	f.write(f.buildpack, "ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})))
	address := strings.Replace(server.URL, "https://", "https://user:canary1@", 1) + "/builds.zip//v1/bin/consul?X-Amz-Signature=canary2"
	f.write(f.app, "mesh.hcl", fmt.Sprintf("service \"web\" {}\nconsul {\n  source = %q\n  sha256 = \"%x\"\n}\n", address, sha256.Sum256(f.files["builds.zip"])))
	for range 2 {
		f.deps = f.newDeps()
		cmd, out := f.process(f.deps, "SSL_CERT_FILE="+f.buildpack+"/ca.pem")
		if err := cmd.Run(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if f.dep("bin/consul") != "my own consul" {
			t.Errorf("consul is %q", f.dep("bin/consul"))
		}
		if strings.Contains(out.String(), "canary") {
			t.Errorf("a credential is in:\n%s", out)
		}
	}
	if asked := fmt.Sprint(f.requests); asked != "map[builds.zip:1 envoy:1]" {
		t.Errorf("the server was asked for %s", asked)
	}
	for _, file := range tree(t, f.deps) {
		if content, err := os.ReadFile(filepath.Join(f.deps, file)); err != nil || strings.Contains(string(content), "canary") {
			t.Errorf("a credential is in the droplet's %s: %v", file, err)
		}
	}
}

// TestAddressesAreNotLoggedWhole: what may be a credential in an address of
// the manifest stays out of the log and of errors.
func TestAddressesAreNotLoggedWhole(t *testing.T) {
	f := newFoundation(t)
	address := strings.Replace(f.server.URL, "http://", "http://user:canary1@", 1) + "/envoy?token=canary2"
	f.write(f.buildpack, "manifest.yml", strings.ReplaceAll(f.read("manifest.yml"), f.server.URL+"/envoy", address))
	if err := f.supply(); err != nil {
		t.Fatal(err)
	}
	said := f.output
	f.server.Close()
	if err := os.RemoveAll(filepath.Join(f.cache, "mesh")); err != nil {
		t.Fatal(err)
	}
	f.deps = f.newDeps()
	err := f.supply()
	if err == nil {
		t.Fatal("staged without a server")
	}
	if said += f.output + err.Error(); strings.Contains(said, "canary") {
		t.Errorf("a credential is in:\n%s", said)
	}
}
