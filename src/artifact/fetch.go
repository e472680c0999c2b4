package artifact

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"io"
	"net/http"
	"time"
)

// fetch downloads an artifact to path, by HTTP or by git, and verifies it.
func (s Store) fetch(ctx context.Context, a Artifact, from address, path string) error {
	s.Log("%s from %s", a, from)
	started := time.Now()
	get := s.getHTTP
	if from.git {
		get = s.getGit
	}
	err := s.retry(ctx, a, from, func() error {
		received := newReceived()
		err := get(ctx, a, from, path, received)
		if err == nil {
			err = received.verify(a)
		}
		return err
	})
	if err == nil {
		s.Log("%s fetched, checksum verified, in %.1f s", a, time.Since(started).Seconds())
	}
	return err
}

// received is what a download gave: its checksum is made while it passes.
type received struct {
	hash hash.Hash
	head []byte
}

func newReceived() *received { return &received{hash: sha256.New()} }

// Write implements io.Writer.
func (r *received) Write(p []byte) (int, error) {
	if missing := 512 - len(r.head); missing > 0 {
		r.head = append(r.head, p[:min(missing, len(p))]...)
	}
	return r.hash.Write(p)
}

func (r *received) verify(a Artifact) error {
	got := hex.EncodeToString(r.hash.Sum(nil))
	if got == a.SHA256 {
		return nil
	}
	return &mismatchError{got: got, want: a.SHA256, what: http.DetectContentType(r.head)}
}

// limited ends a download that is larger than any program.
func limited(stream io.Reader) io.Reader {
	return io.MultiReader(io.LimitReader(stream, sizeLimit), tooMuch{stream})
}

// tooMuch is an error where the stream goes on.
type tooMuch struct{ io.Reader }

func (t tooMuch) Read(p []byte) (int, error) {
	n, err := t.Reader.Read(p[:min(1, len(p))])
	if n > 0 {
		return 0, errTooMuch
	}
	return 0, err
}
