package envoy

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/consul-mesh/mesh-buildpack/src/mesh/consul"
)

// replies are what a server does with streams, one after the other, the last with
// all that come then.
type replies []func(http.ResponseWriter)

func (r replies) take(taken *atomic.Int64) func(http.ResponseWriter) {
	if len(r) == 0 {
		return nil
	}
	return r[min(int(taken.Add(1)), len(r))-1]
}

// TestEarlyStream: an Envoy's stream is its own, and ends the one that was begun
// for it; where there is no room for both, what it says continues that one.
func TestEarlyStream(t *testing.T) {
	t.Parallel()
	refuse := func(w http.ResponseWriter) { w.Header().Set("Grpc-Status", "8") }
	breakOff := func(http.ResponseWriter) { panic(http.ErrAbortHandler) }
	nothing := func(*XDS) {}
	begunOf := func(x *XDS) *firstStream {
		x.First.mutex.Lock()
		defer x.First.mutex.Unlock()
		return x.First.of("s").begun
	}
	again := func(x *XDS) {
		first := begunOf(x)
		x.Begin("s", []byte("again, "))
		<-first.answered
	}
	for name, test := range map[string]struct {
		sidecar string
		server  func(http.ResponseWriter) // what it does with what was begun; nil: it waits for more
		times   int                       // that it does so
		between func(*XDS)
		own     replies                   // what it does with streams of Envoy's own; nil: it answers
		later   func(http.ResponseWriter) // and with one that was begun
		want    string
		served  bool
	}{
		"of its own":               {"s", nil, 0, nothing, nil, nil, "envoy", true},
		"continued":                {"s", nil, 0, nothing, replies{refuse}, nil, "hello, envoy", true},
		"broken off, continued":    {"s", nil, 0, nothing, replies{breakOff}, nil, "hello, envoy", true},
		"begun again":              {"s", nil, 0, again, nil, nil, "envoy", true},
		"begun again, continued":   {"s", nil, 0, again, replies{refuse}, nil, "again, envoy", true},
		"refused once":             {"s", refuse, 1, nothing, nil, nil, "envoy", true},
		"refused once, continued":  {"s", refuse, 1, nothing, replies{refuse}, nil, "hello, envoy", true},
		"refused":                  {"s", refuse, serverTries, nothing, nil, nil, "envoy", false},
		"all refused":              {"s", refuse, serverTries, nothing, replies{refuse}, nil, "8", false},
		"broken off":               {"s", breakOff, serverTries, nothing, nil, nil, "envoy", false},
		"new tokens":               {"s", nil, 0, (*XDS).Renew, nil, nil, "envoy", false},
		"of another":               {"other", nil, 0, nothing, nil, nil, "envoy", false},
		"sent on by two":           {"", nil, 0, nothing, replies{refuse, refuse, nil}, nil, "envoy", false},
		"sent on by all":           {"", nil, 0, nothing, replies{refuse, refuse, refuse, nil}, nil, "8", false},
		"of no Envoy":              {"", nil, 0, nothing, nil, nil, "envoy", false},
		"continued and broken off": {"s", nil, 0, nothing, replies{refuse}, breakOff, "14", true},
		"not begun, broken off":    {"", nil, 0, nothing, replies{breakOff}, nil, "14", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var protocols http.Protocols
			protocols.SetUnencryptedHTTP2(true)
			arrived := make(chan struct{}, serverTries) // streams that were begun
			var begun, owned, open atomic.Int64
			// Like Consul it answers when it has something to say.
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get(sidecarHeader) != "" || r.Header.Get(consul.TokenHeader) != "token" {
					t.Errorf("the server got the header %v", r.Header)
				}
				var part [64]byte
				var all string
				do, known := test.later, false
				for !strings.HasSuffix(all, "envoy") {
					n, err := r.Body.Read(part[:])
					all += string(part[:n])
					switch {
					case all == "hello, " || all == "again, ":
						open.Add(1)
						defer open.Add(-1)
						arrived <- struct{}{}
						if begun.Add(1) <= int64(test.times) {
							test.server(w)
							return
						}
					case strings.HasPrefix(all, "en") && !known:
						known = true
						if do = test.own.take(&owned); do != nil {
							do(w)
							return
						}
					}
					if err != nil {
						return // it was given up
					}
				}
				if do != nil {
					do(w)
				}
				_, _ = io.WriteString(w, all)
			}))
			server.Config.Protocols = &protocols
			server.Start()
			t.Cleanup(server.Close)
			a := &consul.Access{Dir: t.TempDir()}
			a.UseTokens("token", "")
			x, err := NewXDS(t.Context(), a,
				&http.Transport{Protocols: &protocols}, server.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = x.Server.Close(); x.First.forget() })
			x.Begin("s", []byte("hello, "))
			for range min(test.times+1, serverTries) {
				<-arrived
			}
			if test.times == serverTries {
				<-begunOf(x).answered // the last
			}
			test.between(x)

			envoy := &http.Client{Transport: &http.Transport{Protocols: &protocols, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "unix", x.Socket)
			}}}
			// The server ends the stream, Envoy has more to say.
			says, more := io.Pipe()
			t.Cleanup(func() { more.Close() })
			go func() {
				_, _ = io.WriteString(more, "en")
				_, _ = io.WriteString(more, "voy")
			}()
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			t.Cleanup(cancel)
			request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://servers/ads", says)
			if err != nil {
				t.Fatal(err)
			}
			request.Header.Set(sidecarHeader, test.sidecar)
			response, err := envoy.Do(request)
			if err != nil {
				t.Fatal(err)
			}
			defer response.Body.Close()
			got, err := io.ReadAll(response.Body)
			if answer := string(got) + response.Header.Get("Grpc-Status"); err != nil || answer != test.want {
				t.Errorf("the server heard, or the relay says, %q, %v, want %q", answer, err, test.want)
			}
			if got := x.First.Served(test.sidecar); got != test.served {
				t.Errorf("a stream was there for Envoy: %v", got)
			}
			heard := false
			select {
			case <-x.First.Answered(test.sidecar):
				heard = true
			default:
			}
			if heard != (test.want != "14") {
				t.Errorf("Envoy has an answer: %v", heard)
			}
			if !test.served {
				return
			}
			for open.Load() > 0 {
				if ctx.Err() != nil {
					t.Fatal("what was begun goes on")
				}
				time.Sleep(time.Millisecond)
			}
		})
	}
}

