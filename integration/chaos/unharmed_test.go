package chaos

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/consul-mesh/mesh-buildpack/integration/cell"
	"github.com/consul-mesh/mesh-buildpack/integration/foundation"
)

// unharmed does what nobody dies of: no request may be lost from its beginning on,
// however late its answer is, nobody is taken for dead, and every process that runs in
// the instances is the one from before.
func unharmed(t *testing.T, do func(ctx context.Context) error) {
	t.Helper()
	var begun time.Time
	var before, after []string
	carry(t, 0, answered, func(ctx context.Context) (time.Time, error) {
		begun = time.Now()
		var err error
		if before, err = running(); err == nil {
			err = do(ctx)
		}
		return begun, err
	})
	after, err := running()
	if err == nil {
		err = foundation.Same(before, after, "not the same processes run as before")
	}
	if err != nil {
		printLogs(t)
		t.Error(err)
	}
	nobodyBuried(t, begun)
}

// running lists the mesh's processes in the instances, each with its id.
func running() (all []string, err error) {
	for _, i := range slices.Concat(mesh.service.Instances(), mesh.caller.Instances()) {
		parts, err := foundation.Parts(i)
		if err != nil {
			return nil, err
		}
		for part, process := range parts {
			all = append(all, fmt.Sprintf("%s/%d %s %d", i.App(), i.Index(), part, process.HostPid))
		}
	}
	return all, nil
}

// nobodyBuried looks at what instances have said since begun.
func nobodyBuried(t *testing.T, begun time.Time) {
	t.Helper()
	for _, app := range []*cell.RunningApp{mesh.service, mesh.caller} {
		for _, line := range app.Logs() {
			if line.Time.After(begun) && strings.Contains(line.Text, "has died and is taken out of the catalog") {
				t.Errorf("one that lives was buried: %v", line)
			}
		}
	}
}
