package foundation

import (
	"context"
	"fmt"
	"syscall"

	"github.com/consul-mesh/mesh-buildpack/integration/cell"
)

// Vanish ends all instances of an app but the first ones at once, as a cell that
// loses its power: no process can do anything. The platform starts none instead.
func Vanish(ctx context.Context, app *cell.RunningApp, left int) (dead []*cell.Instance, err error) {
	dead = app.Instances()[left:]
	for _, instance := range dead {
		processes, err := instance.List()
		if err != nil {
			return nil, err
		}
		for _, process := range processes {
			if process.Pid == 1 || process.HostPid == 0 {
				continue // the container's own, and zombies
			}
			if err := syscall.Kill(process.HostPid, syscall.SIGSTOP); err != nil {
				return nil, err
			}
		}
	}
	scaled := make(chan error, 1)
	go func() { scaled <- app.Scale(ctx, left) }()
	for _, instance := range dead {
		err := Eventually(ctx, "the platform wants it no more", func(context.Context) error {
			if state := instance.State(); state != cell.Stopping {
				return fmt.Errorf("it is %s", state)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		instance.Kill()
	}
	return dead, <-scaled
}
