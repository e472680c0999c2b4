package artifact

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/flate"
	"compress/gzip"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// entry is a file of an archive.
type entry struct {
	name    string
	content []byte
	link    string // a symbolic one
	hard    string
	size    int64 // said to have, 0 for the truth
}

func zipOf(t *testing.T, entries ...entry) []byte {
	t.Helper()
	var archive bytes.Buffer
	writer := zip.NewWriter(&archive)
	for _, e := range entries {
		header := &zip.FileHeader{Name: e.name, Method: zip.Deflate}
		header.SetMode(0o755)
		content := e.content
		if e.link != "" {
			header.SetMode(fs.ModeSymlink | 0o777)
			content = []byte(e.link)
		}
		if e.size == 0 {
			file, err := writer.CreateHeader(header)
			if err == nil {
				_, err = file.Write(content)
			}
			must(t, err)
			continue
		}
		var deflated bytes.Buffer
		deflater, err := flate.NewWriter(&deflated, flate.BestSpeed)
		must(t, err)
		_, err = deflater.Write(content)
		must(t, err)
		must(t, deflater.Close())
		header.CompressedSize64, header.UncompressedSize64 = uint64(deflated.Len()), uint64(e.size)
		file, err := writer.CreateRaw(header)
		must(t, err)
		_, err = file.Write(deflated.Bytes())
		must(t, err)
	}
	must(t, writer.Close())
	return archive.Bytes()
}

func tarOf(t *testing.T, entries ...entry) []byte {
	t.Helper()
	var archive bytes.Buffer
	zipper := gzip.NewWriter(&archive)
	writer := tar.NewWriter(zipper)
	whole := true
	for _, e := range entries {
		header := &tar.Header{Name: e.name, Mode: 0o755, Typeflag: tar.TypeReg, Size: int64(len(e.content))}
		switch {
		case e.link != "":
			header.Typeflag, header.Linkname = tar.TypeSymlink, e.link
		case e.hard != "":
			header.Typeflag, header.Linkname = tar.TypeLink, e.hard
		case e.size != 0:
			header.Size, whole = e.size, false
		}
		must(t, writer.WriteHeader(header))
		_, err := writer.Write(e.content)
		must(t, err)
	}
	if whole {
		must(t, writer.Close())
	}
	must(t, zipper.Close())
	return archive.Bytes()
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestArchives(t *testing.T) {
	t.Parallel()
	good := entry{name: "consul", content: program}
	for name, test := range map[string]struct {
		entries []entry
		says    string // empty where it is installed
	}{
		"the program alone":        {[]entry{good}, ""},
		"files beside it":          {[]entry{{name: "LICENSE.txt", content: []byte("x")}, good, {name: "doc/consul", content: []byte("x")}}, ""},
		"a dot before it":          {[]entry{{name: "./consul", content: program}}, ""},
		"a link inside":            {[]entry{good, {name: "bin/consul", link: "../consul"}}, ""},
		"no program":               {[]entry{{name: "bin/consul", content: program}}, `the archive has no file "consul" at its top`},
		"no file at all":           {nil, `the archive has no file "consul" at its top`},
		"two dots":                 {[]entry{good, {name: "../consul", content: program}}, `the archive has an entry "../consul", which points outside`},
		"two dots on the way":      {[]entry{good, {name: "a/../../../etc/x", content: program}}, "which points outside"},
		"two dots that come back":  {[]entry{{name: "a/../consul", content: program}}, "which points outside"},
		"an absolute path":         {[]entry{good, {name: "/etc/x", content: program}}, `the archive has an entry "/etc/x", which points outside`},
		"the program is a link":    {[]entry{{name: "consul", link: "other"}, {name: "other", content: program}}, `"consul" in the archive is no file`},
		"the program twice":        {[]entry{good, good}, `"consul" in the archive is no file, or there twice`},
		"a link to the root":       {[]entry{good, {name: "x", link: "/etc/passwd"}}, `the archive has a link "x", which points outside`},
		"a link from the depth":    {[]entry{good, {name: "a/b/c/d", link: "/x"}}, "which points outside"},
		"a link that climbs":       {[]entry{good, {name: "a/x", link: "../../x"}}, "which points outside"},
		"too many files":           {many(filesLimit + 1), "the archive has more than 1000 files"},
		"too large":                {[]entry{{name: "consul", content: program, size: sizeLimit + 1}}, "the archive unpacks to more than 512 MB"},
		"too large beside it":      {[]entry{good, {name: "other", content: program, size: sizeLimit + 1}}, "the archive unpacks to more than 512 MB"},
		"larger than anything can": {[]entry{good, {name: "other", content: program, size: 1 << 60}}, "the archive unpacks to more than 512 MB"},
	} {
		for kind, archive := range map[string][]byte{"zip": zipOf(t, test.entries...), "tar.gz": tarOf(t, test.entries...)} {
			t.Run(name+" in a "+kind, func(t *testing.T) {
				t.Parallel()
				// Its name says nothing: addresses of buckets and mirrors often have none.
				address, _ := serve(t, give(archive))
				file := filepath.Join(t.TempDir(), "download")
				must(t, os.WriteFile(file, archive, 0o644))
				for _, uri := range []string{address + "/download", file} {
					if a := consul(uri, archive); test.says == "" {
						newShelf(t).installs(a)
					} else {
						newShelf(t).refuses(a, test.says)
					}
				}
			})
		}
	}
}

func many(n int) []entry {
	entries := []entry{{name: "consul", content: program}}
	for i := range n - 1 {
		entries = append(entries, entry{name: fmt.Sprint(i)})
	}
	return entries
}

// TestArchivesOfOneKind: what only a zip or only a tar can do.
func TestArchivesOfOneKind(t *testing.T) {
	t.Parallel()
	good := entry{name: "consul", content: program}
	whole, packed := zipOf(t, good), tarOf(t, good)
	for name, test := range map[string]struct {
		archive []byte
		says    string
	}{
		"a hard link outside":             {tarOf(t, good, entry{name: "x", hard: "../x"}), "which points outside"},
		"the program as a hard link":      {tarOf(t, entry{name: "other", content: program}, entry{name: "consul", hard: "other"}), `"consul" in the archive is no file`},
		"a zip that gives more than said": {zipOf(t, entry{name: "consul", content: make([]byte, 1<<20), size: 10}), "failed to unpack consul 1.2.3"},
		"a zip that ends early":           {whole[:len(whole)/2], "failed to read the zip"},
		"a tar.gz that ends early":        {packed[:len(packed)/2], "failed to unpack the tar.gz"},
		"a gzip that is no tar":           {gzipped(t, program), "failed to read the tar.gz"},
		"an xz":                           {[]byte("\xfd7zXZ\x00 and more"), "it is compressed in a way that is not known here\nhint: zip and tar.gz are"},
		"a bzip2":                         {[]byte("BZh91AY and more"), "hint: zip and tar.gz are"},
		"an empty file":                   {nil, "it is empty"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address, _ := serve(t, give(test.archive))
			newShelf(t).refuses(consul(address+"/consul", test.archive), test.says)
		})
	}
}

