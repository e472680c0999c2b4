package cell_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/consul-mesh/mesh-buildpack/integration/cell"
)

// conflict is the Cloud Controller's sentence.
const conflict = "Buildpack defined sidecar 'side' conflicts with an existing user-defined sidecar. Consider renaming 'side'."

func TestPoliciesBelongToGUIDs(t *testing.T) {
	c := newCell(t, cell.Options{})
	front, back := push(t, c, app(t, "front", nil)), push(t, c, app(t, "back", nil))
	policy := cell.Policy{Source: "front", Destination: "back", Protocol: "tcp", Start: 8080, End: 8080}
	must(t, c.Allow(policy))
	must(t, knock(t, front.Instance(0).Guest, back.Instance(0).Address()+":8080"))

	guid := back.GUID()
	back = push(t, c, app(t, "back", nil))
	if back.GUID() != guid {
		t.Error("an app that is pushed again has another GUID")
	}
	must(t, knock(t, front.Instance(0).Guest, back.Instance(0).Address()+":8080"))

	must(t, back.Delete(timeout(t)))
	back = push(t, c, app(t, "back", nil))
	if back.GUID() == guid {
		t.Error("an app that was deleted and pushed again has its GUID of before")
	}
	if err := knock(t, front.Instance(0).Guest, back.Instance(0).Address()+":8080"); err == nil {
		t.Error("an app that was deleted and pushed again is reached by a policy of before")
	}
	if got := c.Policies(); len(got) > 0 {
		t.Errorf("got policies %v", got)
	}
}

func TestCopiedDropletsHaveNoSidecars(t *testing.T) {
	c := newCell(t, cell.Options{})
	a := withSidecar(t, "staging", 64)
	staged := push(t, c, a)
	if got := processNames(staged); !slices.Equal(got, []string{"WEB", "side"}) {
		t.Errorf("got %q", got)
	}
	a.Name = "production"
	r, err := c.Start(timeout(t), a, staged.Droplet().Copy())
	must(t, err)
	must(t, r.WaitRunning(timeout(t)))
	if got := processNames(r); !slices.Equal(got, []string{"WEB"}) {
		t.Errorf("got %q", got)
	}
	// Assigned to an app that had sidecars, it takes them away.
	must(t, staged.Deploy(timeout(t), staged.Droplet().Copy()))
	if got := processNames(staged); !slices.Equal(got, []string{"WEB"}) {
		t.Errorf("got %q", got)
	}
}

func TestRollbackMakesSidecarsTheUsers(t *testing.T) {
	c := newCell(t, cell.Options{})
	a := withSidecar(t, "app", 64)
	r := push(t, c, a)
	first := r.Droplet()
	must(t, r.Deploy(timeout(t), stage(t, c, a)))

	must(t, r.Rollback(timeout(t), first))
	if got := processNames(r); !slices.Equal(got, []string{"WEB", "side"}) {
		t.Errorf("got %q", got)
	}
	running := r.Instance(0)
	next := stage(t, c, a)
	_, pushed := c.Start(timeout(t), a, next)
	for what, err := range map[string]error{
		"a deployment": r.Deploy(timeout(t), next), "a restage": r.Use(next),
		"a rollback": r.Rollback(timeout(t), first), "a push": pushed,
	} {
		if err == nil || !strings.Contains(err.Error(), conflict) {
			t.Errorf("%s: got %v", what, err)
		}
	}
	if r.Instance(0) != running || running.State() != cell.Running || r.Droplet() == next {
		t.Error("what was refused has changed the app")
	}

	must(t, r.DeleteSidecar("side"))
	if err := r.DeleteSidecar("side"); err == nil {
		t.Error("a sidecar was deleted twice")
	}
	must(t, r.Deploy(timeout(t), next))
	if got := processNames(r); !slices.Equal(got, []string{"WEB", "side"}) {
		t.Errorf("got %q", got)
	}
}

func TestSidecarsThatLeaveNothing(t *testing.T) {
	c := newCell(t, cell.Options{})
	a := withSidecar(t, "app", 64)
	r := push(t, c, a)
	large := stage(t, c, withSidecar(t, "app", 1024))
	_, err := c.Start(timeout(t), a, large)
	for what, err := range map[string]error{"a push": err, "a deployment": r.Deploy(timeout(t), large)} {
		if err == nil || !strings.Contains(err.Error(), "An unknown error occurred") || strings.Contains(err.Error(), "memory") {
			t.Errorf("%s: got %v", what, err)
		}
	}
	i := r.Instance(0)
	if i.State() != cell.Running {
		t.Error("what was refused has changed the app")
	}
	if got := environment(t, i, i.Processes()[0].Pid)["MEMORY_LIMIT"]; got != "960m" {
		t.Errorf("beside a sidecar with 64 of 1024 MB the app is told of %s", got)
	}
}

// withSidecar has a buildpack with a sidecar of so many MB.
func withSidecar(t *testing.T, name string, memory int) cell.App {
	a := app(t, name, nil)
	a.Buildpacks = []cell.Buildpack{buildpack(t, "side", files{
		"bin/supply": fmt.Sprintf(`#!/bin/bash
cat > $3/$4/launch.yml <<EOF
processes:
- {type: side, command: exec sleep 1000, limits: {memory: %d}, platforms: {cloudfoundry: {sidecar_for: [web]}}}
EOF
`, memory),
	}), plain(t)}
	return a
}

func stage(t *testing.T, c *cell.Cell, a cell.App) *cell.Droplet {
	t.Helper()
	d, err := c.Stage(timeout(t), a)
	must(t, err)
	return d
}

func processNames(r *cell.RunningApp) (names []string) {
	for _, p := range r.Instance(0).Processes() {
		names = append(names, p.Name)
	}
	return names
}
