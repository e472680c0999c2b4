// Package artifact brings programs into the droplet: fetched with their
// checksums verified, unpacked beside their place, kept in the build cache, and
// verified again when they come out of it. Nothing in the cache is ever
// half-written: an entry appears by a rename, whole, or not at all.
package artifact

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

// Artifact is one version of one program.
type Artifact struct {
	Name    string // also the program's name inside an archive
	Version string // empty where nobody says
	URI     string // an address, see parseAddress, or the path of a file
	SHA256  string // of what the URI gives, in hex; a path may go without
}

func (a Artifact) String() string {
	if a.Version == "" {
		return a.Name
	}
	return a.Name + " " + a.Version
}

// Store is a cache of programs in a folder of its own. Several processes may
// use one Store at a time.
type Store struct {
	Dir string
	// Log is told, a line at a time, what is being fetched.
	Log func(format string, args ...any)
	// Stall is how long a download may stand still. Defaults to 30 s.
	Stall time.Duration
	// Pause is the time before the second attempt, doubled before the third.
	// Defaults to 1 s.
	Pause time.Duration
}

// Install puts the programs of the artifacts into the folder dir, executable,
// and fetches first those that the cache does not have. Nothing else stays in
// the cache. Errors say what was being done and carry a hint on a line of its
// own where there is one.
func (s Store) Install(ctx context.Context, dir string, artifacts ...Artifact) error {
	if s.Stall == 0 {
		s.Stall = 30 * time.Second
	}
	if s.Pause == 0 {
		s.Pause = time.Second
	}
	var mu sync.Mutex
	log := s.Log
	s.Log = func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		log(format, args...)
	}
	if err := trimProxies(); err != nil {
		return fmt.Errorf("failed to read the proxies: %w", err)
	}
	release, err := s.open(artifacts)
	if err != nil {
		return hinted(fmt.Errorf("failed to open the build cache: %w", err))
	}
	defer release()
	group, ctx := errgroup.WithContext(ctx)
	for _, a := range artifacts {
		group.Go(func() error { return hinted(s.install(ctx, a, filepath.Join(dir, a.Name))) })
	}
	return group.Wait()
}

// validSum is what becomes the name of a folder.
var validSum = regexp.MustCompile(`^[0-9a-f]{64}$`)

// rounds is how often an entry of the cache is filled: more than once where
// another staging on the same cache finds it broken and takes it away.
const rounds = 3

// install puts one program at path.
func (s Store) install(ctx context.Context, a Artifact, path string) error {
	from, err := parseAddress(a.URI)
	if err != nil {
		return fmt.Errorf("failed to fetch %s: %w", a, err)
	}
	if from.local() {
		// It is at hand: a copy in the build cache would only make that larger.
		s.Log("%s from %s", a, from)
		err := place(path, func(to *os.File) error { return extractFile(a, from, to) })
		if err != nil {
			return fmt.Errorf("failed to install %s: %w", a, err)
		}
		return nil
	}
	if !validSum.MatchString(a.SHA256) {
		return fmt.Errorf("failed to fetch %s: %q is no SHA-256\nhint: it has 64 hexadecimal digits, in lower case", a, a.SHA256)
	}
	for round := range rounds {
		_, absent := os.Lstat(s.entry(a, from))
		err = s.putOut(a, from, path)
		switch {
		case err == nil:
			if round == 0 {
				s.Log("%s from the build cache, checksum verified", a)
			}
			return nil
		case diskFull(err):
			return fmt.Errorf("failed to install %s: %w", a, err)
		case absent == nil:
			s.Log("%s in the build cache is unusable, fetching it anew: %v", a, err)
			if err := os.RemoveAll(s.entry(a, from)); err != nil {
				return fmt.Errorf("failed to clear %s from the build cache: %w", a, err)
			}
		}
		if err := s.fill(ctx, a, from); err != nil {
			return err
		}
	}
	if err := s.putOut(a, from, path); err != nil {
		return fmt.Errorf("failed to install %s: %w", a, err)
	}
	return nil
}

// extractFile verifies a local file and writes its program.
func extractFile(a Artifact, from address, to io.Writer) error {
	file, err := os.Open(from.path)
	if err != nil {
		return err
	}
	defer file.Close()
	if a.SHA256 != "" {
		hash := sha256.New()
		if _, err := io.Copy(hash, file); err != nil {
			return err
		}
		if got := hex.EncodeToString(hash.Sum(nil)); got != a.SHA256 {
			return fmt.Errorf("%s: %w", from.path, &mismatchError{got: got, want: a.SHA256})
		}
	}
	return extract(file, cmp.Or(from.inside, a.Name), to)
}

// place makes a file at path that can be run and not written, whole or not at all.
// write may put another file in the place of the one that it is given.
func place(path string, write func(*os.File) error) (err error) {
	to, err := os.CreateTemp(filepath.Dir(path), ".install-")
	if err != nil {
		return err
	}
	defer os.Remove(to.Name()) // of two names of one file, rename keeps both
	if err := errors.Join(write(to), to.Close()); err != nil {
		return err
	}
	if err := os.Chmod(to.Name(), 0o555); err != nil {
		return err
	}
	return os.Rename(to.Name(), path)
}

// Copy copies a file with its permissions, making folders on the way.
func Copy(from, to string) error {
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	content, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return os.WriteFile(to, content, info.Mode().Perm())
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

// diskFull says that a file could not be written for want of room.
func diskFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG)
}
