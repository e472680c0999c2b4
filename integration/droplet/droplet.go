// Package droplet has a droplet as the platform keeps it: one file, tar and gzip.
// It knows nothing of cells and of what is in a droplet.
package droplet

import (
	"compress/gzip"
	"fmt"
	"os"
	"os/exec"
)

// Pack writes what is in dir to the file to, as the platform's builder does: with
// tar and gzip, at gzip's default level.
func Pack(dir, to string) error {
	if output, err := exec.Command("tar", "-czf", to, "-C", dir, ".").CombinedOutput(); err != nil {
		return fmt.Errorf("failed to pack %s: %w: %s", dir, err, output)
	}
	return nil
}

// Unpack writes the files of a packed droplet into dir, which exists, with their
// modes; they belong to the caller. It does it as a cell does: what Go has gunzipped
// goes into a tar as it comes.
func Unpack(from, dir string) error {
	packed, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("failed to unpack a droplet: %w", err)
	}
	defer packed.Close()
	unzipped, err := gzip.NewReader(packed)
	if err != nil {
		return fmt.Errorf("failed to unpack %s: %w", from, err)
	}
	tar := exec.Command("tar", "-x", "--no-same-owner", "--same-permissions", "-f", "-", "-C", dir)
	tar.Stdin = unzipped
	if output, err := tar.CombinedOutput(); err != nil {
		return fmt.Errorf("failed to unpack %s: %w: %s", from, err, output)
	}
	return nil
}
