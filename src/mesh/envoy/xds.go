package envoy

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

	"github.com/consul-mesh/mesh-buildpack/src/mesh/consul"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/instance"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/wait"
)

// XDS stands between Envoy and the agent where there are tokens, and between
// Envoy and the servers: it puts the token of the moment on each of Envoy's
// streams. So Envoy has no token in its bootstrap, in its admin API's dump or in
// its log, and a new token needs no new Envoy. It listens on a Unix socket in
// the private folder.
type XDS struct {
	Socket string
	host   string // that streams are sent to
	Access *consul.Access
	Server *http.Server
	First  *FirstStreams

	mutex   sync.Mutex
	streams map[*func()]bool // what ends them, guarded by mutex
}

// envoySays is the key of what an Envoy says, in the context of its stream. The
// ReverseProxy passes on a body that cannot be closed, and the transport waits
// for it when the other side has ended the stream.
type envoySays struct{}

// NewXDS listens for Envoys, and passes their streams on to host by way of upstream.
func NewXDS(ctx context.Context, a *consul.Access, upstream http.RoundTripper, host string) (*XDS, error) {
	x := &XDS{
		Socket: filepath.Join(a.Dir, instance.XdsSocket), host: host, Access: a,
		First: NewFirstStreams(upstream), streams: map[*func()]bool{},
	}
	if err := os.Remove(x.Socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("failed to clear the way for Envoy: %w", err)
	}
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "unix", x.Socket)
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
		Transport:     x.First,
		FlushInterval: -1,
		BufferPool:    smallBuffers{},
		ErrorLog:      quiet,
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			const unavailable = "14"
			w.Header().Set("Content-Type", "application/grpc")
			w.Header().Set("Grpc-Status", unavailable)
			w.Header().Set("Grpc-Message", url.PathEscape(err.Error()))
		},
	}
	x.Server = &http.Server{
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
	go func() { _ = x.Server.Serve(wait.Steady(listener)) }() // until close
	return x, nil
}

func (x *XDS) authorize(stream *http.Request) {
	stream.Header.Set(consul.TokenHeader, string(x.Access.ServiceToken()))
}

// Begin opens a stream for a sidecar before its Envoy is there.
func (x *XDS) Begin(sidecar string, introduction []byte) {
	const method = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
	stream := &http.Request{
		Method: http.MethodPost, URL: &url.URL{Scheme: "http", Host: x.host, Path: method},
		Header: http.Header{"Content-Type": {"application/grpc"}, "Te": {"trailers"}},
	}
	x.authorize(stream)
	x.First.begin(stream, sidecar, introduction)
}

func (x *XDS) track(stream *func(), open bool) {
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

// Renew ends every stream. Envoy keeps what it has, connects again and is then
// there with the new token.
func (x *XDS) Renew() {
	x.mutex.Lock()
	defer x.mutex.Unlock()
	x.First.forget()
	for end := range x.streams {
		(*end)()
	}
}
