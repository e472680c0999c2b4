package artifact

import (
	"encoding/pem"
	"io"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// gitServer is a real git repository behind TLS and a password, with the
// program at two refs.
type gitServer struct {
	address   string // with credentials
	first     string // the commit with the program
	mu        sync.Mutex
	arguments string // of every process that ran while git asked
}

func git(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command("git", append([]string{"-C", dir, "-c", "user.name=x", "-c", "user.email=x@example.com", "-c", "commit.gpgsign=false"}, args...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %q: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// serveGit makes the server. It is trusted by way of SSL_CERT_FILE.
func serveGit(t *testing.T) *gitServer {
	t.Helper()
	root := t.TempDir()
	repository := filepath.Join(root, "programs")
	must(t, os.MkdirAll(filepath.Join(repository, "bin"), 0o755))
	git(t, repository, "init", "--quiet", "--initial-branch=main")
	commit := func(content []byte) string {
		must(t, os.WriteFile(filepath.Join(repository, "consul"), content, 0o755))
		must(t, os.WriteFile(filepath.Join(repository, "bin/consul.zip"), zipOf(t, entry{name: "consul", content: content}), 0o644))
		git(t, repository, "add", "-A")
		git(t, repository, "commit", "--quiet", "-m", "x")
		return git(t, repository, "rev-parse", "HEAD")
	}
	s := &gitServer{first: commit(program)}
	git(t, repository, "tag", "-a", "-m", "x", "v1")
	commit([]byte("another"))

	backend := &cgi.Handler{
		Path: filepath.Join(git(t, root, "--exec-path"), "git-http-backend"),
		Env:  []string{"GIT_PROJECT_ROOT=" + root, "GIT_HTTP_EXPORT_ALL=1"}, InheritEnv: []string{"PATH"}, Stderr: io.Discard,
	}
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.look()
		if _, password, _ := r.BasicAuth(); password != "canary" {
			w.Header().Set("WWW-Authenticate", "Basic")
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		backend.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	authority := filepath.Join(t.TempDir(), "ca.pem")
	must(t, os.WriteFile(authority, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o644))
	t.Setenv("SSL_CERT_FILE", authority)
	t.Setenv("GIT_SSL_CAINFO", "") // the machine may have its own
	s.address = strings.Replace(server.URL, "https://", "git::https://user:canary@", 1) + "/programs"
	return s
}

// look reads the arguments of every process, as any process of the container can.
func (s *gitServer) look() {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, file := range files {
		line, _ := os.ReadFile(file) // it may be gone
		s.arguments += strings.ReplaceAll(string(line), "\x00", " ") + "\n"
	}
}

func TestGit(t *testing.T) {
	s := serveGit(t)
	shelf := newShelf(t)
	shelf.installs(consul(s.address+"?ref="+s.first, program))
	shelf.installs(consul(s.address+"//consul?ref=v1", program)) // kept: the same file
	if strings.Count(shelf.log.String(), "checksum verified, in") != 1 {
		t.Errorf("fetched again: %s", shelf.log.String())
	}
	archive := zipOf(t, entry{name: "consul", content: program})
	shelf.installs(consul(s.address+"//bin/consul.zip?ref=v1", archive))
	said := shelf.log.String()

	for uri, says := range map[string]string{
		s.address + "?ref=main":             "its checksum is " + sumOf([]byte("another")),
		s.address:                           "its checksum is " + sumOf([]byte("another")),
		s.address + "//nothing?ref=v1":      "does not exist",
		s.address + "?ref=v2":               "couldn't find remote ref v2\nhint: staging must reach 127.0.0.1",
		s.address + "?ref=--upload-pack=x":  `"--upload-pack=x" is no commit, tag or branch`,
		s.address + "?ref=v1&sshkey=canary": "takes ref after its ?, and nothing else",
		s.address + "-not?ref=v1":           "not found",
		strings.Replace(s.address, "canary", "wrong", 1) + "?ref=v1": "git: ",
	} {
		err := newShelf(t).Install(t.Context(), t.TempDir(), consul(uri, program))
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: the error lacks %q:\n%v", uri, says, err)
			continue
		}
		if strings.Contains(err.Error(), "attempts") {
			t.Errorf("tried more than once: %v", err)
		}
		said += err.Error()
	}
	if strings.Contains(said, "canary") {
		t.Errorf("a credential is in:\n%s", said)
	}
	encoded := "dXNlcjpjYW5hcnk" // user:canary
	if strings.Contains(s.arguments, "canary") || strings.Contains(s.arguments, encoded) {
		t.Error("a credential was an argument of a process")
	}
	if !strings.Contains(s.arguments, "/programs") {
		t.Errorf("git's own arguments were not seen:\n%s", s.arguments)
	}
}

// TestGitThatStalls: git and what it started end with the bound.
func TestGitThatStalls(t *testing.T) {
	t.Parallel()
	address, _ := serve(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	s := newShelf(t)
	s.Stall = time.Second
	s.refuses(consul("git::"+address+"/programs?ref=v1", program), "in 3 attempts: git: ", "hint: staging must reach 127.0.0.1")
}

func TestWithoutGit(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	newShelf(t).refuses(consul("git::http://127.0.0.1:1/x", program), "hint: git is needed for an address that begins with git::")
}
