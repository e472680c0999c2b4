package main

import (
	"archive/zip"
	"cmp"
	"fmt"
	"os"
	"slices"
	"time"
)

// epoch is when every file of a zip was written: the first day that a zip can
// name.
var epoch = time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)

// normalise writes a zip anew so that the same files give the same bytes:
// sorted, with one time, and permissions that do not depend on the umask.
func normalise(from, to string) (err error) {
	reader, err := zip.OpenReader(from)
	if err != nil {
		return fmt.Errorf("failed to read the packager's zip: %w", err)
	}
	defer reader.Close()
	temporary := to + ".part"
	file, err := os.Create(temporary)
	if err != nil {
		return fmt.Errorf("failed to write the zip: %w", err)
	}
	defer func() {
		file.Close()
		if err != nil {
			err = fmt.Errorf("failed to write the zip: %w", err)
			os.Remove(temporary)
		}
	}()
	writer := zip.NewWriter(file)
	files := slices.SortedFunc(slices.Values(reader.File), func(a, b *zip.File) int { return cmp.Compare(a.Name, b.Name) })
	for _, f := range files {
		mode := os.FileMode(0o644)
		if f.Mode()&0o100 != 0 {
			mode = 0o755
		}
		f.SetMode(mode)
		f.SetModTime(epoch)
		f.Extra = nil // the time once more
		if err := writer.Copy(f); err != nil {
			return err
		}
	}
	if err := writer.Close(); err != nil {
		return err
	}
	return os.Rename(temporary, to)
}
