package mesh

import (
	"context"
	"errors"
	"strings"
	"testing"
)

// TestPromotedDroplet: a droplet that was staged elsewhere has no sidecars. Its instances
// run the mesh themselves, and stop, drain and crash as with sidecars.
func TestPromotedDroplet(t *testing.T) { inBothModes(t, promotedDroplet) }

func promotedDroplet(t *testing.T, m mode) {
	app := m.echo(t, "promoted-"+m.name)
	running := running(t, m.launchDroplet(t, app, stage(t, app).Copy()))
	eventually(t, "it is in rotation", inRotation(app.Name))
	waitLog(t, running, "this instance has no sidecars")
	before := running.Instance(0)
	kill(t, before, "envoy")
	waitLog(t, running, "`mesh proxy` ended: exit status 1: the app is stopped")
	eventually(t, "another instance is in rotation", func(ctx context.Context) error {
		if now := running.Instance(0); now == nil || now.GUID() == before.GUID() {
			return errors.New("the instance is the same")
		}
		return inRotation(app.Name)(ctx)
	})
	last := running.Instance(0)
	if err := running.Stop(deadline(t)); err != nil {
		t.Fatal(err)
	}
	for _, said := range []string{"out of rotation", "app ended", "stopped ("} {
		waitLog(t, running, said)
	}
	eventually(t, "the catalog has nothing of it", notInCatalog(shared, last))
}

// TestSidecarsComeLate: sidecars that come when the app runs the mesh itself are idle, and
// those that the app's user has given a droplet without any are used.
func TestSidecarsComeLate(t *testing.T) {
	app := withAgent.echo(t, "late-sidecars")
	droplet := stage(t, app)
	app.Sidecars = droplet.Sidecars // as the user's own
	for i := range app.Sidecars {
		app.Sidecars[i].Command = "sleep 8; " + app.Sidecars[i].Command
	}
	running := running(t, withAgent.launchDroplet(t, app, droplet.Copy()))
	eventually(t, "it is in rotation", inRotation(app.Name))
	for _, part := range []string{"agent", "proxy"} {
		waitLog(t, running, "another `mesh "+part+"` runs in this instance already")
	}
	if got := count(commandLines(t, running.Instance(0)), "bin/consul"); got != 1 {
		t.Errorf("%d agents run", got)
	}
}

// TestRollback: after a rollback the app takes no other droplet, until the sidecars are
// deleted that are the user's since.
func TestRollback(t *testing.T) { inBothModes(t, rollback) }

func rollback(t *testing.T, m mode) {
	app := m.echo(t, "rolled-back-"+m.name)
	droplet := stage(t, app)
	running := m.launchDroplet(t, app, droplet)
	eventually(t, "it is in rotation", inRotation(app.Name))
	if err := running.Rollback(deadline(t), droplet); err != nil {
		t.Fatal(err)
	}
	if err := running.Deploy(deadline(t), droplet); err == nil || !strings.Contains(err.Error(), "Buildpack defined sidecar 'mesh-") {
		t.Errorf("the next droplet is taken: %v", err)
	}
	for _, sidecar := range droplet.Sidecars {
		if err := running.DeleteSidecar(sidecar.Name); err != nil {
			t.Fatal(err)
		}
	}
	if err := running.Deploy(deadline(t), droplet); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is in rotation again", inRotation(app.Name))
}
