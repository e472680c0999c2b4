package install

import (
	"io"
	"net/http"
	"net/http/cgi"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/consul-mesh/mesh-buildpack/integration/cell"
)

// TestGitURL: the first staging builds the programs, the second of the same
// app has them in its build cache. Git, Go and its modules come from servers
// of the test.
func TestGitURL(t *testing.T) {
	repository := gitRepository(t)
	var proxied atomic.Int64
	modules := http.FileServer(http.Dir(filepath.Join(strings.TrimSpace(must(t, checkout, "go", "env", "GOMODCACHE")), "cache", "download")))
	backend := filepath.Join(strings.TrimSpace(must(t, checkout, "git", "--exec-path")), "git-http-backend")
	mux := http.NewServeMux()
	mux.Handle("/modules/", http.StripPrefix("/modules", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		proxied.Add(1)
		modules.ServeHTTP(w, r)
	})))
	mux.Handle("/git/", &cgi.Handler{
		Path: backend, Root: "/git", Stderr: io.Discard,
		Env: []string{"GIT_PROJECT_ROOT=" + filepath.Dir(repository), "GIT_HTTP_EXPORT_ALL=1"},
	})
	address := "http://" + serve(t, mux)

	url := address + "/git/" + filepath.Base(repository) + "#v" + version
	app := frontend(t, cell.Buildpack{Name: url}, shared.Last)
	app.Env = map[string]string{
		"GOPROXY": address + "/modules",
		// What an app says to its own Go is not said to ours.
		"GO111MODULE": "off", "GOFLAGS": "-mod=nonsense", "GOWORK": "/nowhere/go.work", "GOEXPERIMENT": "nonsense", "GOOS": "plan9",
	}
	forget(t, app)
	droplet, err := stage(t, app)
	if err != nil {
		t.Fatal(err)
	}
	if proxied.Load() == 0 || !strings.Contains(droplet.Log, "Building the buildpack's programs with Go 1.") {
		t.Errorf("the first staging asks for %d modules and says\n%s", proxied.Load(), droplet.Log)
	}
	runs(t, app, droplet)
	built := digest(t, filepath.Join(droplet.Dir, "deps/0/bin/mesh"))
	if zipped := digest(t, filepath.Join(checkout, "build/mesh")); built != zipped {
		t.Errorf("the container program has checksum %s, from a zip %s", built, zipped)
	}

	proxied.Store(0)
	droplet, err = stage(t, app)
	if err != nil {
		t.Fatal(err)
	}
	if proxied.Load() != 0 || !strings.Contains(droplet.Log, "The buildpack's programs are in the build cache") {
		t.Errorf("the second staging asks for %d modules and says\n%s", proxied.Load(), droplet.Log)
	}
	if again := digest(t, filepath.Join(droplet.Dir, "deps/0/bin/mesh")); again != built {
		t.Errorf("the second staging's container program has checksum %s, the first's %s", again, built)
	}

	t.Run("without a module proxy", func(t *testing.T) {
		app := frontend(t, cell.Buildpack{Name: url}, shared.Last)
		app.Name, app.Env = "no-proxy", map[string]string{"GOPROXY": "http://" + shared.Outside() + ":1"}
		forget(t, app)
		fails(t, app, "failed to fetch Go 1.", "hint: staging must reach "+shared.Outside()+":1 or the Go module proxy that GOPROXY names")
	})
	t.Run("without its server", func(t *testing.T) {
		app := frontend(t, cell.Buildpack{Name: address + "/git/nothing"}, shared.Last)
		app.Name = "no-repository"
		forget(t, app)
		fails(t, app, "Failed to clone git repository at "+address+"/git/nothing")
	})
}

// gitRepository has the checkout's commit, with the manifest that names the
// mirror, and a tag.
func gitRepository(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "mesh-buildpack")
	must(t, checkout, "git", "clone", "--quiet", ".", dir)
	must(t, checkout, "cp", "mirror.yml", filepath.Join(dir, "manifest.yml"))
	must(t, dir, "git", "-c", "user.name=test", "-c", "user.email=test@localhost", "commit", "--quiet", "--all", "--message", "mirror")
	must(t, dir, "git", "tag", "v"+version)
	return dir
}

func digest(t *testing.T, path string) string {
	t.Helper()
	sum, _, _ := strings.Cut(must(t, checkout, "sha256sum", path), " ")
	return sum
}
