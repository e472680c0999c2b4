package install

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/pem"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/consul-mesh/mesh-buildpack/integration/binaries"
	"github.com/consul-mesh/mesh-buildpack/src/artifact"
)

// clone is one that bin/build-from-source runs in, with a Go of a few bytes:
// these tests are about what becomes of the build cache. The real one builds
// in TestGitURL.
type clone struct {
	t          *testing.T
	dir, cache string
	proxy      *httptest.Server
	go_        []byte // the zip that the proxy gives
	fetches    int
	builds     string // a file with a line for every build
}

// tinyGo writes programs that say what src/version is.
const tinyGo = `#!/bin/sh
echo built >> %s
mkdir -p build
for program in mesh buildpack; do
  { echo '#!/bin/sh'; sleep 0.02; echo echo $(cat src/version); } > build/$program
  chmod +x build/$program
done
`

func newClone(t *testing.T) *clone {
	t.Helper()
	c := &clone{t: t, dir: t.TempDir(), cache: t.TempDir(), builds: filepath.Join(t.TempDir(), "builds")}
	for _, name := range []string{"Makefile", "go.mod", "go.sum", "bin/build-from-source"} {
		if err := artifact.Copy(filepath.Join(checkout, name), filepath.Join(c.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	var archive bytes.Buffer
	writer := zip.NewWriter(&archive)
	for name, text := range map[string]string{"bin/go": fmt.Sprintf(tinyGo, c.builds), "pkg/tool/linux_amd64/compile": ""} {
		file, err := writer.Create("golang.org/toolchain@" + binaries.Toolchain(c.dir) + "/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := file.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	c.go_ = archive.Bytes()
	script := c.read("bin/build-from-source")
	pinned := regexp.MustCompile(`go_sha256=[0-9a-f]{64}`).ReplaceAllString(script, fmt.Sprintf("go_sha256=%x", sha256.Sum256(c.go_)))
	if pinned == script {
		t.Fatal("the script has no checksum")
	}
	c.write("bin/build-from-source", pinned)
	c.write("src/version", "1")
	c.proxy = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.fetches++
		if r.URL.Path != "/golang.org/toolchain/@v/"+binaries.Toolchain(c.dir)+".zip" {
			http.NotFound(w, r)
			return
		}
		w.Write(c.go_)
	}))
	t.Cleanup(c.proxy.Close)
	return c
}

func (c *clone) read(name string) string {
	c.t.Helper()
	text, err := os.ReadFile(filepath.Join(c.dir, name))
	if err != nil {
		c.t.Fatal(err)
	}
	return string(text)
}

func (c *clone) write(name, text string) {
	c.t.Helper()
	path := filepath.Join(c.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		c.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		c.t.Fatal(err)
	}
}

// script is the script as a staging starts it: the clone is fresh.
func (c *clone) script(env ...string) *exec.Cmd {
	c.t.Helper()
	if err := os.RemoveAll(filepath.Join(c.dir, "build")); err != nil {
		c.t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(c.dir, "bin/build-from-source"), c.cache)
	cmd.Env = append([]string{"PATH=/usr/bin:/bin", "HOME=/nonexistent", "TMPDIR=" + c.t.TempDir(), "GOPROXY=" + c.proxy.URL + ",direct"}, env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd
}

// makes runs it and asserts what it made, fetched and built.
func (c *clone) makes(version string, fetches, builds int) {
	c.t.Helper()
	before, _ := os.ReadFile(c.builds)
	c.fetches = 0
	if output, err := c.script().CombinedOutput(); err != nil {
		c.t.Fatalf("%v\n%s", err, output)
	}
	for _, program := range []string{"mesh", "buildpack"} {
		if says := must(c.t, c.dir, filepath.Join(c.dir, "build", program)); says != version+"\n" {
			c.t.Errorf("%s says %q", program, says)
		}
	}
	after, _ := os.ReadFile(c.builds)
	if built := strings.Count(string(after[len(before):]), "\n"); c.fetches != fetches || built != builds {
		c.t.Errorf("it fetches Go %d times and builds %d times, want %d and %d", c.fetches, built, fetches, builds)
	}
}

func TestTheProgramsAreBuiltOnce(t *testing.T) {
	c := newClone(t)
	c.makes("1", 1, 1)
	c.makes("1", 0, 0)
	c.write("README.md", "another commit, the same programs")
	c.makes("1", 0, 0)
	c.write("src/version", "2")
	c.makes("2", 0, 1)
	c.makes("2", 0, 0)

	// What nobody uses any more is not kept for ever.
	kept := filepath.Join(c.cache, "mesh-source")
	entries, err := os.ReadDir(kept)
	if err != nil || len(entries) != 3 {
		t.Fatalf("the cache has %v: %v", entries, err)
	}
	for _, entry := range entries {
		old := time.Now().Add(-2 * time.Hour)
		if err := os.Chtimes(filepath.Join(kept, entry.Name()), old, old); err != nil {
			t.Fatal(err)
		}
	}
	c.write("src/version", "3")
	c.makes("3", 0, 1)
	if entries, err = os.ReadDir(kept); err != nil || len(entries) != 2 {
		t.Errorf("the cache has %v: %v", entries, err)
	}
}

func TestABadCacheIsBuiltAnew(t *testing.T) {
	c := newClone(t)
	c.makes("1", 1, 1)
	for _, pattern := range []string{"*/buildpack", "go-*.zip"} {
		found, err := filepath.Glob(filepath.Join(c.cache, "mesh-source", pattern))
		if err != nil || len(found) != 1 {
			t.Fatalf("the cache has %v: %v", found, err)
		}
		if err := os.WriteFile(found[0], []byte("truncated"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	c.makes("1", 1, 1)
}

// TestABuildThatIsKilled leaves nothing that a later staging takes for whole.
func TestABuildThatIsKilled(t *testing.T) {
	c := newClone(t)
	killed := 0
	for i := range 50 {
		c.write("src/version", fmt.Sprint(i))
		cmd := c.script()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(rand.IntN(200)) * time.Millisecond)
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		var exit *exec.ExitError
		if errors.As(cmd.Wait(), &exit) {
			killed++
		}
		if output, err := c.script().CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, output)
		}
		for _, program := range []string{"mesh", "buildpack"} {
			if says := must(t, c.dir, filepath.Join(c.dir, "build", program)); says != fmt.Sprintln(i) {
				t.Fatalf("after a kill %s says %q", program, says)
			}
		}
	}
	if killed < 10 {
		t.Errorf("only %d of 50 builds were killed", killed)
	}
}

func TestGoThatCannotBeHad(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*clone) []string
		says   []string
	}{
		"another file": {
			func(c *clone) []string { c.go_ = []byte("<html>please log in</html>"); return nil },
			[]string{"does not have the checksum", "hint: is it a Go module proxy"},
		},
		"another version": {
			func(c *clone) []string {
				c.write("go.mod", regexp.MustCompile(`(?m)^go .*`).ReplaceAllString(c.read("go.mod"), "go 1.0.1"))
				c.proxy.Config.Handler = http.NotFoundHandler()
				return nil
			},
			[]string{"failed to fetch Go 1.0.1 from 127.0.0.1", "404", "hint: staging must reach 127.0.0.1"},
		},
		"no proxy": {
			func(c *clone) []string { return []string{"GOPROXY=off"} },
			[]string{"GOPROXY=off names no Go module proxy", "hint: set GOPROXY"},
		},
		"an address with a password": {
			func(c *clone) []string {
				c.proxy.Close()
				return []string{"GOPROXY=" + strings.Replace(c.proxy.URL, "//", "//user:canary@", 1)}
			},
			[]string{"failed to fetch Go 1.", "hint: staging must reach 127.0.0.1"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := newClone(t)
			output, err := c.script(test.change(c)...).CombinedOutput()
			if err == nil {
				t.Fatal("built without Go")
			}
			for _, part := range append(test.says, "mesh buildpack: ") {
				if !strings.Contains(string(output), part) {
					t.Errorf("the error lacks %q:\n%s", part, output)
				}
			}
			if strings.Contains(string(output), "canary") {
				t.Errorf("a password is in\n%s", output)
			}
			if left, err := os.ReadDir(filepath.Join(c.cache, "mesh-source")); err != nil || len(left) > 0 {
				t.Errorf("the cache has %v: %v", left, err)
			}
		})
	}
}

// TestAProxyThatThePlatformTrusts: its certificate is of an authority that the platform's
// operator has put into the staging container, and no stack knows.
func TestAProxyThatThePlatformTrusts(t *testing.T) {
	c := newClone(t)
	if err := artifact.Copy(filepath.Join(checkout, "bin/run"), filepath.Join(c.dir, "bin/run")); err != nil {
		t.Fatal(err)
	}
	trusting := httptest.NewTLSServer(c.proxy.Config.Handler)
	t.Cleanup(trusting.Close)
	authority := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: trusting.Certificate().Raw})
	trusted := t.TempDir()
	if err := os.WriteFile(filepath.Join(trusted, "trusted-ca-1.crt"), authority, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, folder := range []string{filepath.Join(trusted, "nowhere"), trusted} { // what is built once is in the cache
		want := "failed to fetch Go 1."
		if folder == trusted {
			want = "\n1\n"
		}
		cmd := c.script("GOPROXY="+trusting.URL, "CF_SYSTEM_CERT_PATH="+folder)
		cmd.Path, cmd.Args = filepath.Join(c.dir, "bin/run"), []string{"run", "supply", t.TempDir(), c.cache}
		output, err := cmd.CombinedOutput()
		if (err == nil) != (folder == trusted) || !strings.Contains(string(output), want) {
			t.Errorf("with %s: %v\n%s", folder, err, output)
		}
	}
}

// TestThePinnedGo is the one that the checksum database knows, which Go has
// asked when it downloaded it.
func TestThePinnedGo(t *testing.T) {
	cache := strings.TrimSpace(must(t, checkout, "go", "env", "GOMODCACHE"))
	sum := digest(t, filepath.Join(cache, "cache/download/golang.org/toolchain/@v", binaries.Toolchain(checkout)+".zip"))
	if !strings.Contains(read(t, "bin/build-from-source"), "\ngo_sha256="+sum+"\n") {
		t.Errorf("bin/build-from-source does not pin the Go of go.mod, whose checksum is %s", sum)
	}
}

// TestLostRunBit: a zip may have been made without the permissions of its files.
func TestLostRunBit(t *testing.T) {
	top := t.TempDir()
	if err := artifact.Copy(filepath.Join(checkout, "bin/run"), filepath.Join(top, "bin/run")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(top, "build"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(top, "build/buildpack"), []byte("#!/bin/sh\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	output, err := exec.Command(filepath.Join(top, "bin/run"), "supply", t.TempDir(), t.TempDir()).CombinedOutput()
	if err == nil || !strings.Contains(string(output), "build/buildpack may not be run\nhint: ") {
		t.Errorf("%v: %s", err, output)
	}
}
