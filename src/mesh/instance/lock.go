package instance

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/consul-mesh/mesh-buildpack/src/mesh/wait"
)

// Parts of the mesh of an instance: subcommands of this program, and names of locks in
// the run folder. Who runs one holds its lock until it ends.
const (
	AgentPart = "agent"
	ProxyPart = "proxy"
)

// locks are kept open for as long as this process lives.
var locks []*os.File

// TakePart takes the lock of a part. Where another process has it, which `mesh app` has
// started, this one has nothing to do: it returns false when ctx ends.
func (i Instance) TakePart(ctx context.Context, part string, log wait.Log) (bool, error) {
	if err := i.MakeRunDir(); err != nil {
		return false, err
	}
	file, err := i.openLock(part)
	if err != nil {
		return false, err
	}
	err = unix.FcntlFlock(file.Fd(), unix.F_OFD_SETLK, wholeFile())
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		log("another `mesh %s` runs in this instance already: this one does nothing", part)
		<-ctx.Done()
		return false, file.Close()
	}
	if err != nil {
		return false, fmt.Errorf("failed to take the lock of `mesh %s`: %w", part, err)
	}
	locks = append(locks, file)
	return true, nil
}

// HasPart says that a process runs a part. It looks without taking the lock: who comes
// at that moment would find it taken.
func (i Instance) HasPart(part string) (bool, error) {
	if err := i.MakeRunDir(); err != nil {
		return false, err
	}
	file, err := i.openLock(part)
	if err != nil {
		return false, err
	}
	defer file.Close()
	lock := wholeFile()
	if err := unix.FcntlFlock(file.Fd(), unix.F_OFD_GETLK, lock); err != nil {
		return false, fmt.Errorf("failed to look for a `mesh %s`: %w", part, err)
	}
	return lock.Type != unix.F_UNLCK, nil
}

// wholeFile is a lock as fcntl(2) has it. One of an open file is not lost when another
// descriptor of the same process is closed.
func wholeFile() *unix.Flock_t { return &unix.Flock_t{Type: unix.F_WRLCK} }

func (i Instance) openLock(part string) (*os.File, error) {
	file, err := os.OpenFile(filepath.Join(i.RunDir, part+".lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("failed to open the lock of `mesh %s`: %w", part, err)
	}
	return file, nil
}
