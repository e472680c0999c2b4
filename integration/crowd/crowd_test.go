package crowd

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/consul-mesh/mesh-buildpack/integration/binaries"
)

func TestMain(m *testing.M) {
	Main()
	m.Run()
}

// patience is for a machine that is busy with other tests: it takes half a minute.
const patience = 3 * time.Minute

// newCrowd starts servers for a test.
func newCrowd(t *testing.T) *Crowd {
	t.Helper()
	programs, err := binaries.Find()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := New(ctx, programs.Consul(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// TestDieAtOnce: of thirty instances of three services all start, those that die
// without a word are taken out of the catalog, a janitor among them, and nobody else.
func TestDieAtOnce(t *testing.T) {
	c := newCrowd(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	services := func(count int) map[string]int { return map[string]int{"one": count, "two": count, "three": count} }
	first, err := c.Start(services(3), 50*time.Millisecond)
	if err == nil {
		err = c.AwaitPassed(ctx)
	}
	if err != nil {
		t.Fatal(err)
	}
	for service := range services(3) {
		if _, err := c.AwaitJanitor(ctx, service); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Start(services(7), 50*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if err := c.AwaitPassed(ctx); err != nil {
		t.Fatal(err)
	}
	for _, m := range c.Failed() {
		t.Errorf("%s has not started: %v", m.Node, m.Ended)
	}
	killed := time.Now()
	first.Kill()
	if err := c.AwaitOut(ctx, first); err != nil {
		t.Fatal(err)
	}
	t.Logf("out after %.1f s", time.Since(killed).Seconds())
	if there, err := c.Nodes(ctx); err != nil || len(there) != 21 {
		t.Errorf("%d instances are in the catalog, want 21: %v", len(there), err)
	}
	for service, left := range services(7) {
		for passing := 0; passing != left; {
			if passing, err = c.Passing(ctx, service); err != nil || passing > left {
				t.Fatalf("%d instances of %s pass, want %d: %v", passing, service, left, err)
			}
			time.Sleep(look)
		}
	}
	if buried := c.Said(burial, killed); len(buried) < len(first.Members) {
		t.Errorf("%d were said to have died, want %d", len(buried), len(first.Members))
	}
	for _, line := range c.LivingBuried() {
		t.Errorf("%s: %s", line.Node, line.Text)
	}
	if usage, err := c.Usage(); err != nil || usage.Streams < 21 || usage.Connections < 21 {
		t.Errorf("the servers have %+v: %v", usage, err)
	}
}

// TestFront: what a front notes is who has asked, and for how long that was open; what
// changes something takes as long as it is delayed.
func TestFront(t *testing.T) {
	c := newCrowd(t)
	const late = 200 * time.Millisecond
	front, err := c.NewFront(func(r *http.Request) time.Duration {
		if r.Method == http.MethodGet {
			return 0
		}
		return late
	})
	if err != nil {
		t.Fatal(err)
	}
	defer front.Close()
	group, err := c.Start(map[string]int{"one": 2}, 0)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := c.AwaitPassed(ctx); err != nil {
		t.Fatal(err)
	}
	writes := map[string]int{} // by who has asked
	for _, r := range front.Asked(time.Time{}) {
		if r.Method == http.MethodGet {
			continue
		}
		writes[r.From]++
		if took := r.Ended.Sub(r.Begun); !r.Ended.IsZero() && took < late {
			t.Errorf("%s %s took %v", r.Method, r.Path, took)
		}
	}
	for _, m := range group.Members {
		if writes[m.Address.String()] < 8 {
			t.Errorf("%s has written %d times", m.Node, writes[m.Address.String()])
		}
	}
	if least := 8 * late; group.SlowestStart() < least {
		t.Errorf("a start took %v, less than %v", group.SlowestStart(), least)
	}
}
