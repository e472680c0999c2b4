package cell_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/consul-mesh/mesh-buildpack/integration/cell"
)

// versioned stages the app again, with a file that says which version it is.
func versioned(t *testing.T, c *cell.Cell, a cell.App, version string) *cell.Droplet {
	t.Helper()
	a.Dir = app(t, a.Name, files{"version": version}).Dir
	d, err := c.Stage(timeout(t), a)
	must(t, err)
	return d
}

func version(t *testing.T, i *cell.Instance) string {
	t.Helper()
	text, err := i.ReadFile("/home/vcap/app/version")
	must(t, err)
	return string(text)
}

// events are what the cell did, in its order, e.g. "start 0", "run 0", "stop 1".
func events(r *cell.RunningApp) (all []string) {
	for _, l := range r.Logs() {
		index, isCell := strings.CutPrefix(l.Label, "CELL/")
		for text, event := range map[string]string{"Creating": "start", "Container became healthy": "run", "Stopping": "stop"} {
			if isCell && strings.HasPrefix(l.Text, text) {
				all = append(all, event+" "+index)
			}
		}
	}
	return all
}

// TestDeploy: the new process comes up from its lowest index, the old one goes from
// its highest, and nobody waits for the end of an old instance.
func TestDeploy(t *testing.T) {
	c := newCell(t, cell.Options{})
	a := app(t, "app", files{"version": "one"})
	a.Instances = 3
	a.Command = "exec ./helper -stubborn" // an old one is there for all of its grace
	r := push(t, c, a)
	old := r.Instances()
	seen := len(events(r))
	names := make(chan int)
	ctx, cancel := context.WithCancel(timeout(t))
	go func() {
		most := 0
		for ctx.Err() == nil {
			found, _ := lookup(ctx, r.Instance(0), "1.app.apps.internal")
			most = max(most, len(found))
		}
		names <- most
	}()
	must(t, r.Deploy(timeout(t), versioned(t, c, a, "two")))
	cancel()
	want := []string{"start 0", "run 0", "stop 2", "start 1", "run 1", "stop 1", "start 2", "run 2", "stop 0"}
	got := events(r)[seen:]
	// What an instance does and what its successor does is not in any order.
	for _, pair := range [][2]string{{"start 0", "run 0"}, {"run 0", "stop 2"}, {"run 0", "start 1"}, {"run 1", "stop 1"}, {"run 1", "start 2"}, {"run 2", "stop 0"}} {
		if slices.Index(got, pair[0]) > slices.Index(got, pair[1]) || slices.Index(got, pair[0]) < 0 {
			t.Errorf("got %v, want as in %v", got, want)
			break
		}
	}
	if most := <-names; most < 2 {
		t.Errorf("1.app.apps.internal had %d address at most, want 2: two instances with one index", most)
	}
	for index, i := range r.Instances() {
		if i.Index() != index || slices.Contains(old, i) || i.State() != cell.Running || version(t, i) != "two" {
			t.Errorf("instance %d is %d, %s", index, i.Index(), i.State())
		}
	}
	for _, i := range old {
		if i.State() != cell.Stopped {
			t.Errorf("old instance %d is %s", i.Index(), i.State())
		}
	}
}

// TestDeployWaitsForReadiness, and is cancelled where it does not come.
func TestDeployWaitsForReadiness(t *testing.T) {
	c := newCell(t, cell.Options{})
	a := app(t, "app", files{"version": "one"})
	a.Instances = 2
	a.ReadinessCheck, a.ReadinessPath = cell.HealthHTTP, "/well?file=unready"
	a.Command = "grep -q two version && touch /home/vcap/tmp/unready; exec ./helper"
	r := push(t, c, a)
	old := r.Instances()
	ctx, cancel := context.WithTimeout(timeout(t), 3*time.Second)
	defer cancel()
	err := r.Deploy(ctx, versioned(t, c, a, "two"))
	if err == nil || !strings.Contains(err.Error(), "is not running and ready but running") {
		t.Errorf("got %v", err)
	}
	if got := r.Instances(); !slices.Equal(got, old) || old[0].State() != cell.Running || old[1].State() != cell.Running {
		t.Errorf("the app has %v", got)
	}
	must(t, r.Deploy(timeout(t), versioned(t, c, a, "three")))
	if got := version(t, r.Instance(1)); got != "three" {
		t.Errorf("got %s", got)
	}
}

