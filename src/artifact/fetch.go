package artifact

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/hashicorp/go-getter/v2"
)

const (
	attempts = 3
	// stallTimeout ends a download that has not moved.
	stallTimeout = 30 * time.Second
	// sizeLimit bounds what an archive may unpack to: three times the largest
	// program there is.
	sizeLimit = 512 << 20
)

// fetch downloads an artifact into the folder work, verifies it, and puts its
// program at path.
func (s Store) fetch(ctx context.Context, a Artifact, work, path string) error {
	source, err := url.Parse(a.URI)
	if err != nil {
		return fmt.Errorf("failed to fetch %s: its address is no URL", a)
	}
	s.Log("%s from %s", a, shown(source))
	started := time.Now()
	download := filepath.Join(work, "download")
	for attempt := 1; ; attempt++ {
		err = s.download(ctx, a, source, download)
		var differs *getter.ChecksumError
		if errors.As(err, &differs) {
			return fmt.Errorf("failed to fetch %s from %s: its checksum is %s and should be %s\n"+
				"hint: what the address gives is not what the manifest names, perhaps an error page or another build; nothing of it was run",
				a, shown(source), hex.EncodeToString(differs.Actual), hex.EncodeToString(differs.Expected))
		}
		if err == nil {
			break
		}
		if attempt == attempts || ctx.Err() != nil {
			return fmt.Errorf("failed to fetch %s from %s in %d attempts: %w\n"+
				"hint: staging must reach %s; where it cannot, use the cached buildpack or set HTTPS_PROXY", a, shown(source), attempt, reason(err), source.Host)
		}
		s.Log("%s: attempt %d of %d failed: %v", a, attempt, attempts, reason(err))
	}
	if err := unpack(a, source, download, path); err != nil {
		return fmt.Errorf("failed to unpack %s: %w", a, err)
	}
	s.Log("%s fetched, checksum verified, in %.1f s", a, time.Since(started).Seconds())
	return nil
}

// shown is an address without what may be a credential in it.
func shown(u *url.URL) string {
	short := *u
	short.RawQuery, short.Fragment = "", ""
	return short.Redacted()
}

// reason is an error without the address that Go's HTTP client puts into it.
func reason(err error) error {
	var failed *url.Error
	if errors.As(err, &failed) {
		return failed.Err
	}
	return err
}

func (s Store) download(ctx context.Context, a Artifact, source *url.URL, path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.ResponseHeaderTimeout = stallTimeout
	client := getter.Client{
		Getters: []getter.Getter{
			&getter.HttpGetter{
				Client:                &http.Client{Transport: transport},
				XTerraformGetDisabled: true,
				DoNotCheckHeadFirst:   true,
			},
			new(getter.FileGetter),
		},
		Decompressors: map[string]getter.Decompressor{},
	}
	address := *source
	query := address.Query()
	query.Set("checksum", "sha256:"+a.SHA256)
	query.Set("archive", "false")
	address.RawQuery = query.Encode()
	_, err := client.Get(ctx, &getter.Request{
		Src: address.String(), Dst: path, GetMode: getter.ModeFile, Copy: true,
		ProgressListener: progress{s, a, cancel},
	})
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// unpack puts the program of a verified download at path: the download itself,
// or the file of the program's name in its zip.
func unpack(a Artifact, source *url.URL, download, path string) error {
	if !strings.HasSuffix(source.Path, ".zip") {
		return os.Rename(download, path)
	}
	unpacked := download + ".unpacked"
	zip := &getter.ZipDecompressor{FileSizeLimit: sizeLimit, FilesLimit: 100}
	if err := zip.Decompress(unpacked, download, true, 0o022); err != nil {
		return err
	}
	err := os.Rename(filepath.Join(unpacked, a.Name), path)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("the archive has no file %q at its top", a.Name)
	}
	return err
}

// progress says every few seconds how far a download is, and ends it when it
// stalls.
type progress struct {
	store  Store
	what   Artifact
	cancel context.CancelCauseFunc
}

// TrackProgress implements go-getter's ProgressTracker.
func (p progress) TrackProgress(_ string, current, total int64, stream io.ReadCloser) io.ReadCloser {
	return &tracked{
		ReadCloser: stream, progress: p, read: current, total: total, said: time.Now(),
		stall: time.AfterFunc(stallTimeout, func() {
			p.cancel(fmt.Errorf("nothing received for %s", stallTimeout))
		}),
	}
}

type tracked struct {
	io.ReadCloser
	progress
	read, total int64
	said        time.Time
	stall       *time.Timer
}

func (t *tracked) Read(buffer []byte) (int, error) {
	n, err := t.ReadCloser.Read(buffer)
	t.read += int64(n)
	t.stall.Reset(stallTimeout)
	if now := time.Now(); now.Sub(t.said) >= 5*time.Second {
		t.said = now
		t.store.Log("%s: %d of %d MB", t.what, t.read>>20, t.total>>20)
	}
	return n, err
}

func (t *tracked) Close() error {
	t.stall.Stop()
	return t.ReadCloser.Close()
}
