package artifact

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/hashicorp/go-getter/v2"
)

// getHTTP downloads a file to path, through go-getter with no other way than
// http and https.
func (s Store) getHTTP(ctx context.Context, a Artifact, from address, path string, to *received) error {
	if err := os.RemoveAll(path); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// stall bounds the whole way: name, connection, handshake, answer, content.
	stall := time.AfterFunc(s.Stall, func() { cancel(fmt.Errorf("nothing received for %s", s.Stall)) })
	defer stall.Stop()

	transport := http.DefaultTransport.(*http.Transport).Clone()
	defer transport.CloseIdleConnections()
	// The checksum is that of the file as the server keeps it.
	transport.DisableCompression = true
	transport.OnProxyConnectResponse = refusedTunnel
	client := getter.Client{
		Getters: []getter.Getter{&getter.HttpGetter{
			Client:                &http.Client{Transport: refusing{transport}, CheckRedirect: redirected},
			XTerraformGetDisabled: true,
			DoNotCheckHeadFirst:   true,
		}},
		Decompressors: map[string]getter.Decompressor{},
	}
	_, err := client.Get(ctx, &getter.Request{
		Src: from.url.String(), Dst: path, GetMode: getter.ModeFile,
		ProgressListener: tracker(func(total int64, stream io.ReadCloser) io.ReadCloser {
			return &tracked{
				Closer: stream, stream: io.TeeReader(limited(stream), to),
				store: s, what: a, total: total, said: time.Now(), stall: stall,
			}
		}),
	})
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// redirected bounds the number of redirects, and keeps the query of one server's
// address from the next server.
func redirected(r *http.Request, via []*http.Request) error {
	if len(via) >= 10 {
		return errRedirects
	}
	r.Header.Del("Referer")
	return nil
}

// refusing makes an error of a server's refusal, with its status.
type refusing struct{ http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (r refusing) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := r.RoundTripper.RoundTrip(request)
	if err == nil && response.StatusCode >= 400 {
		response.Body.Close()
		return nil, refusalOf(request, response.StatusCode)
	}
	return response, err
}

// tracker is a function as go-getter's ProgressTracker.
type tracker func(total int64, stream io.ReadCloser) io.ReadCloser

// TrackProgress implements go-getter's ProgressTracker.
func (t tracker) TrackProgress(_ string, _, total int64, stream io.ReadCloser) io.ReadCloser {
	return t(total, stream)
}

// tracked says every few seconds how far a download is, and keeps it alive
// while it moves.
type tracked struct {
	io.Closer
	stream      io.Reader
	store       Store
	what        Artifact
	read, total int64
	said        time.Time
	stall       *time.Timer
}

// Read implements io.Reader.
func (t *tracked) Read(buffer []byte) (int, error) {
	n, err := t.stream.Read(buffer)
	t.read += int64(n)
	t.stall.Reset(t.store.Stall)
	if now := time.Now(); now.Sub(t.said) >= 5*time.Second {
		t.said = now
		if t.total > 0 {
			t.store.Log("%s: %d of %d MB", t.what, t.read>>20, t.total>>20)
		} else {
			t.store.Log("%s: %d MB", t.what, t.read>>20)
		}
	}
	return n, err
}