// TestDeployIsCancelled: instances of the old process that have gone come back.
func TestDeployIsCancelled(t *testing.T) {
	c := newCell(t, cell.Options{RestartDelay: time.Hour})
	a := app(t, "app", files{"version": "one"})
	a.Instances = 2
	a.Command = "grep -q two version && [ $CF_INSTANCE_INDEX = 1 ] && exit 1; exec ./helper"
	r := push(t, c, a)
	gone := r.Instance(1)
	ctx, cancel := context.WithTimeout(timeout(t), 3*time.Second)
	defer cancel()
	if err := r.Deploy(ctx, versioned(t, c, a, "two")); err == nil {
		t.Fatal("it is deployed")
	}
	must(t, r.WaitRunning(timeout(t)))
	if gone.State() != cell.Stopped {
		t.Errorf("the old instance is %s", gone.State())
	}
	if got := fmt.Sprint(version(t, r.Instance(0)), version(t, r.Instance(1))); len(r.Instances()) != 2 || got != "oneone" {
		t.Errorf("%d instances run %s", len(r.Instances()), got)
	}
}

// TestCancelDeployment: the old process has all its instances again at once, while
// the new ones are still stopping.
func TestCancelDeployment(t *testing.T) {
	c := newCell(t, cell.Options{StopGrace: 3 * time.Second})
	a := app(t, "app", files{"version": "one"})
	a.Instances = 3
	a.Command = "if grep -q two version; then [ $CF_INSTANCE_INDEX = 1 ] && exec sleep 1000; exec ./helper -stubborn; fi; exec ./helper"
	r := push(t, c, a)
	before, old := r.Droplet(), r.Instances()
	two := versioned(t, c, a, "two")
	d, err := r.StartDeployment(two)
	must(t, err)
	until(t, "an old instance has gone and the second new one starts", func() bool {
		return old[2].State() == cell.Stopped && slices.Index(events(r)[3:], "start 1") > 0
	})
	for what, err := range map[string]error{"deployed": r.Deploy(timeout(t), two), "scaled": r.Scale(timeout(t), 4)} {
		if err == nil || !strings.Contains(err.Error(), "it is being deployed") {
			t.Errorf("while it was being deployed it was %s: %v", what, err)
		}
	}
	seen := len(r.Logs())
	must(t, r.CancelDeployment(timeout(t)))
	began, gone := -1, -1
	for at, l := range r.Logs()[seen:] {
		switch {
		case strings.HasPrefix(l.Text, "Creating container") && l.Label == "CELL/2":
			began = at
		case strings.HasPrefix(l.Text, "Destroyed container") && l.Label == "CELL/0":
			gone = at
		}
	}
	if began < 0 || gone < began {
		t.Errorf("the old process starts again at line %d, the new one is gone at %d", began, gone)
	}
	if err := d.Wait(timeout(t)); err == nil || !strings.Contains(err.Error(), "it was cancelled") {
		t.Errorf("got %v", err)
	}
	must(t, r.WaitRunning(timeout(t)))
	now := r.Instances()
	if r.Droplet() != before || len(now) != 3 || now[0] != old[0] || now[1] != old[1] || version(t, now[2]) != "one" {
		t.Errorf("%d instances, and the droplet is the one before: %t", len(now), r.Droplet() == before)
	}
	if err := r.CancelDeployment(timeout(t)); err == nil {
		t.Error("it was cancelled once more")
	}
	d, err = r.StartDeployment(versioned(t, c, a, "three"))
	must(t, err)
	must(t, d.Wait(timeout(t)))
	if err := d.Cancel(timeout(t)); err == nil || version(t, r.Instance(2)) != "three" {
		t.Errorf("a deployment that was done is cancelled: %v", err)
	}
}

