package chaos

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/consul-mesh/mesh-buildpack/integration/cell"
	"github.com/consul-mesh/mesh-buildpack/integration/foundation"
	"github.com/consul-mesh/mesh-buildpack/integration/load"
	"github.com/consul-mesh/mesh-buildpack/src/droplet"
)

// rate of the load that goes on through every fault, and how long it goes on
// when everything looks right.
const (
	rate      = 100
	afterward = time.Second
)

// answered bounds the time until a request counts as lost where the short form
// lets none be.
const answered = 20 * time.Second

// settledWithin bounds the time until the catalog equals what runs. A node that
// has died in silence is marked failed after 6 s and is reaped within 40 s
// after that (advertise_reconnect_timeout); without an agent it is gone after
// 20 s. A caller that has ejected an address leaves it alone for 30 s, and for
// 30 s more each time in a row.
const settledWithin = 2 * time.Minute

// settled returns nil when the catalog, the callers' Envoys and the containers
// have what is to run, and nothing else.
func (s *system) settled(ctx context.Context) error {
	for _, check := range []func(context.Context) error{s.allRun, s.catalogIsRight, s.signsAreRight, s.callersAreRight, s.nothingIsLeft} {
		if err := check(ctx); err != nil {
			return err
		}
	}
	return nil
}

// all are the instances that are in the mesh, of every mode.
func (s *system) all() (all []*cell.Instance) {
	for _, one := range systems {
		all = slices.Concat(all, one.service.Instances(), one.caller.Instances())
	}
	return all
}

func (s *system) allRun(context.Context) error {
	for _, i := range s.all() {
		if i.State() != cell.Running {
			return fmt.Errorf("instance %d of %s is %s", i.Index(), i.App(), i.State())
		}
	}
	return nil
}

func (s *system) catalogIsRight(ctx context.Context) error { return s.CatalogIs(ctx, s.all()...) }

// signsAreRight compares the signs of life of instances without agents: one key and one
// session for each, and a key of the janitor for each app.
func (s *system) signsAreRight(ctx context.Context) error {
	var want, got []string
	for _, one := range systems {
		if !one.agentless() {
			continue
		}
		for _, app := range []string{one.service.App().Name, one.caller.App().Name} {
			want = append(want, "key "+droplet.JanitorKey(app, app, "web"))
		}
		for _, i := range slices.Concat(one.service.Instances(), one.caller.Instances()) {
			node := foundation.NodeOf(i)
			want = append(want, "key "+droplet.AliveKeys(i.App())+node, "session of "+node)
		}
	}
	var keys []string
	if err := s.Consul(ctx, http.MethodGet, "/v1/kv/?keys", nil, &keys); err != nil {
		return err
	}
	for _, key := range keys {
		got = append(got, "key "+key)
	}
	var sessions []struct{ Node string }
	if err := s.Consul(ctx, http.MethodGet, "/v1/session/list", nil, &sessions); err != nil {
		return err
	}
	for _, session := range sessions {
		got = append(got, "session of "+session.Node)
	}
	return foundation.Same(want, got, "the signs of life are not those of what runs")
}

func (s *system) callersAreRight(ctx context.Context) error {
	for _, one := range systems {
		for _, i := range one.caller.Instances() {
			if err := foundation.EndpointsAre(ctx, i, one.service); err != nil {
				return err
			}
		}
	}
	return nil
}

// privateFiles are what the sidecars may have in their folder, or how its name
// begins. (What is secret is in memory, and ends with the container.)
var privateFiles = []string{"agent.lock", "proxy.lock", "proxy.sock", "consul.pid", "consul.log", "envoy-", "bootstrap-"}

