package packed

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

var program = bytes.Repeat([]byte("\x7fELF consul "), 100_000)

// bin is a folder with a packed program, which change may have changed.
func bin(t *testing.T, change func([]byte) []byte) string {
	t.Helper()
	var file bytes.Buffer
	encoder, err := NewWriter(&file)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := encoder.Write(program); err != nil {
		t.Fatal(err)
	}
	if err := encoder.Close(); err != nil {
		t.Fatal(err)
	}
	packed := file.Bytes()
	if change != nil {
		packed = change(packed)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "consul"+Suffix), packed, 0o444); err != nil {
		t.Fatal(err)
	}
	return dir
}

func names(t *testing.T, dir string) string {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, file := range files {
		all = append(all, file.Name())
	}
	return strings.Join(all, " ")
}

// TestProgram: of many who want a program at once, each gets the whole of it, and there
// is one. What was left by one that was killed is no hindrance.
func TestProgram(t *testing.T) {
	t.Parallel()
	dir := bin(t, nil)
	if err := os.WriteFile(filepath.Join(dir, ".consul"), []byte("a part"), 0o600); err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			path, err := Program(dir, "consul")
			if err != nil {
				t.Error(err)
				return
			}
			got, err := os.ReadFile(path)
			info, _ := os.Stat(path)
			if err != nil || !bytes.Equal(got, program) || info.Mode() != 0o555 {
				t.Errorf("got %d of %d bytes, %v, %v", len(got), len(program), info.Mode(), err)
			}
		})
	}
	group.Wait()
	if got := names(t, dir); got != "consul" {
		t.Errorf("there are %s", got)
	}
}

// TestProgramIsBroken: nothing can be run of what is not as it was packed.
func TestProgramIsBroken(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func([]byte) []byte{
		"cut":        func(b []byte) []byte { return b[:len(b)-5] },
		"cut short":  func(b []byte) []byte { return b[:20] },
		"empty":      func([]byte) []byte { return nil },
		"a bit off":  func(b []byte) []byte { b[len(b)/2] ^= 1; return b },
		"a sum off":  func(b []byte) []byte { b[len(b)-1] ^= 1; return b },
		"no program": func([]byte) []byte { return []byte("something else") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := bin(t, change)
			if _, err := Program(dir, "consul"); err == nil || !strings.Contains(err.Error(), "failed to unpack consul: ") {
				t.Errorf("got %v", err)
			}
			if got := names(t, dir); got != "consul"+Suffix {
				t.Errorf("there are %s", got)
			}
		})
	}
}
