package artifact

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

const (
	// sizeLimit bounds what an archive may unpack to: three times the largest
	// program there is.
	sizeLimit = 512 << 20
	// filesLimit bounds how many files it may have.
	filesLimit = 1000
)

// The kinds of files, told by how they begin: an address need not say.
const (
	raw = iota
	zipped
	tarred // and gzipped
)

func kindOf(file io.ReaderAt) (int, error) {
	head := make([]byte, 6)
	if n, err := file.ReadAt(head, 0); err != nil && !errors.Is(err, io.EOF) {
		return raw, err
	} else if n == 0 {
		return raw, errors.New("it is empty")
	}
	for _, known := range []struct {
		magic string
		kind  int
	}{{"PK\x03\x04", zipped}, {"PK\x05\x06", zipped}, {"\x1f\x8b", tarred}} {
		if bytes.HasPrefix(head, []byte(known.magic)) {
			return known.kind, nil
		}
	}
	for _, magic := range []string{"\xfd7zXZ\x00", "BZh", "\x28\xb5\x2f\xfd", "7z\xbc\xaf\x27\x1c"} {
		if bytes.HasPrefix(head, []byte(magic)) {
			return raw, errors.New("it is compressed in a way that is not known here\nhint: zip and tar.gz are, and the program as it is")
		}
	}
	return raw, nil
}

// extract writes a program: the one of that name in an archive, or the file
// itself. Nothing else of an archive is written anywhere, and still an archive
// with an entry that points outside is refused: it was not made by a friend.
func extract(file *os.File, name string, to io.Writer) error {
	kind, err := kindOf(file)
	if err != nil {
		return err
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	name = path.Clean(name)
	switch kind {
	case zipped:
		return extractZip(file, name, to)
	case tarred:
		return extractTar(file, name, to)
	}
	_, err = io.Copy(to, file)
	return err
}

func extractZip(file *os.File, name string, to io.Writer) error {
	info, err := file.Stat()
	if err != nil {
		return err
	}
	archive, err := zip.NewReader(file, info.Size())
	if err != nil && !errors.Is(err, zip.ErrInsecurePath) {
		return fmt.Errorf("failed to read the zip: %w", err)
	}
	var program *zip.File
	var limit limits
	for _, entry := range archive.File {
		target := ""
		if entry.Mode()&fs.ModeSymlink != 0 {
			if target, err = linkTarget(entry); err != nil {
				return err
			}
		}
		if err := limit.check(entry.Name, target, entry.UncompressedSize64); err != nil {
			return err
		}
		if path.Clean(entry.Name) != name {
			continue
		}
		if !entry.Mode().IsRegular() || program != nil {
			return noFile(name)
		}
		program = entry
	}
	if program == nil {
		return missing(name)
	}
	content, err := program.Open()
	if err != nil {
		return fmt.Errorf("failed to read the zip: %w", err)
	}
	defer content.Close()
	// It gives no more than the size that was checked, and its own checksum.
	_, err = io.Copy(to, content)
	return err
}

func linkTarget(entry *zip.File) (string, error) {
	content, err := entry.Open()
	if err != nil {
		return "", fmt.Errorf("failed to read the zip: %w", err)
	}
	defer content.Close()
	target, err := io.ReadAll(io.LimitReader(content, 4096))
	if err != nil {
		return "", fmt.Errorf("failed to read the zip: %w", err)
	}
	return pointed(path.Dir(entry.Name), string(target)), nil
}

func extractTar(file io.Reader, name string, to io.Writer) error {
	unzipped, err := gzip.NewReader(file)
	if err != nil {
		return fmt.Errorf("failed to read the tar.gz: %w", err)
	}
	archive := tar.NewReader(unzipped)
	found := false
	for limit := (limits{}); ; {
		entry, err := archive.Next()
		switch {
		case errors.Is(err, io.EOF) && found:
			return nil
		case errors.Is(err, io.EOF):
			return missing(name)
		case err != nil && !errors.Is(err, tar.ErrInsecurePath):
			return fmt.Errorf("failed to read the tar.gz: %w", err)
		}
		target := ""
		switch entry.Typeflag {
		case tar.TypeXGlobalHeader:
			continue
		case tar.TypeSymlink:
			target = pointed(path.Dir(entry.Name), entry.Linkname)
		case tar.TypeLink:
			target = entry.Linkname
		}
		if err := limit.check(entry.Name, target, uint64(entry.Size)); err != nil {
			return err
		}
		if path.Clean(entry.Name) != name {
			continue
		}
		if entry.Typeflag != tar.TypeReg || found {
			return noFile(name)
		}
		found = true
		if _, err := io.Copy(to, archive); err != nil {
			return fmt.Errorf("failed to unpack the tar.gz: %w", err)
		}
	}
}

// pointed is what a symbolic link in the folder dir points to.
func pointed(dir, target string) string {
	if path.IsAbs(target) {
		return target
	}
	return path.Join(dir, target)
}

func missing(name string) error {
	if path.Dir(name) == "." {
		return fmt.Errorf("the archive has no file %q at its top", name)
	}
	return fmt.Errorf("the archive has no file %q", name)
}

func noFile(name string) error {
	return fmt.Errorf("%q in the archive is no file, or there twice", name)
}

// limits refuses an archive that unpacks to too much, or outside.
type limits struct {
	files int
	bytes uint64
}

func (l *limits) check(name, target string, size uint64) error {
	l.files++
	l.bytes += size
	switch {
	case !filepath.IsLocal(name) || slices.Contains(strings.Split(name, "/"), ".."):
		return fmt.Errorf("the archive has an entry %q, which points outside", name)
	case target != "" && !filepath.IsLocal(target):
		return fmt.Errorf("the archive has a link %q, which points outside", name)
	case l.files > filesLimit:
		return fmt.Errorf("the archive has more than %d files", filesLimit)
	case size > sizeLimit || l.bytes > sizeLimit:
		return fmt.Errorf("the archive unpacks to more than %d MB", sizeLimit>>20)
	}
	return nil
}
