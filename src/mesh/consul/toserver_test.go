package consul

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/consul-mesh/mesh-buildpack/src/credentials"
	"github.com/consul-mesh/mesh-buildpack/src/droplet"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/instance"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/meshtest"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/wait"
)

const (
	one   = "127.0.0.2"
	other = "127.0.0.3"
)

// twoServers are asked one first, and answer by their address and the path.
func twoServers(answer func(host, path string) (int, string)) (*Servers, *Client) {
	s := &Servers{Names: []string{one, other}, current: one}
	api := &ToServer{Servers: s, Port: ServerHTTP, Transport: meshtest.RoundTripper(func(r *http.Request) (*http.Response, error) {
		return meshtest.Transport(func(path string) (int, string) { return answer(r.URL.Hostname(), path) }).RoundTrip(r)
	})}
	return s, &Client{Base: "http://servers", HTTP: http.Client{Transport: api}}
}

// TestLeaderlessServer: a start goes on from a server that has no leader, and says so
// with status 200, to one that has. What is open at the first is not hung up: during
// an election no server has a leader.
func TestLeaderlessServer(t *testing.T) {
	t.Parallel()
	s, client := twoServers(func(host, _ string) (int, string) {
		if host == one {
			return http.StatusOK, `""` + "\n"
		}
		return http.StatusOK, `"10.0.0.1:8300"`
	})
	open, done := s.UntilLost(t.Context())
	defer done()
	if leader, err := client.Leader(t.Context()); err == nil {
		t.Errorf("the leader is %q", leader)
	}
	if leader, err := client.Leader(t.Context()); err != nil || leader == "" {
		t.Errorf("the next server says %q, %v", leader, err)
	}
	if open.Err() != nil {
		t.Error("what was open is hung up")
	}
}

// TestTooManyRequests: what a server has no room for another is asked, and the first is
// not lost: what is open there stays.
func TestTooManyRequests(t *testing.T) {
	t.Parallel()
	for name, full := range map[string]func(host string) bool{
		"one has no room":   func(host string) bool { return host == one },
		"none has, and 429": func(string) bool { return true },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var asked atomic.Int64
			s, client := twoServers(func(host, _ string) (int, string) {
				asked.Add(1)
				if full(host) {
					return http.StatusTooManyRequests, "Your IP is issuing too many concurrent connections, please rate limit your calls"
				}
				return http.StatusOK, "true"
			})
			open, done := s.UntilLost(t.Context())
			defer done()
			err := client.CallWith(t.Context(), "", http.MethodPut, "/v1/catalog/register", map[string]string{"Node": "n"}, nil)
			if failed := err != nil; failed != full(other) || failed && !Passes(err) {
				t.Errorf("the answer is %v", err)
			}
			if n := asked.Load(); n > serverTries {
				t.Errorf("%d servers were asked", n)
			}
			if open.Err() != nil {
				t.Error("what was open is hung up")
			}
		})
	}
}

// TestTooManyConnections: where a server has too many connections, with TLS too, that is
// what is said, and it is not lost.
func TestTooManyConnections(t *testing.T) {
	t.Parallel()
	certificate, ca := selfSigned(t, "server.cf.consul")
	config := &tls.Config{Certificates: []tls.Certificate{certificate}, NextProtos: []string{"h2", "http/1.1"}}
	address := netip.MustParseAddrPort(meshtest.Listen(t, func(conn net.Conn) { // as Consul does it
		_, _ = io.WriteString(tls.Server(conn, config), "HTTP/1.1 429 Too Many Requests\r\nContent-Type: text/plain\r\nContent-Length: 81\r\nConnection: close\r\n\r\n"+
			"Your IP is issuing too many concurrent connections, please rate limit your calls\n")
		_, _ = io.Copy(io.Discard, conn)
	}))
	a := &Access{creds: &credentials.Credentials{CA: ca}}
	s := &Servers{Names: []string{address.Addr().String()}, HTTP: int(address.Port()), tls: a.serverTLS()}
	client := &Client{Base: "http://servers", HTTP: http.Client{Transport: s.API()}}
	open, done := s.UntilLost(t.Context())
	defer done()
	_, err := client.Leader(t.Context())
	var status *StatusError
	if !errors.As(err, &status) || status.Status != http.StatusTooManyRequests {
		t.Errorf("the answer is %v", err)
	}
	if open.Err() != nil {
		t.Error("what was open is hung up")
	}
}

// TestRoomForNobody: where no server has room for a question, one who polls does not
// ask them many times in a second.
func TestRoomForNobody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		servers := NewServers(&droplet.Servers{Addresses: []string{one, other}}, &Access{})
		api := &ToServer{Servers: servers, Transport: meshtest.Transport(func(string) (int, string) {
			asked++
			return http.StatusTooManyRequests, "rate limit exceeded"
		})}
		client := &Client{Base: "http://servers", HTTP: http.Client{Transport: api}}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := wait.Poll(ctx, func(ctx context.Context) error { _, err := client.Leader(ctx); return err }); err == nil {
			t.Error("a server has said who leads")
		}
		if most := 60 * 3 * serverTries; asked > most {
			t.Errorf("%d questions in a minute, want at most %d", asked, most)
		}
	})
}

