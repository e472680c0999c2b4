package staging

import (
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// TestAFullDisk: one sentence, and no half of a program, wherever it is full.
func TestAFullDisk(t *testing.T) {
	f := newFoundation(t)
	consul, envoy := f.large(4 << 20)
	for name, test := range map[string]struct {
		size string
		good bool
	}{
		"no room for a download":   {"1m", false},
		"no room for both":         {"6m", false},
		"no room for the unpacked": {"10m", false},
		"room":                     {"20m", true},
	} {
		t.Run(name, func(t *testing.T) {
			deps := f.newDeps()
			cmd, out := f.process(deps, "MESH_TEST_DISK="+test.size)
			alone(cmd, syscall.CLONE_NEWNS)
			err := cmd.Run()
			if test.good {
				if err != nil {
					t.Fatalf("%v\n%s", err, out)
				}
				f.hasPrograms(deps, consul, envoy)
				return
			}
			for _, part := range []string{"no space left on device", "\nhint: the disk of the staging container is full; a larger disk_quota"} {
				if err == nil || !strings.Contains(out.String(), part) {
					t.Errorf("%v, it lacks %q:\n%s", err, part, out)
				}
			}
			if strings.Contains(out.String(), "attempt") {
				t.Errorf("tried more than once:\n%s", out)
			}
			if left := tree(t, deps); len(left) != 0 {
				t.Errorf("deps has %q", left)
			}
		})
	}
}

// TestProxy: downloads go through the proxy that the platform names, and past
// it where NO_PROXY says so.
func TestProxy(t *testing.T) {
	f := newFoundation(t)
	server, err := url.Parse(f.server.URL)
	if err != nil {
		t.Fatal(err)
	}
	var asked []string
	forward := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.Out.URL.Host = server.Host }}
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		asked = append(asked, r.URL.Host+" "+r.Header.Get("Proxy-Authorization"))
		f.mu.Unlock()
		forward.ServeHTTP(w, r)
	}))
	t.Cleanup(proxy.Close)
	address := strings.Replace(proxy.URL, "http://", "http://user:canary@", 1)
	// Nobody but the proxy knows this name.
	f.write(f.buildpack, "manifest.yml", strings.ReplaceAll(f.read("manifest.yml"), f.server.URL, "http://mirror.test"))

	for _, variable := range []string{"HTTP_PROXY", "http_proxy"} {
		cmd, out := f.process(f.newDeps(), variable+"="+address)
		if err := cmd.Run(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if len(asked) != 2 || asked[0] != "mirror.test Basic dXNlcjpjYW5hcnk=" {
			t.Errorf("the proxy was asked for %q", asked)
		}
		if strings.Contains(out.String(), "canary") {
			t.Errorf("the proxy's password is in:\n%s", out)
		}
		asked = nil
		if err := os.RemoveAll(filepath.Join(f.cache, "mesh")); err != nil {
			t.Fatal(err)
		}
	}
	for name, test := range map[string]struct{ env, says string }{
		"past it":              {"HTTP_PROXY=" + address + " NO_PROXY=.test", "lookup mirror.test"},
		"a proxy that is down": {"HTTP_PROXY=http://user:canary@127.0.0.1:1", "connection refused\nhint: the proxy in HTTP_PROXY does not answer"},
	} {
		cmd, out := f.process(f.newDeps(), strings.Fields(test.env)...)
		if strings.Contains(test.env, "NO_PROXY") {
			alone(cmd, syscall.CLONE_NEWNET) // the name is looked up nowhere
		}
		err := cmd.Run()
		if err == nil || !strings.Contains(out.String(), test.says) || strings.Contains(out.String(), "canary") {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
		if len(asked) != 0 {
			t.Errorf("%s: the proxy was asked for %q", name, asked)
		}
	}
}

// TestAuthorities: a mirror's certificate is trusted where the platform trusts
// it, and not otherwise.
func TestAuthorities(t *testing.T) {
	f := newFoundation(t)
	server := httptest.NewTLSServer(f.server.Config.Handler)
	t.Cleanup(server.Close)
	f.write(f.buildpack, "manifest.yml", strings.ReplaceAll(f.read("manifest.yml"), f.server.URL, server.URL))
	authority := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	store := t.TempDir()
	f.write(store, "mirror.crt", string(authority))

	cmd, out := f.process(f.newDeps())
	err := cmd.Run()
	for _, part := range []string{"certificate signed by unknown authority", "hint: the certificate of 127.0.0.1:", "in /etc/ssl/certs, SSL_CERT_FILE, or the folder CF_SYSTEM_CERT_PATH"} {
		if err == nil || !strings.Contains(out.String(), part) {
			t.Errorf("not trusted, it lacks %q: %v\n%s", part, err, out)
		}
	}
	if strings.Contains(out.String(), "attempt") {
		t.Errorf("tried more than once:\n%s", out)
	}
	for _, trust := range []string{"SSL_CERT_FILE=" + store + "/mirror.crt", "SSL_CERT_DIR=" + store} {
		if err := os.RemoveAll(filepath.Join(f.cache, "mesh")); err != nil {
			t.Fatal(err)
		}
		cmd, out := f.process(f.newDeps(), trust)
		if err := cmd.Run(); err != nil {
			t.Errorf("%s: %v\n%s", trust, err, out)
		}
	}
}

// TestMemory: what supply takes does not depend on the size of the programs.
// libbuildpack's installer reads a whole file to hash it.
func TestMemory(t *testing.T) {
	f := newFoundation(t)
	f.large(100 << 20)
	for _, way := range []string{"from the server", "from the cache"} {
		cmd, out := f.process(f.newDeps())
		if err := cmd.Run(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		// ru_maxrss begins with that of the process that started it.
		found := regexp.MustCompile(`VmHWM:\s*(\d+) kB`).FindStringSubmatch(out.String())
		if found == nil {
			t.Fatalf("it does not say how much memory it took:\n%s", out)
		}
		peak, _ := strconv.Atoi(found[1])
		t.Logf("%s: %d MB", way, peak>>10)
		if peak >= 64<<10 {
			t.Errorf("%s: supply took %d MB of memory", way, peak>>10)
		}
	}
}
