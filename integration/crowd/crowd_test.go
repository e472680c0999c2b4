package crowd

import (
	"context"
	"testing"
	"time"

	"github.com/consul-mesh/mesh-buildpack/integration/binaries"
)

func TestMain(m *testing.M) {
	Main()
	m.Run()
}

// newCrowd starts servers for a test.
func newCrowd(t *testing.T) *Crowd {
	t.Helper()
	programs, err := binaries.Find()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
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
	ctx, cancel := context.WithTimeout(t.Context(), 80*time.Second)
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
	for service, left := range services(7) {
		passing, err := c.Passing(ctx, service)
		if err != nil || passing != left {
			t.Errorf("%d instances of %s pass, want %d: %v", passing, service, left, err)
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
