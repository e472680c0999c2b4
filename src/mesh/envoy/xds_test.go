package envoy

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/consul-mesh/mesh-buildpack/src/mesh/consul"
)

// TestXDS: every stream has the token of the moment, whatever Envoy says, and
// new tokens make new streams.
func TestXDS(t *testing.T) {
	t.Parallel()
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	agent := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Header.Get(consul.TokenHeader)+"\n")
		_ = http.NewResponseController(w).Flush()
		var part [64]byte
		for { // both directions at once
			n, err := r.Body.Read(part[:])
			_, _ = w.Write(part[:n])
			_ = http.NewResponseController(w).Flush()
			if err != nil {
				return
			}
		}
	}))
	agent.Config.Protocols = &protocols
	agent.Start()
	t.Cleanup(agent.Close)

	a := &consul.Access{Dir: t.TempDir()}
	a.UseTokens("first", "")
	x, err := NewXDS(t.Context(), a, &http.Transport{Protocols: &protocols}, agent.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = x.Server.Close() })
	peer := &http.Client{Transport: &http.Transport{Protocols: &protocols, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", x.Socket)
	}}}
	stream := func() (io.WriteCloser, io.ReadCloser) {
		t.Helper()
		read, write := io.Pipe()
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://agent/ads", read)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set(consul.TokenHeader, "envoy's own")
		response, err := peer.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		return write, response.Body
	}
	expect := func(from io.Reader, want string) {
		t.Helper()
		got := make([]byte, len(want))
		if _, err := io.ReadFull(from, got); err != nil || string(got) != want {
			t.Errorf("got %q, %v, want %q", got, err, want)
		}
	}
	write, body := stream()
	expect(body, "first\n")
	_, _ = io.WriteString(write, "ping")
	expect(body, "ping")
	a.UseTokens("second", "")
	x.Renew()
	if _, err := io.ReadAll(body); err == nil {
		t.Error("the old stream ended as if all were well")
	}
	write, body = stream()
	expect(body, "second\n")
	write.Close()
	body.Close()
}
