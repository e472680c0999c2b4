package consul

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/consul-mesh/mesh-buildpack/src/mesh/instance"
)

// ToServer sends requests to the server that is asked now, whatever host they
// name.
type ToServer struct {
	*Servers
	Port      int
	Transport http.RoundTripper
	isXDS     bool // they are streams of Envoys
}

// transport is for one of the servers' ports. It notes in its TLS configuration
// what it speaks, so each has one of its own.
func (s *Servers) transport() *http.Transport {
	return &http.Transport{
		TLSClientConfig: s.tls.Clone(), DialContext: s.Dialer.DialContext, TLSHandshakeTimeout: instance.ConnectTimeout,
		IdleConnTimeout: instance.IdleConnection, Protocols: new(http.Protocols),
	}
}

// API is for Consul's HTTP API. With TLS all that is asked goes over one connection:
// servers allow each address so many (http_max_conns_per_client), and many instances
// may come from one.
func (s *Servers) API() http.RoundTripper {
	t := s.transport()
	t.Protocols.SetHTTP1(true)
	t.Protocols.SetHTTP2(s.tls != nil)
	t.HTTP2 = &http.HTTP2Config{SendPingTimeout: instance.APIPingAfter, PingTimeout: instance.PingTimeout}
	return &ToServer{Servers: s, Port: s.HTTP, Transport: t}
}

// XDS is for Envoy's streams, gRPC.
func (s *Servers) XDS() http.RoundTripper {
	t := s.transport()
	t.Protocols.SetUnencryptedHTTP2(s.tls == nil)
	t.Protocols.SetHTTP2(s.tls != nil)
	t.HTTP2 = &http.HTTP2Config{SendPingTimeout: instance.PingAfter, PingTimeout: instance.PingTimeout}
	return &ToServer{Servers: s, Port: s.GRPC, Transport: t, isXDS: true}
}

// serverTries is how many servers are asked: one may have too much to do.
const serverTries = 3

// RoundTrip implements http.RoundTripper. A server that has too much to do has done
// nothing, so another is asked.
func (t *ToServer) RoundTrip(request *http.Request) (*http.Response, error) {
	again := &t.full
	if t.isXDS {
		again = &t.streams.again
	}
	if err := again.Await(request.Context()); err != nil {
		return unsent(request, err)
	}
	for tries := serverTries; ; tries-- {
		response, err := t.try(request)
		if err != nil || response.StatusCode != http.StatusTooManyRequests {
			return response, err
		}
		if repeats := request.Body == nil || request.GetBody != nil; !repeats || tries == 1 {
			again.Fail()
			return response, nil
		}
		_ = response.Body.Close()
		if request.Body != nil {
			request = request.Clone(request.Context())
			if request.Body, err = request.GetBody(); err != nil {
				return nil, err
			}
		}
	}
}

// try asks one server.
func (t *ToServer) try(request *http.Request) (*http.Response, error) {
	host, err := t.Pick(request.Context())
	if err == nil {
		err = request.Context().Err() // a server that nothing was sent to is not to blame
	}
	if err != nil {
		return unsent(request, err)
	}
	if asked, ok := request.Context().Value(askedKey{}).(*Asked); ok {
		asked.host.Store(&host)
	}
	request = t.addressed(request, host)
	ended := func() {}
	if t.isXDS {
		request, ended = t.streams.begin(request, host)
	}
	response, err := t.Transport.RoundTrip(request)
	if isRefusal(err) {
		response, err = refusal(request), nil
	}
	if err != nil {
		defer ended()
		// Who was asked is not to blame for who does not wait for the answer.
		if request.Context().Err() == nil || errors.Is(err, context.DeadlineExceeded) {
			t.broke(host)
		}
		return nil, err
	}
	switch {
	case response.StatusCode == http.StatusTooManyRequests, IsFull(response.Header):
		t.leave(host) // it lives, and what it has been asked it still answers
	case isLeaderless(request, response):
		t.watchLeft(host, t.leave(host)) // so does this one
	case response.StatusCode >= http.StatusInternalServerError:
		t.lost(host)
	case !t.isXDS:
		t.noteWorks(host)
		t.full.Reset()
	case isUnavailable(response.Header):
		t.streams.again.Fail()
	default:
		t.streams.again.Reset()
	}
	response.Body = &stream{response.Body, response, t, host}
	return response, nil
}

