package consul

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/consul-mesh/mesh-buildpack/src/credentials"
	"github.com/consul-mesh/mesh-buildpack/src/droplet"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/instance"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/meshtest"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/wait"
)

// TestSilentServer: a stream of a server that is gone without a word ends, and
// the server is not the next to be asked. One that only has nothing to say stays.
func TestSilentServer(t *testing.T) {
	t.Parallel()
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
	server.Config.Protocols = &protocols
	server.Start()
	t.Cleanup(server.Close)
	var mutex sync.Mutex // held while the network loses everything
	network := meshtest.Listen(t, func(conn net.Conn) {
		upstream, err := net.Dial("tcp", server.Listener.Addr().String())
		if err != nil {
			return
		}
		defer upstream.Close()
		go func() {
			pass(&mutex, upstream, conn)
			upstream.Close()
		}()
		pass(&mutex, conn, upstream)
	})
	address := netip.MustParseAddrPort(network)
	host := address.Addr().String()
	s := &Servers{Names: []string{host}, GRPC: int(address.Port())}
	streams := s.XDS()
	pings := streams.(*ToServer).Transport.(*http.Transport).HTTP2
	if pings.SendPingTimeout < 15*time.Second {
		t.Errorf("Consul ends a connection with a ping every %v", pings.SendPingTimeout)
	}
	pings.SendPingTimeout, pings.PingTimeout = 20*time.Millisecond, 200*time.Millisecond

	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://servers/ads", nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := streams.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	ended := make(chan error, 1)
	go func() {
		_, err := io.ReadAll(response.Body)
		ended <- err
	}()
	select {
	case err := <-ended:
		t.Fatalf("the stream of a server that answers pings ended: %v", err)
	case <-time.After(500 * time.Millisecond):
	}
	mutex.Lock()
	defer mutex.Unlock()
	select {
	case err := <-ended:
		if err == nil {
			t.Error("the stream ended as if all were well")
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the stream goes on")
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.current != "" || s.failed != host {
		t.Errorf("the server is %q and has failed %q", s.current, s.failed)
	}
}

// pass copies until one side ends, and stands still while the mutex is held.
func pass(mutex *sync.Mutex, to io.Writer, from io.Reader) {
	var part [4 << 10]byte
	for {
		n, err := from.Read(part[:])
		mutex.Lock()
		_, writeErr := to.Write(part[:n])
		mutex.Unlock()
		if err != nil || writeErr != nil {
			return
		}
	}
}

// TestAnotherServer: one that cannot do what it is asked for is not the next to
// be asked, and one that refuses it is.
func TestAnotherServer(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]string{
		http.StatusOK:                  "127.0.0.2",
		http.StatusForbidden:           "127.0.0.2",
		http.StatusNotFound:            "127.0.0.2",
		http.StatusTooManyRequests:     "127.0.0.3",
		http.StatusInternalServerError: "127.0.0.3",
		http.StatusServiceUnavailable:  "127.0.0.3",
	} {
		t.Run(strconv.Itoa(status), func(t *testing.T) {
			t.Parallel()
			s := &Servers{Names: []string{"127.0.0.2", "127.0.0.3"}, current: "127.0.0.2"}
			api := &ToServer{Servers: s, Port: ServerHTTP, Transport: meshtest.Transport(func(string) (int, string) { return status, "" })}
			request := httptest.NewRequest(http.MethodGet, "http://servers/v1/status/leader", nil)
			if _, err := api.RoundTrip(request); err != nil {
				t.Fatal(err)
			}
			if next, err := s.Pick(t.Context()); next != want || err != nil {
				t.Errorf("the next is %s (%v), want %s", next, err, want)
			}
		})
	}
}

// TestNoServer: whoever writes what is to be sent does not wait for ever where
// there is no server to send it to.
func TestNoServer(t *testing.T) {
	t.Parallel()
	reader, writer := io.Pipe()
	s := &Servers{Names: nil}
	request := httptest.NewRequest(http.MethodPost, "http://servers/ads", reader)
	if _, err := s.XDS().RoundTrip(request); err == nil {
		t.Fatal("there is an answer of no server")
	}
	if _, err := writer.Write([]byte("more")); err == nil {
		t.Error("it was read")
	}
}

// TestServerThatHangs: one that accepts connections and says nothing is not waited
// for, also where nothing bounds the request.
func TestServerThatHangs(t *testing.T) {
	t.Parallel()
	address := netip.MustParseAddrPort(meshtest.Listen(t, func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) }))
	host := address.Addr().String()
	s := &Servers{Names: []string{host}, GRPC: int(address.Port()), tls: (&Access{creds: &credentials.Credentials{}}).serverTLS()}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	request := httptest.NewRequestWithContext(ctx, http.MethodPost, "http://servers/ads", nil)
	if _, err := s.XDS().RoundTrip(request); err == nil || ctx.Err() != nil {
		t.Errorf("it gives %v", err)
	}
	if s.failed != host {
		t.Errorf("%q has failed", s.failed)
	}
}