func gzipped(t *testing.T, content []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	zipper := gzip.NewWriter(&out)
	_, err := zipper.Write(content)
	must(t, err)
	must(t, zipper.Close())
	return out.Bytes()
}

// TestOneArchiveWithBoth: neither program is in the way of the other.
func TestOneArchiveWithBoth(t *testing.T) {
	t.Parallel()
	archive := zipOf(t, entry{name: "consul", content: program}, entry{name: "envoy", content: []byte("envoy")})
	address, requests := serve(t, give(archive))
	s, a := newShelf(t), consul(address+"/both.zip", archive)
	b := a
	b.Name = "envoy"
	for range 2 {
		must(t, s.Install(t.Context(), s.bin, a, b))
		for name, want := range map[string]string{"consul": string(program), "envoy": "envoy"} {
			if got, err := os.ReadFile(filepath.Join(s.bin, name)); err != nil || string(got) != want {
				t.Errorf("%s has %d bytes, %v", name, len(got), err)
			}
		}
	}
	if requests() != 2 {
		t.Errorf("%d requests", requests())
	}
}

// TestInside: what follows // is the program's path in the archive, and one
// archive gives two programs.
func TestInside(t *testing.T) {
	t.Parallel()
	archive := tarOf(t, entry{name: "v1/bin/consul", content: program}, entry{name: "v2/bin/consul", content: []byte("another")})
	address, requests := serve(t, give(archive))
	s := newShelf(t)
	s.installs(consul(address+"/all.tar.gz//v1/bin/consul?token=x", archive))
	must(t, s.Install(t.Context(), s.bin, consul(address+"/all.tar.gz//v2/bin/consul", archive)))
	if content, err := os.ReadFile(filepath.Join(s.bin, "consul")); err != nil || string(content) != "another" {
		t.Errorf("the other one is %q, %v", content, err)
	}
	if requests() != 2 {
		t.Errorf("%d requests", requests())
	}
	newShelf(t).refuses(consul(address+"/all.tar.gz//v3/consul", archive), `the archive has no file "v3/consul"`)
	newShelf(t).refuses(consul(address+"/all.tar.gz//../consul", archive), "points outside")
	address, _ = serve(t, give(program))
	newShelf(t).refuses(consul(address+"/consul//bin/consul", program), "it is no archive")
}
