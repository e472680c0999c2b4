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
	"sync"
	"testing"
	"time"

	"github.com/consul-mesh/mesh-buildpack/src/pairs"
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
	mu                                  sync.Mutex
	asked                               chan time.Time // the last request, where nobody took it
	server                              *httptest.Server
}

// The versions that a file gets which names none.
const (
	defaultConsul = "consul " + pairs.Consul
	defaultEnvoy  = "envoy " + pairs.Envoy
)

func newFoundation(t *testing.T) *foundation {
	t.Helper()
	f := &foundation{
		t: t, buildpack: t.TempDir(), app: t.TempDir(), cache: t.TempDir(), deps: t.TempDir(),
		files:    map[string][]byte{"consul.zip": zipped(t, "consul", consulText), "envoy": []byte(envoyText)},
		requests: map[string]int{}, asked: make(chan time.Time, 1),
	}
	f.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := strings.TrimPrefix(r.URL.Path, "/")
		f.mu.Lock()
		f.requests[name]++
		f.mu.Unlock()
		select {
		case f.asked <- time.Now():
		default:
		}
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
		defaultConsul: "consul.zip", "consul 2.0.2": "consul.zip",
		defaultEnvoy: "envoy", "envoy 1.37.2": "envoy", "envoy 1.20.0": "envoy",
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
	if err := writeFile(filepath.Join(dir, path), []byte(text)); err != nil {
		f.t.Fatal(err)
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

// manifest makes the buildpack's manifest.yml: "name version" to file served.
func (f *foundation) manifest(entries map[string]string) {
	f.t.Helper()
	text := "language: mesh\ndefault_versions: [{name: consul, version: " + pairs.Consul + "}, {name: envoy, version: " + pairs.Envoy + "}]\ndependencies:\n"
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
