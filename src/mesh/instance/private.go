package instance

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/consul-mesh/mesh-buildpack/src/credentials"
	"github.com/consul-mesh/mesh-buildpack/src/droplet"
)

// memory is where a container has files in memory that end with it.
const memory = "/dev/shm"

// PrivateDir is where secrets lie: what the agent is told of them, and its data
// folder, where it keeps the tokens of services. It is in memory where the
// container has a place for that, and otherwise on the container's own disk.
// Nobody but the container's user can look into it.
func (i Instance) PrivateDir() (string, error) {
	var fs unix.Statfs_t
	if unix.Statfs(memory, &fs) == nil && fs.Type == unix.TMPFS_MAGIC {
		dir := filepath.Join(memory, "mesh-"+i.NodeID())
		if err := makePrivate(dir); err == nil {
			return dir, nil
		}
	}
	if err := i.MakeRunDir(); err != nil {
		return "", err
	}
	dir := filepath.Join(i.RunDir, "private")
	if err := makePrivate(dir); err != nil {
		return "", fmt.Errorf("failed to make the folder of the secrets: %w", err)
	}
	return dir, nil
}

// RemovePrivate forgets what the agent was told, and its data.
func (i Instance) RemovePrivate() {
	if dir, err := i.PrivateDir(); err == nil {
		_ = os.RemoveAll(dir) // otherwise it ends with the container
	}
}

// makePrivate makes a folder, or takes one that is ours alone already.
func makePrivate(dir string) error {
	err := os.Mkdir(dir, 0o700)
	if !errors.Is(err, os.ErrExist) {
		return err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	owner, _ := info.Sys().(*syscall.Stat_t)
	if !info.IsDir() || info.Mode().Perm() != 0o700 || owner == nil || int(owner.Uid) != os.Getuid() {
		return fmt.Errorf("%s belongs to somebody else", dir)
	}
	return nil
}

// ForbidCores keeps the memory of this process, and of those that it starts,
// out of core files: there are tokens in it.
//
// With a limit of 0 the kernel still hands the memory to the program that
// kernel.core_pattern may name; with one of 1 it does neither (core(5), fs/coredump.c).
// Where the platform's own limit is 0 nobody but root can set 1, so what is handed
// over has no part of the memory, either.
func ForbidCores() error {
	if err := os.WriteFile("/proc/self/coredump_filter", []byte("0"), 0); err != nil {
		return fmt.Errorf("failed to keep memory out of core files: %w", err)
	}
	err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{Cur: 1, Max: 1})
	if errors.Is(err, unix.EPERM) {
		err = unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
	}
	if err != nil {
		return fmt.Errorf("failed to forbid core files: %w", err)
	}
	return nil
}

// Credentials reads the bound service, nil where there is none.
func (i Instance) Credentials(config droplet.Config) (*credentials.Credentials, []string, error) {
	creds, unknown, err := credentials.Read(i.getenv, config.ServiceBinding)
	if err != nil {
		err = &BindingError{err}
	}
	return creds, unknown, err
}

// BindingError says that the bound service cannot be used.
type BindingError struct{ error }

func (e *BindingError) Unwrap() error { return e.error }

// Names of files in the private folder.
const (
	DataFolder  = "consul" // the agent's data
	OverlayFile = "agent.json"
	CAFile      = "ca.pem"
	XdsSocket   = "xds.sock"
)

// WriteJSON writes a file that is ours alone.
func WriteJSON(path string, value any) error {
	text, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return ReplaceFile(path, text)
}

// ReplaceFile writes a file that is ours alone, at once for whoever reads it.
func ReplaceFile(path string, text []byte) error {
	next := path + ".next"
	if err := os.WriteFile(next, text, 0o600); err != nil {
		return err
	}
	return os.Rename(next, path)
}
