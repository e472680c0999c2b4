package cell_test

import (
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/consul-mesh/mesh-buildpack/integration/cell"
)

func TestHTTPHealthCheck(t *testing.T) {
	c := newCell(t, cell.Options{})
	a := app(t, "app", nil)
	a.HealthCheck, a.HealthPath = cell.HealthHTTP, "/remote"
	i := push(t, c, a).Instance(0)
	if i.RunningAt().Sub(i.StartedAt()) <= 0 {
		t.Error("no times")
	}
}

// TestUnhealthyInstanceIsKilled: the health check goes on for ever.
func TestUnhealthyInstanceIsKilled(t *testing.T) {
	c := newCell(t, cell.Options{HealthInterval: 50 * time.Millisecond})
	a := app(t, "app", nil)
	a.HealthCheck, a.HealthPath = cell.HealthHTTP, "/well?file=sick"
	r := push(t, c, a)
	first := r.Instance(0)
	<-time.After(500 * time.Millisecond)
	if r.Instance(0) != first || first.State() != cell.Running {
		t.Fatalf("a healthy instance is %s", first.State())
	}
	ssh(t, first, "touch /home/vcap/tmp/sick")
	<-first.Done()
	if got := first.Reason(); first.State() != cell.Crashed || !strings.Contains(got, "http check failed: ") || !strings.Contains(got, "503") {
		t.Errorf("it is %s: %s", first.State(), got)
	}
	if _, err := r.WaitLog(timeout(t), "got SIGTERM"); err != nil {
		t.Error(err)
	}
	until(t, "another instance", func() bool { return r.Instance(0) != first })
	must(t, r.WaitRunning(timeout(t)))
}

// TestReadiness: an instance that is not ready has no routes, and lives on.
func TestReadiness(t *testing.T) {
	c := newCell(t, cell.Options{HealthInterval: 50 * time.Millisecond})
	a := app(t, "app", nil)
	a.ReadinessCheck, a.ReadinessPath = cell.HealthHTTP, "/well?file=unready"
	r := push(t, c, a)
	i := r.Instance(0)
	routed := func() bool {
		response := httptest.NewRecorder()
		c.Router().ServeHTTP(response, httptest.NewRequest("GET", "http://app.localhost/", nil))
		found, err := lookup(timeout(t), i, "app.apps.internal")
		must(t, err)
		switch reason := response.Header().Get("X-Cf-RouterError"); {
		case response.Code == 200 && len(found) == 1:
			return true
		case reason == "no_endpoints" && len(found) == 0:
			return false
		default:
			return i.Routable() // it changed meanwhile
		}
	}
	must(t, i.WaitRoutable(timeout(t)))
	for range 2 {
		until(t, "it has routes", routed)
		ssh(t, i, "touch /home/vcap/tmp/unready")
		until(t, "it has no routes", func() bool { return !routed() })
		if i.State() != cell.Running || r.Instance(0) != i {
			t.Fatalf("it is %s", i.State())
		}
		ssh(t, i, "rm /home/vcap/tmp/unready")
	}
}

func TestFourthStartIsDelayed(t *testing.T) {
	c := newCell(t, cell.Options{RestartDelay: time.Hour})
	a := app(t, "app", files{"Procfile": "web: exit 7\n"})
	d, err := c.Stage(timeout(t), a)
	must(t, err)
	r, err := c.Start(timeout(t), a, d)
	must(t, err)
	crashes := func() (n int) {
		for _, l := range r.Logs() {
			if strings.Contains(l.Text, "crashed: APP/PROC/WEB/0: exit status 7") {
				n++
			}
		}
		return n
	}
	until(t, "four crashes", func() bool { return crashes() == 4 })
	last := r.Instance(0)
	<-last.Done()
	must(t, r.Delete(timeout(t)))
	if got := crashes(); got != 4 || r.Instance(0) != last || c.App("app") != nil {
		t.Errorf("got %d crashes", got)
	}
}

// pauses are how long the cell waited before each instance but the first.
func pauses(r *cell.RunningApp) (all []time.Duration) {
	var gone time.Time
	for _, l := range r.Logs() {
		switch {
		case strings.HasPrefix(l.Text, "Destroyed container"):
			gone = l.Time
		case strings.HasPrefix(l.Text, "Creating container") && !gone.IsZero():
			all = append(all, l.Time.Sub(gone))
		}
	}
	return all
}

func TestRestartsBackOff(t *testing.T) {
	if os.Getenv(nestedEnv) != "" {
		t.Skip("once is enough")
	}
	const delay = 150 * time.Millisecond
	for _, test := range []struct {
		name, command string
		want          []time.Duration
	}{
		{"it never stays up", "exit 7", []time.Duration{0, 0, 0, delay, 2 * delay, 4 * delay}},
		{"it was up for a while", "sleep 1.6; exit 7", []time.Duration{0, 0, 0, 0, 0}},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := newCell(t, cell.Options{RestartDelay: delay})
			a := app(t, "app", files{"Procfile": "web: " + test.command + "\n"})
			a.HealthCheck = cell.HealthProcess
			d, err := c.Stage(timeout(t), a)
			must(t, err)
			r, err := c.Start(timeout(t), a, d)
			must(t, err)
			until(t, "it has crashed often enough", func() bool { return len(pauses(r)) >= len(test.want) })
			for i, got := range pauses(r)[:len(test.want)] {
				if want := test.want[i]; got < want || got >= want+delay {
					t.Errorf("start %d came after %s, want %s", i+2, got, want)
				}
			}
		})
	}
}
