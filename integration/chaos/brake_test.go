package chaos

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/consul-mesh/mesh-buildpack/integration/foundation"
)

// cutFor is longer than a session lives, and shorter than the brake holds after that.
const cutFor = 36 * time.Second

// TestTwoThirdsCutOff: most instances of a service lose the servers and not their
// callers. The others do not take them for dead, and no request is lost.
func TestTwoThirdsCutOff(t *testing.T) { inEachMode(t, true, twoThirdsCutOff) }

func twoThirdsCutOff(t *testing.T) {
	if !mesh.agentless() {
		t.Skip("with agents the gossip decides, which goes on between instances")
	}
	const many, cut = 6, 4
	scale := func(n int) error {
		ctx, cancel := context.WithTimeout(t.Context(), settledWithin)
		defer cancel()
		return errors.Join(mesh.service.Scale(ctx, n), mesh.service.WaitRunning(ctx))
	}
	if err := scale(many); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	unharmed(t, func(context.Context) error {
		for i := range cut {
			restore, err := mesh.CutInstance(mesh.service.Instance(i), foundation.ServersApp)
			if err != nil {
				return err
			}
			defer func() { _ = restore() }() // settled says whether it came back
		}
		<-time.After(cutFor)
		return nil
	})
	held := false
	for _, line := range mesh.service.Logs() {
		held = held || line.Time.After(begun) && strings.Contains(line.Text, "seem dead")
	}
	if !held {
		t.Error("nobody says that most seem dead")
	}
	if err := scale(instances); err != nil {
		t.Fatal(err)
	}
}