// isRefusal says that a server has refused a connection for HTTP/2 because it has as
// many from this address as it allows: it says so in HTTP/1.1 and hangs up (Consul
// 1.22, agent/agent.go, and hashicorp/go-connlimit), which are errors of the
// transport's. What is open on other connections goes on.
func isRefusal(err error) bool {
	return err != nil && (strings.Contains(err.Error(), "looked like an HTTP/1.1 header") ||
		strings.Contains(err.Error(), "http2: client conn could not be established"))
}

// refusal is the answer that the server has given.
func refusal(request *http.Request) *http.Response {
	const why = "the server takes no more connections, most likely because it has as many from this address as it allows (http_max_conns_per_client)"
	return &http.Response{
		StatusCode: http.StatusTooManyRequests, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(why)), Request: request,
	}
}

// Asked is who was asked for something.
type Asked struct{ host atomic.Pointer[string] }

type askedKey struct{}

// Note has requests note in a who was asked last.
func (a *Asked) Note(ctx context.Context) context.Context {
	return context.WithValue(ctx, askedKey{}, a)
}

// StillAnswers asks the same server something that it answers at once by itself,
// whoever else it waits for: that there is a leader, or none.
func (t *ToServer) StillAnswers(ctx context.Context, a *Asked) error {
	host := a.host.Load()
	if host == nil {
		return nil // nobody was asked yet
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://servers"+leaderPath, nil)
	if err != nil {
		return err
	}
	response, err := t.Transport.RoundTrip(t.addressed(request, *host))
	if err != nil {
		return err
	}
	return response.Body.Close()
}

// broke says that a server does not answer, or breaks off.
func (t *ToServer) broke(host string) {
	t.lost(host)
	if t.isXDS {
		t.streams.again.Fail()
	}
}

// lost says that a server does not answer, or fails.
func (t *ToServer) lost(host string) {
	hangUp := t.leave(host)
	hangUp()
	t.watchLeft(host, hangUp)
}

// unsent is the answer to a request that nobody was asked.
func unsent(request *http.Request, err error) (*http.Response, error) {
	if request.Body != nil {
		_ = request.Body.Close() // who writes what is to be sent does not wait
	}
	return nil, &UnsentError{err}
}

// addressed is a request to one server.
func (t *ToServer) addressed(request *http.Request, host string) *http.Request {
	request = request.Clone(request.Context())
	request.URL.Scheme = "http"
	if t.tls != nil {
		request.URL.Scheme = "https"
	}
	request.URL.Host = net.JoinHostPort(host, strconv.Itoa(t.Port))
	return request
}

// leaderPath is where a server says who leads: with status 200, and an empty text
// where nobody does.
const leaderPath = "/v1/status/leader"

// isLeaderless says that a server was asked who leads, and knows nobody.
func isLeaderless(request *http.Request, response *http.Response) bool {
	if request.URL.Path != leaderPath || response.StatusCode != http.StatusOK {
		return false
	}
	const most = 1024 // it is an address
	text, err := io.ReadAll(io.LimitReader(response.Body, most))
	response.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(text), response.Body), response.Body}
	return err == nil && strings.TrimSpace(string(text)) == `""`
}

// stream is an answer, which tells at its end whether its server is one to ask
// again. That of gRPC has a status then.
type stream struct {
	io.ReadCloser
	response *http.Response
	to       *ToServer
	host     string
}

// Read implements io.Reader.
func (s *stream) Read(buffer []byte) (int, error) {
	n, err := s.ReadCloser.Read(buffer)
	switch {
	case err == nil:
	case IsFull(s.response.Trailer):
		s.to.leave(s.host)
	case isUnavailable(s.response.Trailer):
		s.to.streams.again.Fail()
	case !errors.Is(err, io.EOF) && s.response.Request.Context().Err() == nil:
		s.to.broke(s.host)
	}
	return n, err
}

// IsFull says that a server has as many of Envoy's streams as is its share: it
// wants this one to go to another.
func IsFull(status http.Header) bool { return status.Get("Grpc-Status") == "8" } // RESOURCE_EXHAUSTED

// isUnavailable says that a server cannot serve a stream now.
func isUnavailable(status http.Header) bool { return status.Get("Grpc-Status") == "14" }

// UnsentError says that nobody was asked.
type UnsentError struct{ error }

func (e *UnsentError) Unwrap() error { return e.error }
