package staging

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestProxyRefuses: what a proxy refuses is not taken for the server's word, is named
// with its variable, and is tried again only where that makes sense.
func TestProxyRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		scheme, variable, user string
		status, asked          int // asked at least, of two programs
		says                   []string
	}{
		"no password": {"https", "HTTPS_PROXY", "", 407, 1,
			[]string{"of HTTPS_PROXY says 407 Proxy Authentication Required", "hint: HTTPS_PROXY needs the proxy's user and password: http://USER:PASSWORD@127.0.0.1:"}},
		"a wrong password": {"https", "https_proxy", "user:canary@", 407, 1,
			[]string{"of https_proxy says 407", "hint: the proxy does not take the user and password in https_proxy"}},
		"a forbidden host": {"https", "HTTPS_PROXY", "", 403, 1,
			[]string{"of HTTPS_PROXY says 403 Forbidden", "hint: the proxy has to let staging reach mirror.test; NO_PROXY names"}},
		"a proxy in trouble": {"https", "HTTPS_PROXY", "", 503, 3,
			[]string{"in 3 attempts: the proxy 127.0.0.1:", "of HTTPS_PROXY says 503 Service Unavailable"}},
		"git": {"git+https", "HTTPS_PROXY", "", 407, 1,
			[]string{"response 407", "hint: it is the proxy 127.0.0.1:", "of HTTPS_PROXY that refuses"}},
		"plain HTTP": {"http", "HTTP_PROXY", "", 407, 1,
			[]string{"of HTTP_PROXY says 407", "hint: HTTP_PROXY needs"}},
		"plain HTTP that is forbidden": {"http", "HTTP_PROXY", "", 403, 1,
			[]string{"of HTTP_PROXY, or the server behind it, says 403 Forbidden"}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFoundation(t)
			asked := map[string]int{}
			proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				f.mu.Lock()
				defer f.mu.Unlock()
				asked[r.URL.Path]++
				w.WriteHeader(test.status)
			}))
			t.Cleanup(proxy.Close)
			f.write(f.buildpack, "manifest.yml", strings.ReplaceAll(f.read("manifest.yml"), f.server.URL, strings.TrimPrefix(test.scheme, "git+")+"://mirror.test"))
			if strings.HasPrefix(test.scheme, "git+") {
				const source = "  source = \"git::https://mirror.test/%s//%[1]s?ref=v1\"\n  sha256 = \"%s\"\n"
				text := "service \"web\" {}\n"
				for _, program := range []string{"consul", "envoy"} {
					text += program + " {\n" + fmt.Sprintf(source, program, strings.Repeat("0", 64)) + "}\n"
				}
				f.write(f.app, "mesh.hcl", text)
			}
			// Blanks around the address are none of it.
			cmd, out := f.process(f.newDeps(), test.variable+"= "+strings.Replace(proxy.URL, "http://", "http://"+test.user, 1)+" ")
			err := cmd.Run()
			for _, part := range test.says {
				if err == nil || !strings.Contains(out.String(), part) {
					t.Errorf("it lacks %q: %v\n%s", part, err, out)
				}
			}
			if text := out.String(); strings.Contains(text, "canary") || strings.Contains(text, "or set "+test.variable) {
				t.Errorf("it says too much:\n%s", text)
			}
			f.mu.Lock()
			defer f.mu.Unlock()
			most := 0
			for _, n := range asked {
				most += n
			}
			if most < test.asked || most > 2*test.asked {
				t.Errorf("it was asked %d times, for %v", most, asked)
			}
		})
	}
}
