package registry

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/consul-mesh/mesh-buildpack/src/droplet"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/consul"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/wait"
)

func lasting(d time.Duration) droplet.Duration { return droplet.Duration{Duration: d} }

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
		check droplet.Check
		says  string
	}{
		"a path":                        {droplet.Check{HTTP: plain.URL + "/"}, ""},
		"method, body, header":          {droplet.Check{HTTP: plain.URL + "/post", Method: "POST", Body: "ping", Header: map[string][]string{"X-Probe": {"mesh"}}}, ""},
		"without them":                  {droplet.Check{HTTP: plain.URL + "/post"}, "answers 400"},
		"a name":                        {droplet.Check{HTTP: plain.URL + "/host", Header: map[string][]string{"Host": {"shop.example.com"}}}, ""},
		"another name":                  {droplet.Check{HTTP: plain.URL + "/host"}, "answers 404"},
		"too many requests":             {droplet.Check{HTTP: plain.URL + "/busy"}, ""},
		"a redirect":                    {droplet.Check{HTTP: plain.URL + "/moved"}, ""},
		"a redirect that is the answer": {droplet.Check{HTTP: plain.URL + "/moved", DisableRedirects: true}, "answers 302"},
		"an unknown certificate":        {droplet.Check{HTTP: secure.URL}, "certificate"},
		"any certificate":               {droplet.Check{HTTP: secure.URL, TLSSkipVerify: true}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test.check.Timeout = lasting(10 * time.Second)
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
	patient := droplet.Check{Name: "patient", HTTP: slow.URL, Timeout: lasting(10 * time.Second)}
	hasty := droplet.Check{Name: "hasty", HTTP: slow.URL, Timeout: lasting(100 * time.Millisecond)}
	r := &Registration{}
	r.definition.Checks = []droplet.Check{patient, patient}
	if err := r.AppReady(t.Context()); err != nil {
		t.Error(err)
	}
	r.definition.Checks = append(r.definition.Checks, hasty)
	if err := r.AppReady(t.Context()); err == nil || !strings.Contains(err.Error(), `check "hasty"`) || strings.Contains(err.Error(), "patient") {
		t.Errorf("the app is ready: %v", err)
	}
}

// TestStates: an agent that is told again hears how the checks are, of those that
// it alone runs how they were, and not to deregister the service before long.
func TestStates(t *testing.T) {
	t.Parallel()
	broken := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(broken.Close)
	good := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(good.Close)
	ready, alias := droplet.ReadyCheckID("shop"), droplet.AliasCheckID("shop")
	second, minute := lasting(time.Second), lasting(time.Minute)
	r := &Registration{Service: droplet.Service{ID: "shop"}}
	r.definition.Checks = []droplet.Check{
		{CheckID: "fails", HTTP: broken.URL, Timeout: second, Status: consul.Passing, DeregisterCriticalServiceAfter: minute},
		{CheckID: "reported", TTL: minute}, {CheckID: "never reported", TTL: minute},
	}
	r.sidecar().Checks = []droplet.Check{
		{CheckID: ready, TTL: second},
		{CheckID: alias, AliasService: "shop", Status: consul.Passing},
		{CheckID: "works", HTTP: good.URL, Timeout: second, Status: consul.Critical},
	}
	r.Works.Store(true)
	r.remembered.Store(&map[string]string{"reported": consul.Passing})
	got := map[string]string{}
	body := r.bodyAgain(r.states(t.Context()))
	for _, check := range slices.Concat(body.Checks, body.Connect.SidecarService.Checks) {
		got[check.CheckID] = strings.TrimSpace(fmt.Sprint(check.Status, " ", check.DeregisterCriticalServiceAfter))
	}
	want := map[string]string{
		"fails": "critical", "reported": "passing", "never reported": "critical",
		ready: "", alias: "critical", "works": "passing",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("status and deregistering (-want +got):\n%s", diff)
	}
}

// TestOnIPv6Alone: an app that takes localhost for ::1 is told what to say.
func TestOnIPv6Alone(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Skipf("there is no IPv6 here: %v", err)
	}
	defer listener.Close()
	port := listener.Addr().(*net.TCPAddr).Port
	r := &Registration{network: "tcp", address: wait.Loopback(port)}
	if err := r.AppReady(t.Context()); err == nil || !strings.Contains(err.Error(), `sidecar { local_service_address = "::1" }`) {
		t.Errorf("it says %v", err)
	}
	r.address = listener.Addr().String()
	if err := r.AppReady(t.Context()); err != nil {
		t.Errorf("where it says so: %v", err)
	}
}
