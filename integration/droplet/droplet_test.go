package droplet

import (
	"os"
	"path/filepath"
	"testing"
)

// TestPackAndUnpack: what comes out is what went in, modes and links too.
func TestPackAndUnpack(t *testing.T) {
	t.Parallel()
	from, to, packed := t.TempDir(), t.TempDir(), filepath.Join(t.TempDir(), "droplet.tgz")
	for _, err := range []error{
		os.MkdirAll(filepath.Join(from, "app/empty"), 0o755),
		os.WriteFile(filepath.Join(from, "app/run"), []byte("#!/bin/sh\n"), 0o700),
		os.Chmod(filepath.Join(from, "app/run"), 0o777), // whatever the umask
		os.Symlink("app/run", filepath.Join(from, "link")),
		Pack(from, packed),
		Unpack(packed, to),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	info, err := os.Stat(filepath.Join(to, "link"))
	if err != nil || info.Mode() != 0o777 || info.Size() != 10 {
		t.Errorf("the program: %v, %v", info, err)
	}
	if info, err := os.Stat(filepath.Join(to, "app/empty")); err != nil || !info.IsDir() {
		t.Errorf("the empty folder: %v", err)
	}
}

// TestUnpackDamaged: a droplet that ends too early or holds no archive is an error.
func TestUnpackDamaged(t *testing.T) {
	t.Parallel()
	from, packed := t.TempDir(), filepath.Join(t.TempDir(), "droplet.tgz")
	if err := os.WriteFile(filepath.Join(from, "file"), make([]byte, 1<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Pack(from, packed); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(packed)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"half": whole[:len(whole)/2], "empty": nil, "text": []byte("no archive")} {
		if err := os.WriteFile(packed, content, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := Unpack(packed, t.TempDir()); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if err := Pack(filepath.Join(from, "none"), packed); err == nil {
		t.Error("a folder that is not there: no error")
	}
}
