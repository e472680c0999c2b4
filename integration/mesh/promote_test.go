package mesh

import (
	"strings"
	"testing"
)

// TestPromotedDroplet: a droplet that was staged elsewhere has no sidecars, so that its
// app never starts, unless somebody gives the app those that docs/running.md says.
func TestPromotedDroplet(t *testing.T) { inBothModes(t, promotedDroplet) }

func promotedDroplet(t *testing.T, m mode) {
	app := m.echo(t, "promoted-"+m.name)
	droplet := stage(t, app)
	for _, sidecar := range droplet.Sidecars {
		if _, command, _ := strings.Cut(sidecar.Command, ". "); command != `"$DEPS_DIR/0/sidecar.sh" `+map[string]string{"mesh-consul": "agent", "mesh-envoy": "proxy"}[sidecar.Name] {
			t.Errorf("docs/running.md has another command for %s: %s", sidecar.Name, sidecar.Command)
		}
	}
	app.Sidecars = droplet.Sidecars // as the user's own
	running(t, m.launchDroplet(t, app, droplet.Copy()))
	eventually(t, "it is in rotation", inRotation(app.Name))
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
