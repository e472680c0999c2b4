// Package packed is how programs are packed in the droplet and in the build cache, and
// unpacked in the container: as one zstd frame with its checksum.
package packed

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"github.com/klauspost/compress/zstd"
)

// Suffix is that of a program's packed file. The platform packs a droplet at each
// staging and unpacks it at each start, with gzip, and both take several times as long
// as this does.
const Suffix = ".zst"

// level is that of zstd. A higher one saves 4 % of the size, and takes four times as
// long.
const level = zstd.SpeedBetterCompression

// NewWriter packs what is written to it into to, until it is closed.
func NewWriter(to io.Writer) (io.WriteCloser, error) {
	return zstd.NewWriter(to, zstd.WithEncoderLevel(level))
}

// Program gives the path of a program in the folder bin, and unpacks it there first
// where it is packed. The first of several processes does so, and gives the room of
// the packed one back; the others wait.
func Program(bin, name string) (path string, err error) {
	path = filepath.Join(bin, name)
	packed, err := os.Open(path + Suffix)
	if errors.Is(err, os.ErrNotExist) {
		return path, nil
	}
	if err != nil {
		return "", err
	}
	defer packed.Close()
	if err := syscall.Flock(int(packed.Fd()), syscall.LOCK_EX); err != nil {
		return "", fmt.Errorf("failed to lock %s: %w", packed.Name(), err)
	}
	if _, err := os.Lstat(packed.Name()); errors.Is(err, os.ErrNotExist) {
		return path, nil // another process has unpacked it meanwhile
	}
	if err := unpack(packed, path); err != nil {
		return "", fmt.Errorf("failed to unpack %s: %w\nhint: %s", name, err, unpackHint(err))
	}
	return path, os.Remove(packed.Name())
}

// Unpack makes a program at path of a packed one, which stays. Nothing is there before
// the whole program is, with its checksum verified.
func Unpack(packed, path string) error {
	from, err := os.Open(packed)
	if err != nil {
		return err
	}
	defer from.Close()
	return unpack(from, path)
}

func unpack(packed io.Reader, path string) error {
	part := filepath.Join(filepath.Dir(path), "."+filepath.Base(path))
	defer os.Remove(part) // a rename has taken its name away
	to, err := os.OpenFile(part, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o755)
	if err != nil {
		return err
	}
	frame, err := zstd.NewReader(packed, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true))
	if err != nil {
		return errors.Join(err, to.Close())
	}
	defer frame.Close()
	n, err := io.Copy(to, frame)
	if n == 0 && err == nil {
		err = io.ErrUnexpectedEOF
	}
	if err := errors.Join(err, to.Close()); err != nil {
		return err
	}
	if err := os.Chmod(part, 0o555); err != nil {
		return err
	}
	return os.Rename(part, path)
}

// unpackHint is what helps where a program cannot be unpacked.
func unpackHint(err error) string {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return "the disk quota of the app is full: `cf push -k` or `cf scale -k` make it larger"
	}
	return "restage the app"
}
