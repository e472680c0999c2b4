package registry

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
)

// MakeSocketFolders makes the folders of the sockets on which Envoy listens for
// upstreams, as nobody else does while the app is held. Who may use a socket may go
// through its folder.
func (r *Registration) MakeSocketFolders() error {
	for _, u := range r.sidecar().Proxy.Upstreams {
		if u.LocalBindSocketPath == "" {
			continue
		}
		mode, err := strconv.ParseUint(cmp.Or(u.LocalBindSocketMode, "0600"), 8, 32)
		if err != nil {
			return fmt.Errorf("the mode of %s: %w", u.LocalBindSocketPath, err)
		}
		if err := makeFolder(filepath.Dir(u.LocalBindSocketPath), fs.FileMode(mode|mode&0o444>>2|0o700)); err != nil {
			return fmt.Errorf("failed to make the folder of the upstream %s's socket: %w\nhint: choose one in /home/vcap/tmp, or in /tmp", u.DestinationName, err)
		}
	}
	return nil
}

// makeFolder makes a folder and those above it, whatever the umask. Those that are there
// stay as they are.
func makeFolder(path string, mode fs.FileMode) error {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return nil
	}
	if err := makeFolder(filepath.Dir(path), mode); err != nil {
		return err
	}
	err := os.Mkdir(path, mode)
	if errors.Is(err, fs.ErrExist) {
		return err
	}
	return errors.Join(err, os.Chmod(path, mode))
}
