package registry

import (
	"crypto/tls"
	"encoding/pem"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/consul-mesh/mesh-buildpack/src/credentials"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/meshtest"
)

// TestHandshake: what is wrong with a server's certificate is said in words.
func TestHandshake(t *testing.T) {
	t.Parallel()
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.StartTLS()
	t.Cleanup(server.Close)
	certificate := server.TLS.Certificates[0]
	trusted := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
	consul := meshtest.Listen(t, func(conn net.Conn) {
		var first [1]byte
		if _, err := io.ReadFull(conn, first[:]); err == nil && first[0] == rpcTLS {
			_ = tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{certificate}}).Handshake()
		}
	})
	mute := meshtest.Listen(t, func(net.Conn) {})
	for name, test := range map[string]struct {
		address, ca, serverName, want string
	}{
		"good":       {consul, trusted, "example.com", ""},
		"other name": {consul, trusted, "server.cf.consul", `is not for server.cf.consul: is datacenter right`},
		"other ca":   {consul, "", "example.com", `is not signed by the ca of the bound service "b"`},
		"no tls":     {mute, trusted, "example.com", `does not speak TLS, and the bound service "b" has a ca`},
	} {
		p := &preflight{creds: &credentials.Credentials{Binding: "b", CA: test.ca, VerifyServerName: true}, serverName: test.serverName}
		err := p.handshake(t.Context(), test.address, rpcTLS, p.tlsConfig())
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Without the name only the chain counts.
	p := &preflight{creds: &credentials.Credentials{CA: trusted}, serverName: "server.cf.consul"}
	if err := p.handshake(t.Context(), consul, rpcTLS, p.tlsConfig()); err != nil {
		t.Errorf("without a name: %v", err)
	}
	p.creds.CA = ""
	if err := p.handshake(t.Context(), consul, rpcTLS, p.tlsConfig()); err == nil {
		t.Error("without a name any certificate is good")
	}
}
