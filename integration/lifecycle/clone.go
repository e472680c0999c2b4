package main

import (
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
)

// clone gets the buildpacks whose key is the URL of a git repository: the
// branch or tag after #, its last commit only where the server can do that.
func (b *build) clone() error {
	for _, key := range b.Buildpacks {
		repository, err := url.Parse(key)
		if err != nil || !repository.IsAbs() {
			continue
		}
		args := []string{"--recursive"}
		if repository.Fragment != "" {
			args = append(args, "--branch", repository.Fragment)
			repository.Fragment = ""
		}
		dir := filepath.Join(b.BuildpacksDir, digest(key))
		args = append(args, repository.String(), dir)
		if b.git(append([]string{"clone", "--quiet", "--depth", "1"}, args...)) == nil {
			continue
		}
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
		if err := b.git(append([]string{"clone", "--quiet"}, args...)); err != nil {
			return fmt.Errorf("%w at %s: %w", cloneFailed, repository.Redacted(), err)
		}
	}
	return nil
}

func (b *build) git(args []string) error {
	cmd := exec.Command("git", args...)
	cmd.Stderr = b.stderr
	return cmd.Run()
}
