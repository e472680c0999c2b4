package runtime

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestEarlyStream: what an Envoy says continues the stream that was begun for
// it, and is a stream of its own where that was refused, given up, or is for
// another.
func TestEarlyStream(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		sidecar string
		refused bool
		between func(*xds)
		want    string
	}{
		"continued":   {"s", false, func(*xds) {}, "hello, envoy"},
		"refused":     {"s", true, func(x *xds) { <-x.early.begun["s"].answered }, "envoy"},
		"new tokens":  {"s", false, (*xds).renew, "envoy"},
		"of another":  {"other", false, func(*xds) {}, "envoy"},
		"of no Envoy": {"", false, func(*xds) {}, "envoy"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var protocols http.Protocols
			protocols.SetUnencryptedHTTP2(true)
			// Like Consul it answers when it has something to say.
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get(sidecarHeader) != "" || r.Header.Get(tokenHeader) != "token" {
					t.Errorf("the server got the header %v", r.Header)
				}
				var part [64]byte
				var all string
				for !strings.HasSuffix(all, "envoy") {
					n, err := r.Body.Read(part[:])
					all += string(part[:n])
					if test.refused && all == "hello, " {
						w.Header().Set("Grpc-Status", "8")
						return
					}
					if err != nil {
						return // it was given up
					}
				}
				_, _ = io.WriteString(w, all)
			}))
			server.Config.Protocols = &protocols
			server.Start()
			t.Cleanup(server.Close)
			x, err := newXDS(t.Context(), &access{dir: t.TempDir(), service: "token"},
				&http.Transport{Protocols: &protocols}, server.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = x.server.Close(); x.early.forget() })
			x.begin("s", []byte("hello, "))
			test.between(x)

			envoy := &http.Client{Transport: &http.Transport{Protocols: &protocols, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "unix", x.socket)
			}}}
			request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://servers/ads", strings.NewReader("envoy"))
			if err != nil {
				t.Fatal(err)
			}
			request.Header.Set(sidecarHeader, test.sidecar)
			response, err := envoy.Do(request)
			if err != nil {
				t.Fatal(err)
			}
			defer response.Body.Close()
			if got, err := io.ReadAll(response.Body); err != nil || string(got) != test.want {
				t.Errorf("the server heard %q, %v, want %q", got, err, test.want)
			}
		})
	}
}

// TestIntroduction: without a whole version there is none, because the server
// would not refuse an Envoy that is too old.
func TestIntroduction(t *testing.T) {
	t.Parallel()
	r := &registration{name: "orders"}
	r.ID = "orders"
	for version, want := range map[string]bool{"1.38.2": true, "": false, "1.38": false, "1.38.x": false, "1.38.2-dev": false} {
		if got := introduction(r, "node", version); (got != nil) != want {
			t.Errorf("%q: %q", version, got)
		}
	}
}
