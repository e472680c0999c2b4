package artifact

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/consul-mesh/mesh-buildpack/src/packed"
)

// TestPacked: a program is packed once, whether it was fetched or was at hand, and is
// as it was when it is unpacked.
func TestPacked(t *testing.T) {
	t.Parallel()
	address, requests := serve(t, give(program))
	file := filepath.Join(t.TempDir(), "consul")
	must(t, os.WriteFile(file, program, 0o644))
	for name, a := range map[string]Artifact{
		"fetched":                       consul(address+"/consul", program),
		"at hand":                       consul(file, program),
		"at hand, without its checksum": {Name: "consul", URI: file},
	} {
		t.Run(name, func(t *testing.T) {
			s := newShelf(t)
			a.Packed = true
			installed := filepath.Join(s.bin, "consul"+packed.Suffix)
			var first os.FileInfo
			for range 2 {
				must(t, s.Install(t.Context(), s.bin, a))
				info, err := os.Stat(installed)
				must(t, err)
				if first != nil && !os.SameFile(first, info) {
					t.Error("it was packed again")
				}
				if first = info; info.Mode() != 0o444 || info.Size() > int64(len(program))/2 {
					t.Errorf("it is packed to %d of %d bytes, %s", info.Size(), len(program), info.Mode())
				}
			}
			path, err := packed.Program(s.bin, "consul")
			must(t, err)
			if got, err := os.ReadFile(path); err != nil || !slices.Equal(got, program) {
				t.Errorf("got %d bytes, %v", len(got), err)
			}
		})
	}
	if requests() != 1 {
		t.Errorf("%d requests", requests())
	}
}

// TestPackedAtHandIsVerified: also where the cache has what was there before.
func TestPackedAtHandIsVerified(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "consul")
	must(t, os.WriteFile(file, program, 0o644))
	s, a := newShelf(t), consul(file, program)
	a.Packed = true
	must(t, s.Install(t.Context(), s.bin, a))
	must(t, os.Remove(filepath.Join(s.bin, "consul"+packed.Suffix)))
	must(t, os.WriteFile(file, []byte("another"), 0o644))
	if err := s.Install(t.Context(), s.bin, a); err == nil {
		t.Error("another program was installed")
	}
}
