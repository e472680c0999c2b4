package runtime

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/consul-mesh/mesh-buildpack/src/droplet"
)

// TestProbeHTTP: a check is run as the agent will run it.
func TestProbeHTTP(t *testing.T) {
	t.Parallel()
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		switch {
		case r.URL.Path == "/moved":
			http.Redirect(w, r, "/", http.StatusFound)
		case r.URL.Path == "/post" && (r.Method != http.MethodPost || string(body) != "ping" || r.Header.Get("X-Probe") != "mesh"):
			w.WriteHeader(http.StatusBadRequest)
		case r.URL.Path == "/host" && r.Host != "shop.example.com":
			w.WriteHeader(http.StatusNotFound)
		case r.URL.Path == "/busy":
			w.WriteHeader(http.StatusTooManyRequests)
		}
	})
	plain, secure := httptest.NewServer(handler), httptest.NewTLSServer(handler)
	t.Cleanup(plain.Close)
	t.Cleanup(secure.Close)
	for name, test := range map[string]struct {
		check map[string]any
		says  string
	}{
		"a path":                        {map[string]any{"http": plain.URL + "/"}, ""},
		"method, body, header":          {map[string]any{"http": plain.URL + "/post", "method": "POST", "body": "ping", "header": map[string]any{"X-Probe": []any{"mesh"}}}, ""},
		"without them":                  {map[string]any{"http": plain.URL + "/post"}, "answers 400"},
		"a name":                        {map[string]any{"http": plain.URL + "/host", "header": map[string]any{"Host": []any{"shop.example.com"}}}, ""},
		"another name":                  {map[string]any{"http": plain.URL + "/host"}, "answers 404"},
		"too many requests":             {map[string]any{"http": plain.URL + "/busy"}, ""},
		"a redirect":                    {map[string]any{"http": plain.URL + "/moved"}, ""},
		"a redirect that is the answer": {map[string]any{"http": plain.URL + "/moved", "disableredirects": true}, "answers 302"},
		"an unknown certificate":        {map[string]any{"http": secure.URL}, "certificate"},
		"any certificate":               {map[string]any{"http": secure.URL, "tlsskipverify": true}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := probe(t.Context(), test.check)
			if test.says == "" && err != nil || test.says != "" && (err == nil || !strings.Contains(err.Error(), test.says)) {
				t.Errorf("probe gives %v, want %q", err, test.says)
			}
		})
	}
}

// TestChecksHaveTheirOwnTimes: checks run side by side, each for as long as its
// timeout says.
func TestChecksHaveTheirOwnTimes(t *testing.T) {
	t.Parallel()
	slow := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
		case <-time.After(300 * time.Millisecond):
		}
	}))
	t.Cleanup(slow.Close)
	patient := map[string]any{"name": "patient", "http": slow.URL, "timeout": "10s"}
	hasty := map[string]any{"name": "hasty", "http": slow.URL, "timeout": "100ms"}
	r := &registration{checks: []map[string]any{patient, patient}}
	if err := r.appReady(t.Context()); err != nil {
		t.Error(err)
	}
	r.checks = append(r.checks, hasty)
	if err := r.appReady(t.Context()); err == nil || !strings.Contains(err.Error(), `check "hasty"`) || strings.Contains(err.Error(), "patient") {
		t.Errorf("the app is ready: %v", err)
	}
}

// TestJudge: an agent that is told again hears how the checks are, and of those
// that it alone runs that they are as they were.
func TestJudge(t *testing.T) {
	t.Parallel()
	broken := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(broken.Close)
	r := &registration{Service: droplet.Service{ID: "shop"}}
	for kind, test := range map[string]struct {
		check map[string]any
		want  any
	}{
		"fails":       {map[string]any{"http": broken.URL, "Status": passing}, critical},
		"says so":     {map[string]any{"http": broken.URL, "status": passing}, critical},
		"of an agent": {map[string]any{"ttl": "10s"}, passing},
		"the ready":   {map[string]any{"CheckID": droplet.ReadyCheckID("shop"), "ttl": "10s"}, nil},
	} {
		r.judge(t.Context(), []map[string]any{test.check})
		if test.check["Status"] != test.want {
			t.Errorf("one that %s is %v, want %v", kind, test.check["Status"], test.want)
		}
	}
}
