package artifact

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// TestABrokenEntryIsMadeAnew: whatever became of the cache.
func TestABrokenEntryIsMadeAnew(t *testing.T) {
	t.Parallel()
	for name, break_ := range map[string]func(entry string) error{
		"nothing became of it": nil,
		"another program":      func(entry string) error { return os.WriteFile(entry+"/consul", []byte("another"), 0o755) },
		"a truncated program":  func(entry string) error { return os.Truncate(entry+"/consul", 100) },
		"no program":           func(entry string) error { return os.Remove(entry + "/consul") },
		"no checksum":          func(entry string) error { return os.Remove(entry + "/consul.blake3") },
		"an empty checksum":    func(entry string) error { return os.Truncate(entry+"/consul.blake3", 0) },
		"a folder for program": func(entry string) error { return replaceBy(entry+"/consul", (*place_).folder) },
		"a file for folder":    func(entry string) error { return replaceBy(entry, (*place_).file) },
		"a dead link":          func(entry string) error { return replaceBy(entry, (*place_).link) },
	} {
		for kind, content := range map[string][]byte{"raw": program, "zip": zipOf(t, entry{name: "consul", content: program})} {
			t.Run(name+", "+kind, func(t *testing.T) {
				t.Parallel()
				address, requests := serve(t, give(content))
				s, a := newShelf(t), consul(address+"/consul", content)
				s.installs(a)
				want := 1
				if break_ != nil {
					want = 2
					must(t, break_(filepath.Join(s.Dir, "consul-"+a.SHA256)))
				}
				for range 2 {
					s.installs(a)
				}
				if requests() != want {
					t.Errorf("%d requests, want %d", requests(), want)
				}
			})
		}
	}
}

// place_ is something else in the place of a file or folder.
type place_ string

func replaceBy(path string, by func(*place_) error) error {
	if err := os.RemoveAll(path); err != nil {
		return err
	}
	p := place_(path)
	return by(&p)
}

func (p *place_) folder() error { return os.Mkdir(string(*p), 0o755) }
func (p *place_) file() error   { return os.WriteFile(string(*p), []byte("x"), 0o644) }
func (p *place_) link() error   { return os.Symlink("/nowhere", string(*p)) }

// TestTheCacheIsSwept: by a staging that is alone on it, of what killed
// stagings left and of other versions; never while another staging lives.
func TestTheCacheIsSwept(t *testing.T) {
	t.Parallel()
	address, requests := serve(t, give(program))
	s, a := newShelf(t), consul(address+"/consul", program)
	leave := func() {
		t.Helper()
		must(t, os.MkdirAll(filepath.Join(s.Dir, ".fetch-1/entry"), 0o755))
		must(t, os.WriteFile(filepath.Join(s.Dir, ".fetch-1/download"), program, 0o644))
		must(t, os.MkdirAll(filepath.Join(s.Dir, sumOf(nil)), 0o755))
		must(t, os.WriteFile(filepath.Join(s.Dir, sumOf(nil), "consul"), program, 0o755))
	}
	kept := []string{lockName, "consul-" + a.SHA256 + "/consul", "consul-" + a.SHA256 + "/consul.blake3"}
	slices.Sort(kept)

	leave()
	other, err := s.open([]Artifact{a}) // sweeps, and lives on
	must(t, err)
	if got := tree(t, s.Dir); !slices.Equal(got, []string{lockName}) {
		t.Errorf("swept, the cache has %q", got)
	}
	leave()
	s.installs(a)
	if got := tree(t, s.Dir); len(got) != len(kept)+2 {
		t.Errorf("beside a living staging, the cache has %q", got)
	}
	other()
	s.installs(a)
	if got := tree(t, s.Dir); !slices.Equal(got, kept) {
		t.Errorf("alone again, the cache has %q, want %q", got, kept)
	}
	if requests() != 1 {
		t.Errorf("%d requests", requests())
	}
}

// TestALocalFileIsNotKept: the cached buildpack's and the app's own are at hand.
func TestALocalFileIsNotKept(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "consul")
	must(t, os.WriteFile(file, program, 0o644))
	s := newShelf(t)
	s.installs(consul(file, program))
	s.installs(Artifact{Name: "consul", URI: file})
	if got := tree(t, s.Dir); !slices.Equal(got, []string{lockName}) {
		t.Errorf("the cache has %q", got)
	}
	s.refuses(consul(file, []byte("another")), file+": its checksum is "+sumOf(program))
	s.refuses(consul(file+".not", program), "no such file or directory")
}
