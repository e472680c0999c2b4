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
	"syscall"

	"github.com/zeebo/blake3"
)

// lockName is the file in the cache that every staging on it holds locked. The
// kernel lets go of the lock however the staging ends.
const lockName = ".lock"

// open makes the cache ready for these artifacts. A staging that is alone on it
// removes what it does not need: leftovers of stagings that were killed, and
// programs of other versions, which would weigh on every later staging.
func (s Store) open(needed []Artifact) (release func(), err error) {
	if err := os.MkdirAll(s.Dir, 0o755); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(s.Dir, lockName), os.O_CREATE|os.O_RDONLY, 0o644)
	if err != nil {
		return nil, err
	}
	if syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
		if err := s.sweep(needed); err != nil {
			s.Log("failed to clear the build cache: %v", err)
		}
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_SH); err != nil {
		lock.Close()
		return nil, err
	}
	return func() { lock.Close() }, nil
}

// sweep removes everything but the lock and the entries of needed artifacts.
func (s Store) sweep(needed []Artifact) error {
	keep := map[string]bool{lockName: true}
	for _, a := range needed {
		if from, err := parseAddress(a.URI); err == nil && !from.local() {
			keep[filepath.Base(s.entry(a, from))] = true
		}
	}
	files, err := os.ReadDir(s.Dir)
	if err != nil {
		return err
	}
	for _, file := range files {
		if !keep[file.Name()] {
			err = errors.Join(err, os.RemoveAll(filepath.Join(s.Dir, file.Name())))
		}
	}
	return err
}

// entry is the folder of one artifact: the program under its name, and its own
// checksum beside it. That checksum is a BLAKE3, because it is made at every
// staging, and takes half the time of a SHA-256 or less.
func (s Store) entry(a Artifact, from address) string {
	// One archive may have both programs, and several of each.
	name := a.Name + "-" + a.SHA256
	if inside := from.archived(); inside != "" {
		sum := sha256.Sum256([]byte(inside))
		name += "-" + hex.EncodeToString(sum[:4])
	}
	return filepath.Join(s.Dir, name)
}

func sumFile(program string) string { return program + ".blake3" }

// fill fetches an artifact and makes its entry.
func (s Store) fill(ctx context.Context, a Artifact, from address) error {
	work, err := os.MkdirTemp(s.Dir, ".fetch-")
	if err != nil {
		return fmt.Errorf("failed to make room in the build cache: %w", err)
	}
	defer os.RemoveAll(work)

	entry := filepath.Join(work, "entry")
	if err := os.Mkdir(entry, 0o755); err != nil {
		return fmt.Errorf("failed to make room in the build cache: %w", err)
	}
	download := filepath.Join(work, "download")
	if err := s.fetch(ctx, a, from, download); err != nil {
		return err
	}
	program := filepath.Join(entry, a.Name)
	sum, err := unpack(a, from, download, program)
	if err != nil {
		return fmt.Errorf("failed to unpack %s: %w", a, err)
	}
	if err := os.WriteFile(sumFile(program), []byte(sum), 0o644); err != nil {
		return fmt.Errorf("failed to write the checksum of %s: %w", a, err)
	}
	err = os.Rename(entry, s.entry(a, from))
	if errors.Is(err, os.ErrExist) {
		return nil // another staging on the same cache was first
	}
	if err != nil {
		return fmt.Errorf("failed to keep %s in the build cache: %w", a, err)
	}
	return nil
}

// unpack makes the program of a verified download, and its checksum.
func unpack(a Artifact, from address, download, program string) (sum string, err error) {
	file, err := os.Open(download)
	if err != nil {
		return "", err
	}
	defer file.Close()
	kind, err := kindOf(file)
	if err != nil {
		return "", err
	}
	hash := blake3.New()
	name := from.archived()
	switch {
	case kind == raw && name != "":
		return "", fmt.Errorf("it is no archive, with no %q in it", name)
	case kind == raw:
		_, err := io.Copy(hash, file)
		return hex.EncodeToString(hash.Sum(nil)), errors.Join(err, os.Rename(download, program))
	case name == "":
		name = a.Name
	}
	to, err := os.Create(program)
	if err != nil {
		return "", err
	}
	err = extract(file, name, io.MultiWriter(to, hash))
	return hex.EncodeToString(hash.Sum(nil)), errors.Join(err, to.Close())
}

// putOut puts the program of an artifact from the cache at path: as a second
// name of the same file, which takes neither time nor room, or a copy where
// the cache is on another disk. Either is verified before it has its name. An
// entry that is not there is os.ErrNotExist.
//
// Cloud Foundry packs droplet and cache each on its own, so that they share
// nothing from then on. Until then they share the file: what a later buildpack
// writes into the program in the droplet it writes into the cache, too, and the
// next staging finds that out.
func (s Store) putOut(a Artifact, from address, path string) error {
	program := filepath.Join(s.entry(a, from), a.Name)
	want, err := os.ReadFile(sumFile(program))
	if err != nil {
		return err
	}
	return place(path, func(to *os.File) error {
		file, err := linkOrCopy(program, to)
		if err != nil {
			return err
		}
		defer file.Close()
		hash := blake3.New()
		if _, err := io.Copy(hash, file); err != nil {
			return err
		}
		if got := hex.EncodeToString(hash.Sum(nil)); got != string(want) {
			return &mismatchError{got: got, want: string(want)}
		}
		return nil
	})
}

// linkOrCopy puts a file in the place of another, and opens it there.
func linkOrCopy(file string, to *os.File) (*os.File, error) {
	if info, err := os.Lstat(file); err == nil && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("it is no file: %s", info.Mode())
	}
	linked := to.Name() + ".link"
	if os.Link(file, linked) == nil {
		if err := os.Rename(linked, to.Name()); err != nil {
			return nil, errors.Join(err, os.Remove(linked))
		}
		return os.Open(to.Name())
	}
	kept, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer kept.Close()
	// Between two files the kernel copies by itself, or shares the blocks.
	if _, err := io.Copy(to, kept); err != nil {
		return nil, err
	}
	return os.Open(to.Name())
}
