package main

import (
	"fmt"
	"net/url"
	"os"
	"os/exec"
)

// clone gets the buildpacks whose key is the URL of a git repository: the
// branch or tag after #, its last commit only where the server can do that.
func (b *build) clone() error {
	for _, key := range b.Buildpacks {
		repository, isURL := repository(key)
		if !isURL {
			continue
		}
		args := []string{"--recursive"}
		if repository.Fragment != "" {
			args = append(args, "--branch", repository.Fragment)
			repository.Fragment = ""
		}
		dir := b.place(key)
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

// repository is the address of the buildpack, if its key is one.
func repository(key string) (u *url.URL, isURL bool) {
	u, err := url.Parse(key)
	return u, err == nil && u.IsAbs()
}

func (b *build) git(args []string) error {
	cmd := exec.Command("git", args...)
	cmd.Stderr = b.stderr
	return cmd.Run()
}
