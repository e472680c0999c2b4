package runtime

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/consul-mesh/mesh-buildpack/src/credentials"
)

// boundInstance is an instance with a bound service, whose private folder goes
// with the test.
func boundInstance(t *testing.T, agent, app, binding string) (Instance, string) {
	t.Helper()
	application, err := json.Marshal(map[string]string{"application_name": app, "process_type": "web"})
	if err != nil {
		t.Fatal(err)
	}
	inst := instanceOf(t, map[string]string{"agent.json": agent, "mesh.json": `{"services": []}`}, map[string]string{
		"VCAP_APPLICATION": string(application), "CF_INSTANCE_GUID": uuid.NewString()[:28], "CF_INSTANCE_INTERNAL_IP": "10.255.0.4",
		"VCAP_SERVICES": `{"user-provided":[{"name":"b","tags":["consul"],"credentials":` + binding + `}]}`,
	})
	dir, err := inst.privateDir()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return inst, dir
}

// TestOverlayOfABoundService: what is secret is in files of our own, and text
// from outside stays text.
func TestOverlayOfABoundService(t *testing.T) {
	t.Parallel()
	const agent = `{"datacenter": "dc1", "retry_join": ["there"], "log_level": "warn"}`
	inst, dir := boundInstance(t, agent, "\"}, acl { enabled = false }\n#", `{"token": "tok${}", "retry_join": ["a\"b"], "datacenter": "cf",
		"gossip_key": "aPuGh+5UDskRAbkLaXRzFoSOcSM+5vAK+NEYOWHJH7w=", "default_policy": "deny"}`)
	files, err := writeOverlay(inst)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{filepath.Join(dir, "staged.json"), filepath.Join(dir, "agent.json")}, files); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	var staged, overlay map[string]any
	for i, into := range []*map[string]any{&staged, &overlay} {
		if err := readJSON(files[i], into); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(files[i])
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", files[i], info.Mode(), err)
		}
	}
	if diff := cmp.Diff(map[string]any{"datacenter": "dc1", "log_level": "warn"}, staged); diff != "" {
		t.Errorf("staged (-want +got):\n%s", diff)
	}
	local := object(object(overlay["acl"])["tokens"])["agent_recovery"]
	for key, want := range map[string]any{
		"datacenter": "cf", "retry_join": []any{`a"b`}, "encrypt": "aPuGh+5UDskRAbkLaXRzFoSOcSM+5vAK+NEYOWHJH7w=",
		"default_intention_policy": "deny", "data_dir": filepath.Join(dir, "consul"), "tls": nil, "auto_encrypt": nil,
		"acl": map[string]any{"enabled": true, "default_policy": "deny", "down_policy": "extend-cache",
			"tokens": map[string]any{"agent": "tok${}", "agent_recovery": local}},
	} {
		if diff := cmp.Diff(want, overlay[key]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", key, diff)
		}
	}
	if text, _ := local.(string); len(text) != 36 {
		t.Errorf("the local token is %q", text)
	}
	inst.removePrivate()
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the private folder is still there: %v", err)
	}
}

// TestDefaultPolicy: the file may open what the binding closes.
func TestDefaultPolicy(t *testing.T) {
	t.Parallel()
	for agent, want := range map[string]string{`{}`: "deny", `{"default_intention_policy": "allow"}`: "allow"} {
		inst, _ := boundInstance(t, agent, "app", `{"token": "t"}`)
		files, err := writeOverlay(inst)
		if err != nil {
			t.Fatal(err)
		}
		var overlay map[string]any
		if err := readJSON(files[len(files)-1], &overlay); err != nil {
			t.Fatal(err)
		}
		if got := overlay["default_intention_policy"]; got != want {
			t.Errorf("%s: %v", agent, got)
		}
	}
}

// TestDue: a login is renewed in time, however far off the servers' clock is.
func TestDue(t *testing.T) {
	for _, off := range []time.Duration{-time.Hour, 0, time.Hour} {
		for age, want := range map[time.Duration]bool{30 * time.Second: false, 50 * time.Second: true} {
			since := time.Now().Add(-age)
			created := since.Add(off)
			expires := created.Add(time.Minute)
			a := access{login: &login{CreateTime: created, ExpirationTime: &expires, since: since}}
			if got := a.due(); got != want {
				t.Errorf("servers %s ahead, a minute's login of %s ago: due is %t, want %t", off, age, got, want)
			}
		}
	}
}

// TestPrivateDir: a folder that others may look into is not taken.
func TestPrivateDir(t *testing.T) {
	t.Parallel()
	inst, dir := boundInstance(t, `{}`, "app", `{"token": "t"}`)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	other, err := inst.privateDir()
	if other == dir {
		t.Errorf("an open folder is taken: %v", err)
	}
}

// TestXDS: every stream has the token of the moment, whatever Envoy says, and
// new tokens make new streams.
func TestXDS(t *testing.T) {
	t.Parallel()
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	agent := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Header.Get(tokenHeader)+"\n")
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

	a := &access{dir: t.TempDir(), service: "first"}
	x, err := newXDS(t.Context(), a, &http.Transport{Protocols: &protocols}, agent.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = x.server.Close() })
	envoy := &http.Client{Transport: &http.Transport{Protocols: &protocols, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", x.socket)
	}}}
	stream := func() (io.WriteCloser, io.ReadCloser) {
		t.Helper()
		read, write := io.Pipe()
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://agent/ads", read)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set(tokenHeader, "envoy's own")
		response, err := envoy.Do(request)
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
	a.mutex.Lock()
	a.service = "second"
	a.mutex.Unlock()
	x.renew()
	if _, err := io.ReadAll(body); err == nil {
		t.Error("the old stream ended as if all were well")
	}
	write, body = stream()
	expect(body, "second\n")
	write.Close()
	body.Close()
}

// TestHandshake: what is wrong with a server's certificate is said in words.
func TestHandshake(t *testing.T) {
	t.Parallel()
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.StartTLS()
	t.Cleanup(server.Close)
	certificate := server.TLS.Certificates[0]
	trusted := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
	consul := listen(t, func(conn net.Conn) {
		var first [1]byte
		if _, err := io.ReadFull(conn, first[:]); err == nil && first[0] == rpcTLS {
			_ = tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{certificate}}).Handshake()
		}
	})
	mute := listen(t, func(net.Conn) {})
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

// listen serves every connection of a port on loopback.
func listen(t *testing.T, serve func(net.Conn)) (address string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				serve(conn)
			}()
		}
	}()
	return listener.Addr().String()
}
