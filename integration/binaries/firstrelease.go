package binaries

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
)

// firstRelease is the commit that users have as 0.1.0.
const firstRelease = "83746990f7ba8434d7dbbd74ceaa70dd25da89cc"

// FirstRelease has the repository as it was at 0.1.0 for its own, built.
func (s Set) FirstRelease() Set {
	return Set{Root: filepath.Join(s.programs(), "mesh-buildpack-"+firstRelease), Cache: s.Cache}
}

// PrepareFirstRelease builds 0.1.0 as its own Makefile does, where that is not
// done yet. It says so on out.
func (s Set) PrepareFirstRelease(ctx context.Context, out io.Writer) error {
	unlock, err := lock(filepath.Join(s.Cache, ".lock"))
	if err != nil {
		return err
	}
	defer unlock()
	if exists(s.FirstRelease().Root) {
		return nil
	}
	say := &narrator{out: out}
	err = into(s.FirstRelease().Root, 0o755, func(checkout string) error {
		_ = os.RemoveAll(checkout) // of a run that was killed
		if err := s.checkOut(ctx, firstRelease, checkout); err != nil {
			return err
		}
		working := func() string { return "its own make build" }
		return say.during("building 0.1.0", working, func() error { return run(ctx, checkout, "make", "--no-print-directory", "build") })
	})
	if err != nil {
		return fmt.Errorf("failed to build 0.1.0, which this version has to run beside: %w", err)
	}
	return nil
}

// checkOut makes a folder with the files of a commit. A shallow clone may lack the
// commit and fetches it.
func (s Set) checkOut(ctx context.Context, commit, dir string) error {
	if err := run(ctx, s.Root, "git", "cat-file", "-e", commit+"^{commit}"); err != nil {
		if err := run(ctx, s.Root, "git", "fetch", "--quiet", "origin", commit); err != nil {
			return fmt.Errorf("this clone does not have commit %s, and: %w\nhint: git fetch --unshallow", commit, err)
		}
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	archive := dir + ".tar"
	defer os.Remove(archive)
	if err := run(ctx, s.Root, "git", "archive", "--output="+archive, commit); err != nil {
		return err
	}
	return run(ctx, dir, "tar", "--extract", "--file="+archive)
}

// run runs a program in a folder. What it printed is said where it fails.
func run(ctx context.Context, dir, program string, args ...string) error {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = dir
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", program, args[0], err, output)
	}
	return nil
}
