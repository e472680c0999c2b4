package artifact

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"time"
)

// attempts is how often a download is tried, by HTTP or by git, where trying
// again makes sense.
const attempts = 3

// retry calls download until it succeeds, or trying again makes no sense.
func (s Store) retry(ctx context.Context, a Artifact, from address, download func() error) error {
	for attempt := 1; ; attempt++ {
		err := download()
		if err == nil {
			return nil
		}
		err = &fetchError{from: from, err: err}
		if ctx.Err() != nil || diskFull(err) || !transient(err) {
			return fmt.Errorf("failed to fetch %s from %s: %w", a, from, err)
		}
		if attempt == attempts {
			return fmt.Errorf("failed to fetch %s from %s in %d attempts: %w", a, from, attempt, err)
		}
		s.Log("%s: attempt %d of %d failed: %v", a, attempt, attempts, err)
		select {
		case <-time.After(s.Pause << (attempt - 1)):
		case <-ctx.Done():
		}
	}
}

// transient says whether trying again makes sense after an error of a download.
func transient(err error) bool {
	var status statusError
	var proxy *proxyError
	if errors.As(err, &proxy) {
		status = statusError(proxy.status)
	}
	if proxy != nil || errors.As(err, &status) {
		return status >= 500 || status == http.StatusRequestTimeout || status == http.StatusTooManyRequests
	}
	for _, final := range []error{errTooMuch, errRedirects, exec.ErrNotFound, context.Canceled} {
		if errors.Is(err, final) {
			return false
		}
	}
	var git *gitError
	if errors.As(err, &git) {
		return !git.final
	}
	var differs *mismatchError
	var certificate *tls.CertificateVerificationError
	return !errors.As(err, &differs) && !errors.As(err, &certificate)
}
