package artifact

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// program is what the tests install: no real one, they are about how it comes.
var program = bytes.Repeat([]byte("\x7fELF consul "), 10_000)

// shelf is a Store, a folder to install into, and what was logged.
type shelf struct {
	Store
	t   *testing.T
	bin string
	mu  sync.Mutex
	log strings.Builder
}

func newShelf(t *testing.T) *shelf {
	t.Helper()
	s := &shelf{t: t, bin: t.TempDir()}
	s.Store = Store{
		Dir: filepath.Join(t.TempDir(), "mesh"), Stall: 10 * time.Second, Pause: time.Millisecond,
		Log: func(format string, args ...any) {
			s.mu.Lock()
			defer s.mu.Unlock()
			fmt.Fprintf(&s.log, format+"\n", args...)
		},
	}
	return s
}

func sumOf(content []byte) string { return fmt.Sprintf("%x", sha256.Sum256(content)) }

func consul(uri string, content []byte) Artifact {
	return Artifact{Name: "consul", Version: "1.2.3", URI: uri, SHA256: sumOf(content)}
}

// installs fails the test unless the program comes to its place, whole and
// executable, and nothing else does.
func (s *shelf) installs(a Artifact) {
	s.t.Helper()
	if err := s.Install(s.t.Context(), s.bin, a); err != nil {
		s.t.Fatal(err)
	}
	path := filepath.Join(s.bin, a.Name)
	content, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(content, program) {
		s.t.Fatalf("the program has %d bytes, want %d: %v", len(content), len(program), err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o555 {
		s.t.Errorf("the program's mode is %v, %v", info.Mode(), err)
	}
	s.tidy(a.Name)
	if err := os.Remove(path); err != nil {
		s.t.Fatal(err)
	}
}

// refuses fails the test unless installing fails, in these words, and leaves
// nothing.
func (s *shelf) refuses(a Artifact, says ...string) {
	s.t.Helper()
	err := s.Install(s.t.Context(), s.bin, a)
	if err == nil {
		s.t.Fatal("it was installed")
	}
	for _, part := range says {
		if !strings.Contains(err.Error(), part) {
			s.t.Errorf("the error lacks %q:\n%v", part, err)
		}
	}
	s.tidy()
	if entries := tree(s.t, s.Dir); !slices.Equal(entries, []string{lockName}) {
		s.t.Errorf("the cache has %q", entries)
	}
}

func (s *shelf) tidy(want ...string) {
	s.t.Helper()
	if got := tree(s.t, s.bin); !slices.Equal(got, want) {
		s.t.Errorf("the programs' folder has %q, want %q", got, want)
	}
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

// serve is a server that counts its requests.
func serve(t *testing.T, answer http.HandlerFunc) (address string, requests func() int) {
	t.Helper()
	var mu sync.Mutex
	count := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		count++
		mu.Unlock()
		answer(w, r)
	}))
	t.Cleanup(server.Close)
	return server.URL, func() int {
		mu.Lock()
		defer mu.Unlock()
		return count
	}
}

func give(content []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.Write(content) }
}
