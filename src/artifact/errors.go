package artifact

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os/exec"
	"strings"
)

var (
	errTooMuch   = fmt.Errorf("it is larger than %d MB", sizeLimit>>20)
	errRedirects = errors.New("the server redirects without an end")
)

// mismatchError is a file that must never be run.
type mismatchError struct {
	got, want string
	what      string // the content type of a download
}

func (e *mismatchError) Error() string {
	return fmt.Sprintf("its checksum is %s and should be %s", e.got, e.want)
}

// statusError is a server's refusal.
type statusError int

func (e statusError) Error() string {
	return strings.TrimSpace(fmt.Sprintf("the server says %d %s", int(e), http.StatusText(int(e))))
}

// gitError is git's refusal, in its own words.
type gitError struct {
	said  string
	final bool // trying again is no use
	err   error
}

func (e *gitError) Error() string { return "git: " + e.said }
func (e *gitError) Unwrap() error { return e.err }

// fetchError is an error of a fetch, without the addresses that Go's HTTP
// client and git put into theirs.
type fetchError struct {
	from address
	err  error
}

func (e *fetchError) Error() string {
	err := e.err
	var failed *url.Error
	if errors.As(err, &failed) {
		err = failed.Err
	}
	return redact(err.Error())
}

func (e *fetchError) Unwrap() error { return e.err }

// hinted adds a line that says what to do about an error, where it has none.
func hinted(err error) error {
	if err == nil || strings.Contains(err.Error(), "\nhint: ") {
		return err
	}
	if hint := hintFor(err); hint != "" {
		return fmt.Errorf("%w\nhint: %s", err, hint)
	}
	return err
}

func hintFor(err error) string {
	var (
		differs     *mismatchError
		status      statusError
		git         *gitError
		certificate *tls.CertificateVerificationError
		fetch       *fetchError
		network     *net.OpError
		proxy       *proxyError
	)
	switch {
	case diskFull(err):
		return "the disk of the staging container is full; a larger disk_quota (cf push -k) gives it more"
	case errors.As(err, &differs) && strings.HasPrefix(differs.what, "text/html"):
		return "what the address gives is a web page, perhaps one that says an error or asks for a login; nothing of it was run"
	case errors.As(err, &differs):
		return "what is there is not what the checksum was made of, perhaps another build; nothing of it was run"
	case !errors.As(err, &fetch) || errors.Is(err, context.Canceled):
		return ""
	case errors.As(err, &certificate):
		return "the certificate of " + fetch.from.url.Host + " has to be signed by one that the staging container trusts, in /etc/ssl/certs, SSL_CERT_FILE, or the folder CF_SYSTEM_CERT_PATH, which the platform's operator fills"
	case errors.Is(err, exec.ErrNotFound):
		return "git is needed for an address that begins with git::, and the staging container has none; an https address needs no program"
	case errors.As(err, &network) && network.Op == "proxyconnect":
		name, _ := proxyVariable(fetch.from.url)
		return "the proxy in " + name + " does not answer"
	case errors.As(err, &proxy):
		return proxy.hint()
	case errors.As(err, &status) && !transient(err):
		return "is the address right, and does it need credentials?"
	case errors.As(err, &git) && byProxy.MatchString(git.said) && proxyFor(fetch.from.url) != nil:
		name, _ := proxyVariable(fetch.from.url)
		return "it is the proxy " + proxyFor(fetch.from.url).Host + " of " + name + " that refuses; NO_PROXY names what is reached without it"
	case errors.As(err, &git):
		return "staging must reach " + fetch.from.url.Host + ", and ref has to be a whole commit, a tag or a branch of the repository"
	}
	return "staging must reach " + fetch.from.url.Host + " " + proxyHint(fetch.from.url)
}