// TestNamesGone: servers whose names do not resolve any more, or not in time, are
// those that they were before.
func TestNamesGone(t *testing.T) {
	t.Parallel()
	s, client := twoServers(func(host, _ string) (int, string) {
		if host == one {
			return http.StatusInternalServerError, "once"
		}
		return http.StatusOK, `"10.0.0.1:8300"`
	})
	s.current = ""
	if _, err := s.Pick(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.Names, s.current = []string{"gone.invalid"}, one
	if _, err := client.Leader(t.Context()); err == nil {
		t.Fatal("the server works")
	}
	ctx, cancel := context.WithTimeout(t.Context(), instance.CallTimeout)
	defer cancel()
	if leader, err := client.Leader(ctx); err != nil || leader == "" {
		t.Errorf("the other says %q, %v", leader, err)
	}
}

// TestStreamLeavesLeaderless: Envoy's stream does not stay at a server without a leader
// that the API has left, where another has one; but an election ends none.
func TestStreamLeavesLeaderless(t *testing.T) {
	t.Parallel()
	const never = time.Hour
	for name, test := range map[string]struct {
		led  map[string]time.Duration // from when on a server has a leader
		ends bool
	}{
		"the other has a leader":  {map[string]time.Duration{one: never, other: 0}, true},
		"an election":             {map[string]time.Duration{one: 3 * time.Second, other: 2 * time.Second}, false},
		"nobody has a leader":     {map[string]time.Duration{one: never, other: never}, false},
		"the other, after longer": {map[string]time.Duration{one: never, other: 20 * time.Second}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				begun := time.Now()
				s, client := twoServers(func(host, _ string) (int, string) {
					if time.Since(begun) < test.led[host] {
						return http.StatusOK, `""`
					}
					return http.StatusOK, `"10.0.0.1:8300"`
				})
				streams := &ToServer{Servers: s, isXDS: true, Transport: meshtest.RoundTripper(func(r *http.Request) (*http.Response, error) {
					body, says := io.Pipe()
					context.AfterFunc(r.Context(), func() { _ = says.CloseWithError(r.Context().Err()) })
					return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: body, Request: r}, nil
				})}
				ctx, cancel := context.WithCancel(t.Context())
				heard, says := io.Pipe()
				request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://servers/ads", heard)
				if err != nil {
					t.Fatal(err)
				}
				response, err := streams.RoundTrip(request)
				if err != nil {
					t.Fatal(err)
				}
				ended := make(chan struct{})
				go func() {
					_, _ = io.ReadAll(response.Body)
					close(ended)
				}()
				go func() {
					for ctx.Err() == nil {
						_, _ = client.Leader(ctx)
						time.Sleep(time.Second)
					}
				}()
				select {
				case <-ended:
					if _, err := says.Write([]byte("more")); err == nil {
						t.Error("what Envoy says is still heard")
					}
					if took := time.Since(begun); !test.ends || took < instance.LeaderlessFor || took < test.led[other] {
						t.Errorf("the stream ended after %v", took)
					}
				case <-time.After(time.Minute):
					if test.ends {
						t.Error("the stream goes on")
					}
				}
				cancel()
				<-ended
				time.Sleep(time.Minute) // the streams are no longer watched
			})
		})
	}
}

// TestOneConnection: with TLS, a question that stays open and others beside it go over
// one connection; without it over two, when a busy moment is over.
func TestOneConnection(t *testing.T) {
	t.Parallel()
	certificate, ca := selfSigned(t, "server.cf.consul")
	for name, test := range map[string]struct {
		ca   string
		want int64
	}{"with TLS": {ca, 1}, "without": {"", 2}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			arrived, release := make(chan struct{}), make(chan struct{})
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				arrived <- struct{}{}
				select {
				case <-release:
				case <-r.Context().Done():
				}
			}))
			var connections atomic.Int64
			server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
				switch state {
				case http.StateNew:
					connections.Add(1)
				case http.StateClosed:
					connections.Add(-1)
				}
			}
			a := &Access{creds: &credentials.Credentials{CA: test.ca}}
			address := server.Listener.Addr().(*net.TCPAddr)
			s := &Servers{Names: []string{address.IP.String()}, HTTP: address.Port}
			if test.ca == "" {
				server.Start()
			} else {
				server.TLS, server.EnableHTTP2 = &tls.Config{Certificates: []tls.Certificate{certificate}}, true
				server.StartTLS()
				s.tls = a.serverTLS()
			}
			t.Cleanup(server.Close)
			api := s.API()
			api.(*ToServer).Transport.(*http.Transport).IdleConnTimeout = 300 * time.Millisecond
			client := &Client{Base: "http://servers", HTTP: http.Client{Transport: api}}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var asked sync.WaitGroup
			ask := func() {
				asked.Go(func() { _ = client.CallWith(ctx, "", http.MethodGet, "/v1/kv/", nil, nil) }) // the last two are cancelled
				<-arrived
			}
			for range 4 {
				ask()
			}
			for range 3 {
				release <- struct{}{}
			}
			ask()
			meshtest.Eventually(t, fmt.Sprintf("%d connections", test.want), func() bool { return connections.Load() == test.want })
			cancel()
			asked.Wait()
		})
	}
}
