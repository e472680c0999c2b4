package crowd

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync"
	"time"
)

// frontPort is where a front listens, beside each server's own API.
const frontPort = 8499

// Request is what an instance has asked a server.
type Request struct {
	From         string // its address
	Method, Path string
	Query        url.Values
	Begun, Ended time.Time // Ended is zero while it is open
}

// Front stands before the servers' HTTP APIs: it notes all that is asked, and may hand
// it on later. To the servers each instance still has an address of its own.
type Front struct {
	delay  func(*http.Request) time.Duration
	server http.Server

	mutex   sync.Mutex
	proxies map[string]*httputil.ReverseProxy // by the addresses of server and instance; guarded by mutex
	asked   []*Request                        // guarded by mutex
}

// NewFront has all who are started from now on ask a front. A request is handed on
// later by its delay, one that changes something even if its caller has given it up.
func (c *Crowd) NewFront(delay func(*http.Request) time.Duration) (*Front, error) {
	f := &Front{delay: delay, proxies: map[string]*httputil.ReverseProxy{}}
	f.server = http.Server{Handler: f, ReadHeaderTimeout: time.Minute}
	for _, server := range c.Addresses() {
		listener, err := net.Listen("tcp", fmt.Sprintf("%s:%d", server, frontPort))
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("failed to stand before the servers: %w", err)
		}
		go func() { _ = f.server.Serve(listener) }() // until Close
	}
	c.port = frontPort
	return f, nil
}

// Close ends the front.
func (f *Front) Close() { _ = f.server.Close() }

// ServeHTTP implements http.Handler.
func (f *Front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	from, _, _ := net.SplitHostPort(r.RemoteAddr) // it has both
	server := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr).IP.String()
	defer f.note(&Request{From: from, Method: r.Method, Path: r.URL.Path, Query: r.URL.Query(), Begun: time.Now()})()
	if r.Method != http.MethodGet {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), time.Minute)
		defer cancel()
		r = r.WithContext(ctx)
		r.Body = io.NopCloser(bytes.NewReader(body))
	}
	time.Sleep(f.delay(r))
	f.to(server, from).ServeHTTP(w, r)
}

// note notes a request, and when it has ended.
func (f *Front) note(r *Request) (ended func()) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	f.asked = append(f.asked, r)
	return func() {
		f.mutex.Lock()
		defer f.mutex.Unlock()
		r.Ended = time.Now()
	}
}

// Asked lists what was asked that was open at a time, or has begun since.
func (f *Front) Asked(since time.Time) (all []Request) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	for _, r := range f.asked {
		if r.Ended.IsZero() || r.Ended.After(since) {
			all = append(all, *r)
		}
	}
	return all
}

// to hands on to a server what an instance asks.
func (f *Front) to(server, from string) *httputil.ReverseProxy {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	key := server + " " + from
	if f.proxies[key] == nil {
		dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
		target := &url.URL{Scheme: "http", Host: fmt.Sprintf("%s:%d", server, HTTPPort)}
		f.proxies[key] = &httputil.ReverseProxy{
			Rewrite:      func(r *httputil.ProxyRequest) { r.SetURL(target) },
			Transport:    &http.Transport{DialContext: dialer.DialContext},
			ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) }, // which cuts the connection
		}
	}
	return f.proxies[key]
}