// TestSlowNames: a name that is slow to be found, or is not, keeps nobody from the
// others; and a lookup that takes longer than a request waits is there for the next.
func TestSlowNames(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		look := func(ctx context.Context, name string) ([]string, error) {
			delay, err := time.ParseDuration(name)
			if err != nil {
				return nil, err
			}
			return []string{name}, wait.Pause(ctx, delay)
		}
		for _, test := range []struct {
			names, want []string
			took        time.Duration
		}{
			{[]string{"10ms", "50ms"}, []string{"10ms", "50ms"}, 50 * time.Millisecond},
			{[]string{"5s", "10ms"}, []string{"10ms"}, 10*time.Millisecond + instance.LookupGrace},
			{[]string{"none", "5s"}, []string{"5s"}, 5 * time.Second},
			{[]string{"none"}, nil, 0},
		} {
			begun := time.Now()
			got := lookUp(t.Context(), test.names, look)
			if took := time.Since(begun); !slices.Equal(got, test.want) || took != test.took {
				t.Errorf("%v gives %v after %v", test.names, got, took)
			}
		}
		time.Sleep(time.Minute)
	})
}

// TestWhichServers: what the bound service says comes before mesh.hcl, and its ca
// decides about the ports that mesh.hcl does not name.
func TestWhichServers(t *testing.T) {
	t.Parallel()
	file := droplet.Servers{Addresses: []string{"file"}}
	ports := droplet.Servers{Addresses: []string{"file"}, HTTP: 8080, GRPC: 8081}
	bound := &credentials.Credentials{CA: "a ca", RetryJoin: []string{"bound"}}
	for name, test := range map[string]struct {
		file       droplet.Servers
		creds      *credentials.Credentials
		host       string
		http, grpc int
		tls        bool
	}{
		"nothing bound":        {file, nil, "file", 8500, 8502, false},
		"a ca":                 {file, &credentials.Credentials{CA: "a ca"}, "file", 8501, 8503, true},
		"addresses and a ca":   {file, bound, "bound", 8501, 8503, true},
		"addresses and ports":  {ports, bound, "bound", 8080, 8081, true},
		"ports, nothing bound": {ports, nil, "file", 8080, 8081, false},
	} {
		s := NewServers(&test.file, &Access{creds: test.creds})
		if !slices.Equal(s.Names, []string{test.host}) || s.HTTP != test.http || s.GRPC != test.grpc || (s.tls != nil) != test.tls {
			t.Errorf("%s: %v, %d and %d, TLS %v", name, s.Names, s.HTTP, s.GRPC, s.tls != nil)
		}
	}
}

// TestServersAreVerified: without an agent nothing is said to a server whose
// certificate is not one for it, and none of the moment's CA.
func TestServersAreVerified(t *testing.T) {
	t.Parallel()
	certificate, ca := selfSigned(t, "server.cf.consul")
	_, other := selfSigned(t, "server.cf.consul")
	var asked, named string
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		asked, named = r.Header.Get("X-Consul-Token"), r.TLS.ServerName
	}))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
	server.StartTLS()
	t.Cleanup(server.Close)
	address := server.Listener.Addr().(*net.TCPAddr)
	for name, test := range map[string]struct {
		credentials.Credentials
		sni, want string
	}{
		"a server of the datacenter": {credentials.Credentials{CA: ca, Datacenter: "CF", VerifyServerName: true}, "server.cf.consul", ""},
		"no datacenter":              {credentials.Credentials{CA: ca, VerifyServerName: true}, "", ""},
		"its chain alone":            {credentials.Credentials{CA: ca, Datacenter: "elsewhere"}, "", ""},
		"of another datacenter":      {credentials.Credentials{CA: ca, Datacenter: "elsewhere", VerifyServerName: true}, "", "is not for server.elsewhere."},
		"another ca":                 {credentials.Credentials{CA: other, Datacenter: "cf"}, "", `is not signed by the ca of the bound service "b"`},
	} {
		test.Binding = "b"
		a := &Access{creds: &test.Credentials}
		s := &Servers{Names: []string{address.IP.String()}, HTTP: address.Port, tls: a.serverTLS()}
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://servers/v1/status/leader", nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("X-Consul-Token", name)
		asked, named = "", ""
		response, err := s.API().RoundTrip(request)
		if err == nil {
			response.Body.Close()
		}
		switch {
		case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want) || asked != ""):
			t.Errorf("%s: asked %q, %v", name, asked, err)
		case test.want == "" && (err != nil || asked != name || named != test.sni):
			t.Errorf("%s: asked %q as %q, %v", name, asked, named, err)
		}
	}
}

// selfSigned is a certificate for a name that is its own CA.
func selfSigned(t *testing.T, name string) (certificate tls.Certificate, ca string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), DNSNames: []string{name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	ca = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, ca
}
