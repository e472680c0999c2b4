package cell_test

import (
	"context"
	"errors"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/consul-mesh/mesh-buildpack/integration/cell"
)

// TestNameOutlivesSIGTERM: a name is there until the container is gone.
func TestNameOutlivesSIGTERM(t *testing.T) {
	c := newCell(t, cell.Options{})
	a := app(t, "app", nil)
	a.Instances = 2
	a.Command = "exec ./helper -stubborn"
	r := push(t, c, a)
	from, leaving := r.Instance(0), r.Instance(1)
	scaled := make(chan error, 1)
	go func() { scaled <- r.Scale(timeout(t), 1) }()
	if _, err := r.WaitLog(timeout(t), "got SIGTERM"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"app.apps.internal", "1.app.apps.internal"} {
		if found, err := lookup(timeout(t), from, name); err != nil || !slices.Contains(found, leaving.Address()) {
			t.Errorf("%s: got %v %v while an instance is %s", name, found, err, leaving.State())
		}
	}
	must(t, <-scaled)
	if found, err := lookup(timeout(t), from, "1.app.apps.internal"); err != nil || len(found) > 0 {
		t.Errorf("got %v %v of one that is gone", found, err)
	}
}

// TestLose: when a cell dies, names and peers know of its instances for a while.
func TestLose(t *testing.T) {
	const listed = 3 * time.Second
	c := newCell(t, cell.Options{RestartDelay: time.Hour})
	must(t, c.Allow(cell.Policy{Source: "app", Destination: "app", Protocol: "tcp", Start: 8080}))
	a := app(t, "app", nil)
	a.Instances = 2
	r := push(t, c, a)
	from, dead := r.Instance(0), r.Instance(1)
	open, err := from.Dial(timeout(t), "tcp", dead.Address()+":8080")
	must(t, err)
	defer open.Close()
	died := time.Now()
	must(t, c.Lose(dead, listed))
	<-dead.Done()
	until(t, "another instance", func() bool { return r.Instance(1) != dead })
	must(t, r.WaitRunning(timeout(t)))
	next := r.Instance(1)
	want := []string{dead.Address(), next.Address()}
	slices.Sort(want)
	if found, err := lookup(timeout(t), from, "1.app.apps.internal"); err != nil || !slices.Equal(found, want) {
		t.Errorf("got %v %v, want %v", found, err, want)
	}
	// Nobody says that it is gone: what is open stays open, and what is new waits.
	must(t, open.SetReadDeadline(time.Now().Add(300*time.Millisecond)))
	if _, err := open.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the open connection says %v", err)
	}
	ctx, cancel := context.WithTimeout(timeout(t), 300*time.Millisecond)
	defer cancel()
	var timedOut net.Error
	if _, err := from.Dial(ctx, "tcp", dead.Address()+":8080"); !errors.As(err, &timedOut) || !timedOut.Timeout() {
		t.Errorf("the dead instance's address says %v", err)
	}
	for _, l := range r.Logs() {
		if strings.Contains(l.Text, "got SIGTERM") {
			t.Error("it was told to stop")
		}
	}
	until(t, "its name is gone", func() bool {
		found, err := lookup(timeout(t), from, "1.app.apps.internal")
		must(t, err)
		return slices.Equal(found, []string{next.Address()})
	})
	if took := time.Since(died); took < listed {
		t.Errorf("its name was there for %s only", took)
	}
	until(t, "the platform knows that it is gone", func() bool {
		return errors.Is(knock(t, from.Guest, dead.Address()+":8080"), syscall.ENETUNREACH)
	})
	for n := 3; ; n++ { // the address is free a moment later
		must(t, r.Scale(timeout(t), n))
		must(t, r.WaitRunning(timeout(t)))
		if r.Instance(n-1).Address() == dead.Address() {
			break
		}
		if n == 6 {
			t.Fatalf("nobody is given %s again", dead.Address())
		}
	}
	must(t, knock(t, from.Guest, dead.Address()+":8080"))
	for range 4 { // more than are started at once after crashes
		lost := r.Instance(0)
		must(t, c.Lose(lost, 0))
		until(t, "another instance", func() bool { return r.Instance(0) != lost })
	}
}

// TestInternalDNS: slow, empty, failing, and mended.
func TestInternalDNS(t *testing.T) {
	c := newCell(t, cell.Options{})
	i := push(t, c, app(t, "app", nil)).Instance(0)
	_, err := c.OutsideHost(timeout(t), "example.com")
	must(t, err)
	for _, test := range []struct {
		name  string
		ails  cell.InternalDNS
		found int
		fails bool
	}{
		{"slow", cell.InternalDNS{Delay: 500 * time.Millisecond}, 1, false},
		{"empty", cell.InternalDNS{Empty: true}, 0, false},
		{"failing", cell.InternalDNS{Fails: true}, 0, true},
		{"mended", cell.InternalDNS{}, 1, false},
	} {
		c.SetInternalDNS(test.ails)
		began := time.Now()
		found, err := lookup(timeout(t), i, "app.apps.internal")
		took := time.Since(began)
		var failure *net.DNSError
		if fails := errors.As(err, &failure) && failure.IsTemporary; fails != test.fails || len(found) != test.found || err != nil && !fails {
			t.Errorf("%s: got %v %v", test.name, found, err)
		}
		if took < test.ails.Delay {
			t.Errorf("%s: took %s", test.name, took)
		}
		if outside, err := lookup(timeout(t), i, "example.com"); err != nil || len(outside) != 1 {
			t.Errorf("%s: of the host outside it says %v %v", test.name, outside, err)
		}
	}
}
