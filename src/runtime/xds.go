package runtime

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"sync"
)

// xds stands between Envoy and the agent where there are tokens, and between
// Envoy and the servers: it puts the token of the moment on each of Envoy's
// streams. So Envoy has no token in its bootstrap, in its admin API's dump or in
// its log, and a new token needs no new Envoy. It listens on a Unix socket in
// the private folder.
type xds struct {
	socket string
	host   string // that streams are sent to
	access *access
	server *http.Server
	early  *early

	mutex   sync.Mutex
	streams map[*func()]bool // what ends them, guarded by mutex
}

// envoySays is the key of what an Envoy says, in the context of its stream. The
// ReverseProxy passes on a body that cannot be closed, and the transport waits
// for it when the other side has ended the stream.
type envoySays struct{}

func newXDS(ctx context.Context, a *access, upstream http.RoundTripper, host string) (*xds, error) {
	x := &xds{
		socket: filepath.Join(a.dir, xdsSocket), host: host, access: a,
		early: newEarly(upstream), streams: map[*func()]bool{},
	}
	if err := os.Remove(x.socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("failed to clear the way for Envoy: %w", err)
	}
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "unix", x.socket)
	if err != nil {
		return nil, fmt.Errorf("failed to listen for Envoy: %w", err)
	}
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	quiet := log.New(io.Discard, "", 0) // Envoy says what becomes of its streams
	relay := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: host})
			x.authorize(r.Out)
		},
		Transport:     x.early,
		FlushInterval: -1,
		BufferPool:    smallBuffers{},
		ErrorLog:      quiet,
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) {
			const unavailable = "14"
			w.Header().Set("Content-Type", "application/grpc")
			w.Header().Set("Grpc-Status", unavailable)
		},
	}
	x.server = &http.Server{
		Protocols: &protocols, ErrorLog: quiet,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			ctx, cancel := context.WithCancel(r.Context())
			end := func() {
				cancel()
				// The transport looks at ctx only when it has read what Envoy says.
				_ = r.Body.Close()
			}
			x.track(&end, true)
			defer x.track(&end, false)
			defer cancel()
			relay.ServeHTTP(w, r.WithContext(context.WithValue(ctx, envoySays{}, r.Body)))
		}),
	}
	go func() { _ = x.server.Serve(steady(listener)) }() // until close
	return x, nil
}

func (x *xds) authorize(stream *http.Request) {
	stream.Header.Set(tokenHeader, string(x.access.serviceToken()))
}

// begin opens a stream for a sidecar before its Envoy is there.
func (x *xds) begin(sidecar string, introduction []byte) {
	const method = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
	stream := &http.Request{
		Method: http.MethodPost, URL: &url.URL{Scheme: "http", Host: x.host, Path: method},
		Header: http.Header{"Content-Type": {"application/grpc"}, "Te": {"trailers"}},
	}
	x.authorize(stream)
	x.early.begin(stream, sidecar, introduction)
}

func (x *xds) track(stream *func(), open bool) {
	x.mutex.Lock()
	defer x.mutex.Unlock()
	if open {
		x.streams[stream] = true
	} else {
		delete(x.streams, stream)
	}
}

// smallBuffers are enough for what is passed on at a time. A stream keeps one.
type smallBuffers struct{}

// Get implements httputil.BufferPool.
func (smallBuffers) Get() []byte { return make([]byte, 4<<10) }

// Put implements httputil.BufferPool.
func (smallBuffers) Put([]byte) {}

// renew ends every stream. Envoy keeps what it has, connects again and is then
// there with the new token.
func (x *xds) renew() {
	x.mutex.Lock()
	defer x.mutex.Unlock()
	x.early.forget()
	for end := range x.streams {
		(*end)()
	}
}