// nothingIsLeft looks at processes and files, in the containers and around
// them.
func (s *system) nothingIsLeft(context.Context) error {
	known := map[int]bool{}
	guests := append(s.all(), s.Servers.Instances()...)
	for _, i := range guests {
		processes, err := i.List()
		if err != nil {
			return err
		}
		count := map[foundation.Part]int{}
		for _, process := range processes {
			known[process.HostPid] = true
			if process.State == "Z" || process.State == "T" {
				return fmt.Errorf("%s/%d has process %v in state %s", i.App(), i.Index(), process.Args, process.State)
			}
			count[foundation.PartOf(process.Args)]++
		}
		delete(count, "")
		for part, n := range count {
			if n != 1 {
				return fmt.Errorf("%s/%d has %d processes that are %s", i.App(), i.Index(), n, part)
			}
		}
		if i.App() == foundation.ServersApp {
			continue
		}
		if err := privateFolder(i); err != nil {
			return err
		}
	}
	if err := noStrangers(known); err != nil {
		return err
	}
	roots, err := filepath.Glob(filepath.Join(filepath.Dir(os.TempDir()), "cell*", "root*"))
	if err == nil && len(roots) != len(guests) {
		err = fmt.Errorf("%d containers have left %d folders on the cell", len(guests), len(roots))
	}
	return err
}

func privateFolder(i *cell.Instance) error {
	output, _, err := i.SSH(context.Background(), "ls -A /home/vcap/"+droplet.RunDir)
	if err != nil {
		return err
	}
	for _, name := range strings.Fields(output) {
		if !slices.ContainsFunc(privateFiles, func(known string) bool { return strings.HasPrefix(name, known) }) {
			return fmt.Errorf("%s/%d has left %s in %s", i.App(), i.Index(), name, droplet.RunDir)
		}
	}
	return nil
}

// noStrangers: all processes of the mesh belong to an instance.
func noStrangers(known map[int]bool) error {
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return err
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		var pid int
		if _, err := fmt.Sscanf(file, "/proc/%d/", &pid); err != nil {
			return err
		}
		if part := foundation.PartOf(strings.Split(string(text), "\x00")); part != "" && !known[pid] {
			return fmt.Errorf("process %d, %s, belongs to no instance", pid, part)
		}
	}
	return nil
}

// survive does a fault under load and waits until all is well again. Callers
// have recovered in time when the last request that is lost was due within the
// bound. It is counted from the moment that do returns: when the fault began,
// or when it was undone. The short form, which has other tests beside it, shows that
// they do recover, and leaves it to the long one how soon.
func survive(t *testing.T, bound time.Duration, do func(ctx context.Context) (from time.Time, err error)) load.Result {
	t.Helper()
	var timeout time.Duration // the load's own
	switch {
	case long:
	case bound == 0:
		timeout = answered
	default:
		bound = 3*bound + 2*time.Second
	}
	return carry(t, bound, timeout, do)
}

// carry is survive with a timeout for each answer, and no more time in the short form.
func carry(t *testing.T, bound, timeout time.Duration, do func(ctx context.Context) (from time.Time, err error)) load.Result {
	t.Helper()
	roll(t)
	ctx, cancel := context.WithTimeout(t.Context(), 3*settledWithin)
	defer cancel()
	wait(t, ctx, "all is well before")
	requests := load.Start(load.Plan{
		Kind: load.HTTP, Target: fmt.Sprintf("http://127.0.0.1:%d/slow?ms=5", port), Rate: rate, Timeout: timeout,
		Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			return mesh.caller.Instance(0).Dial(ctx, network, address)
		},
	})
	from, err := do(ctx)
	if err != nil {
		t.Error(err)
	}
	wait(t, ctx, "all is well after")
	took := time.Since(from)
	<-time.After(afterward)
	result := requests.Stop()
	t.Logf("settled after %.1f s; %v", took.Seconds(), result)
	if result.Lost > 0 {
		recovered := result.LastLoss.Sub(from)
		t.Logf("callers had recovered after %.2f s, the bound is %.1f s", recovered.Seconds(), bound.Seconds())
		if recovered > bound {
			printLogs(t)
			t.Errorf("callers had recovered after %.2f s, want %.1f s at most", recovered.Seconds(), bound.Seconds())
		}
	}
	return result
}

func wait(t *testing.T, ctx context.Context, what string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, settledWithin)
	defer cancel()
	err := foundation.Eventually(ctx, what, mesh.settled)
	if err == nil {
		return
	}
	printLogs(t)
	t.Fatal(errors.Join(err, context.Cause(t.Context())))
}

// printLogs prints what the apps have said last.
func printLogs(t *testing.T) {
	t.Helper()
	for _, app := range []*cell.RunningApp{mesh.service, mesh.caller} {
		lines := app.Logs()
		for _, line := range lines[max(0, len(lines)-120):] {
			t.Log(line)
		}
	}
}