func TestIntroduction(t *testing.T) {
	t.Parallel()
	got := Introduction(Sidecar{ID: "orders", Name: "orders"}, "node")
	if length := binary.BigEndian.Uint32(got[1:5]); got[0] != 0 || int(length) != len(got)-5 {
		t.Errorf("%q is no message of gRPC", got)
	}
	// envoy.service.discovery.v3.DeltaDiscoveryRequest, envoy.config.core.v3.Node
	for _, field := range []struct {
		path []protowire.Number
		want string
	}{
		{[]protowire.Number{2}, "type.googleapis.com/envoy.service.runtime.v3.Runtime"},
		{[]protowire.Number{1, 1}, "orders-sidecar-proxy"},
		{[]protowire.Number{1, 2}, "orders"},
	} {
		if value := fieldAt(t, got[5:], field.path...); value != field.want {
			t.Errorf("field %v is %q, want %q", field.path, value, field.want)
		}
	}
}

// fieldAt is the first value of a field of a message, or of one in it.
func fieldAt(t *testing.T, message []byte, path ...protowire.Number) string {
	t.Helper()
	for len(message) > 0 {
		number, kind, n := protowire.ConsumeTag(message)
		if n < 0 || kind != protowire.BytesType {
			t.Fatalf("%q is no message", message)
		}
		value, m := protowire.ConsumeBytes(message[n:])
		if m < 0 {
			t.Fatalf("%q is no message", message)
		}
		switch {
		case number == path[0] && len(path) == 1:
			return string(value)
		case number == path[0]:
			return fieldAt(t, value, path[1:]...)
		}
		message = message[n+m:]
	}
	return ""
}

// slowToClose is the body of an answer, which is not closed before it may be.
type slowToClose struct {
	io.Reader
	closes, may chan struct{}
}

func (b slowToClose) Close() error {
	close(b.closes)
	<-b.may
	return nil
}

// TestStatusWaitsForNoServer: while a refused stream is being closed, a status is told.
func TestStatusWaitsForNoServer(t *testing.T) {
	t.Parallel()
	body := slowToClose{strings.NewReader(""), make(chan struct{}), make(chan struct{})}
	s := NewFirstStreams(nil)
	answered := make(chan struct{})
	close(answered)
	s.of("s").begun = &firstStream{cancel: func() {}, answered: answered, response: &http.Response{Body: body}}
	taken := make(chan *firstStream)
	go func() { taken <- s.take("s") }()
	<-body.closes
	told := make(chan bool)
	go func() { told <- s.Served("s") }()
	select {
	case served := <-told:
		if served {
			t.Error("a refused stream has served")
		}
	case <-time.After(time.Minute):
		t.Error("a status waits for the server")
	}
	close(body.may)
	if e := <-taken; e != nil {
		t.Errorf("got a refused stream %v", e)
	}
}