// TestStopDuringDeployment leaves nothing of either process.
func TestStopDuringDeployment(t *testing.T) {
	c := newCell(t, cell.Options{})
	a := app(t, "app", files{"version": "one"})
	a.Command = "grep -q two version && exec sleep 1000; exec ./helper"
	r := push(t, c, a)
	d, err := r.StartDeployment(versioned(t, c, a, "two"))
	must(t, err)
	until(t, "the new instance starts", func() bool { return len(events(r)) > 2 })
	must(t, r.Stop(timeout(t)))
	if err := d.Wait(timeout(t)); err == nil {
		t.Error("it was deployed")
	}
	for _, i := range r.Instances() {
		if i.State() != cell.Stopped {
			t.Errorf("instance %d is %s", i.Index(), i.State())
		}
	}
}

// TestDeployRestartsOtherProcesses when the web process is done.
func TestDeployRestartsOtherProcesses(t *testing.T) {
	c := newCell(t, cell.Options{})
	a := app(t, "app", files{"version": "one", "Procfile": "web: ./helper\nworker: exec sleep 1000\n"})
	a.Scale = map[string]int{"worker": 1}
	r := push(t, c, a)
	a.Dir = app(t, "app", files{"version": "two", "Procfile": "web: ./helper\nworker: exec sleep 1000\n"}).Dir
	d, err := c.Stage(timeout(t), a)
	must(t, err)
	must(t, r.Deploy(timeout(t), d))
	if got := version(t, r.InstanceOf("worker", 0)); got != "two" {
		t.Errorf("the worker runs %s", got)
	}
}

// TestEvacuate: for a while there are two instances with the same index.
func TestEvacuate(t *testing.T) {
	c := newCell(t, cell.Options{})
	a := app(t, "app", nil)
	a.Instances = 2
	a.Command = "sleep 0.3; exec ./helper -stubborn"
	r := push(t, c, a)
	old, other := r.Instance(1), r.Instance(0)
	evacuated := make(chan error, 1)
	go func() { evacuated <- r.Evacuate(timeout(t), 1) }()
	var next string
	until(t, "two instances have one index", func() bool {
		state := old.State() // of before the answer, which may be late
		found, err := lookup(timeout(t), other, "1.app.apps.internal")
		must(t, err)
		for _, address := range found {
			if address != old.Address() {
				next = address
			}
		}
		if len(found) == 1 && state != cell.Running {
			t.Fatal("the old instance is stopped before there is another")
		}
		return len(found) == 2
	})
	must(t, <-evacuated)
	if now := r.Instance(1); now == old || now.Address() != next || old.State() != cell.Stopped || r.Instance(0) != other {
		t.Errorf("the instance is at %s, and was seen at %s; the old one is %s", now.Address(), next, old.State())
	}
	if err := r.Evacuate(timeout(t), 2); err == nil {
		t.Error("an instance that does not exist was evacuated")
	}
}

// TestEvacuationThatFails leaves the old instance.
func TestEvacuationThatFails(t *testing.T) {
	c := newCell(t, cell.Options{})
	a := app(t, "app", files{"version": "one"})
	a.Command = "grep -q two version && exit 1; exec ./helper"
	r := push(t, c, a)
	old := r.Instance(0)
	must(t, r.Use(versioned(t, c, a, "two")))
	ctx, cancel := context.WithTimeout(timeout(t), time.Second)
	defer cancel()
	if err := r.Evacuate(ctx, 0); err == nil || r.Instance(0) != old || old.State() != cell.Running {
		t.Errorf("got %v, and the old instance is %s", err, old.State())
	}
	// A crash is no restage: the instance keeps its droplet.
	must(t, old.Crash("web"))
	until(t, "another instance", func() bool { return r.Instance(0) != old })
	must(t, r.WaitRunning(timeout(t)))
	if got := version(t, r.Instance(0)); got != "one" {
		t.Errorf("after a crash it runs %s", got)
	}
}
