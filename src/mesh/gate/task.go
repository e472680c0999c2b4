package gate

import (
	"context"
	"errors"
	"os"
	"sync"

	"github.com/google/uuid"

	"github.com/consul-mesh/mesh-buildpack/src/droplet"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/instance"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/registry"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/wait"
)

// runTask runs the command of a task when its mesh is ready, which is a child of this
// process, and ends the mesh when the command has ended. What the command prints is all
// that is printed, unless the mesh fails. replace runs the command in this process's
// place, outside the mesh.
func runTask(ctx context.Context, inst instance.Instance, config droplet.Config, command, environment []string, signals <-chan os.Signal, replace func() (int, error)) (int, error) {
	log := wait.NewLog(os.Stderr) // what a task prints is often read by a program
	inst.GUID = uuid.NewString()  // the platform tells a task none
	grace := instance.Within(config.Lifecycle, instance.Grace)
	mesh := newParts(log)
	mesh.outlive = true
	defer mesh.end(grace)
	said := &lastWords{}
	err := mesh.start(inst, instance.ProxyPart, said, "CF_INSTANCE_GUID="+inst.GUID)
	if err == nil {
		conn, _, waitErr := waitAtGate(ctx, inst, KindApp, signals, mesh.lost)
		if err = waitErr; err == nil {
			defer conn.Close()
			orphaned := func() {
				_, _ = os.Stderr.Write(said.text())
				registry.LeaveOrphaned(ctx, inst, config, log)
			}
			after := stopTimes{0, instance.Within(config.Lifecycle, instance.StopBudget)}
			return supervise(command, environment, conn, signals, after, mesh, orphaned, log)
		}
	}
	mesh.end(grace)
	var overtaken *overtakenError
	if errors.As(err, &overtaken) {
		return 128 + int(overtaken.signal), nil // the command was never started
	}
	_, _ = os.Stderr.Write(said.text())
	if config.Task.Required {
		log("the task was not started")
		return 1, nil
	}
	log("the task runs outside the mesh, as mesh.hcl says (required = false)")
	return replace()
}

// lastWords keeps the end of what is written.
type lastWords struct {
	mutex sync.Mutex
	last  []byte // guarded by mutex
}

const lastWordsSize = 16 << 10

func (w *lastWords) Write(text []byte) (int, error) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	w.last = append(w.last, text...)
	w.last = w.last[max(0, len(w.last)-lastWordsSize):]
	return len(text), nil
}

func (w *lastWords) text() []byte {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	return w.last
}
