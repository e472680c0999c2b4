// Package artifact brings a program into the droplet: fetched with its
// checksum verified, unpacked beside its place, kept in the build cache, and
// copied out of it with its checksum verified again. Nothing in the cache is
// ever half-written: an entry appears by a rename, whole, or not at all.
package artifact

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// Artifact is one version of one program.
type Artifact struct {
	Name    string // also the program's name inside an archive
	Version string
	URI     string // http(s), or the path of a file
	SHA256  string // of what the URI gives, in hex
}

func (a Artifact) String() string { return a.Name + " " + a.Version }

// Store is a cache of programs in a folder of its own. Several processes may
// use one Store at a time.
type Store struct {
	Dir string
	// Log is told, a line at a time, what is being fetched.
	Log func(format string, args ...any)
}

// Install puts the program of an artifact at path, executable, and fetches it
// first where the cache does not have it. Errors say what was being done and
// carry a hint on a line of its own.
func (s Store) Install(ctx context.Context, a Artifact, path string) error {
	switch err := s.copyOut(a, path); {
	case err == nil:
		s.Log("%s from the build cache", a)
		return nil
	case errors.Is(err, errNotWhatWasKept):
		s.Log("%s in the build cache is unusable, fetching it anew: %v", a, err)
		if err := os.RemoveAll(s.entry(a)); err != nil {
			return fmt.Errorf("failed to clear %s from the build cache: %w", a, err)
		}
	case !errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("failed to install %s: %w", a, err)
	}
	if err := s.fill(ctx, a); err != nil {
		return err
	}
	if err := s.copyOut(a, path); err != nil {
		return fmt.Errorf("failed to install %s: %w", a, err)
	}
	return nil
}

// errNotWhatWasKept is a program in the cache that must never be run.
var errNotWhatWasKept = errors.New("it is not what was kept")

// entry is the folder of one artifact: the program under its name, and its own
// checksum beside it.
func (s Store) entry(a Artifact) string { return filepath.Join(s.Dir, a.SHA256) }

func sumFile(program string) string { return program + ".sha256" }

// fill fetches an artifact and makes its entry.
func (s Store) fill(ctx context.Context, a Artifact) (err error) {
	if err := os.MkdirAll(s.Dir, 0o755); err != nil {
		return fmt.Errorf("failed to make the build cache: %w", err)
	}
	work, err := os.MkdirTemp(s.Dir, ".fetch-")
	if err != nil {
		return fmt.Errorf("failed to make room in the build cache: %w", err)
	}
	defer os.RemoveAll(work)

	entry := filepath.Join(work, "entry")
	program := filepath.Join(entry, a.Name)
	if err := os.Mkdir(entry, 0o755); err != nil {
		return fmt.Errorf("failed to make room in the build cache: %w", err)
	}
	if err := s.fetch(ctx, a, work, program); err != nil {
		return err
	}
	sum, err := Sum(program)
	if err != nil {
		return fmt.Errorf("failed to read %s back: %w", a, err)
	}
	if err := os.WriteFile(sumFile(program), []byte(sum+"\n"), 0o644); err != nil {
		return fmt.Errorf("failed to write the checksum of %s: %w", a, err)
	}
	err = os.Rename(entry, s.entry(a))
	if errors.Is(err, os.ErrExist) {
		return nil // another staging on the same cache was first
	}
	if err != nil {
		return fmt.Errorf("failed to keep %s in the build cache: %w", a, err)
	}
	return nil
}

// copyOut copies the program of an artifact from the cache to path, verifying
// it on the way. An entry that is not there is os.ErrNotExist.
func (s Store) copyOut(a Artifact, path string) (err error) {
	program := filepath.Join(s.entry(a), a.Name)
	want, err := os.ReadFile(sumFile(program))
	if err != nil {
		return err
	}
	from, err := os.Open(program)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.CreateTemp(filepath.Dir(path), ".install-")
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, to.Close())
		if err == nil {
			err = os.Rename(to.Name(), path)
		}
		if err != nil {
			os.Remove(to.Name())
		}
	}()
	hash := sha256.New()
	if _, err := io.Copy(io.MultiWriter(to, hash), from); err != nil {
		return err
	}
	if got := hex.EncodeToString(hash.Sum(nil)); got != strings.TrimSpace(string(want)) {
		return fmt.Errorf("%w: its checksum is %s and should be %s", errNotWhatWasKept, got, strings.TrimSpace(string(want)))
	}
	return to.Chmod(0o755)
}

// Sum is the SHA-256 of a file, in hex.
func Sum(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, file); err != nil {
		return "", err
	}
	return hex.EncodeToString(hash.Sum(nil)), nil
}
