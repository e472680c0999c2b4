package cell

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/consul-mesh/mesh-buildpack/integration/container"
)

// readinessKind is HealthProcess where an instance is ready as soon as it is running.
func (i *Instance) readinessKind() string {
	if i.processType != webProcess {
		return HealthProcess
	}
	return i.run.app.ReadinessCheck
}

// healthKind is how the platform tells whether the instance is well.
func (i *Instance) healthKind() string {
	if i.processType != webProcess {
		return HealthProcess
	}
	return i.run.app.HealthCheck
}

// waitHealthy returns when the health check passes for the first time.
func (i *Instance) waitHealthy(ctx context.Context) error {
	patience := i.run.app.HealthTimeout
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	kind := i.healthKind()
	err := i.checkUntil(ctx, kind, i.run.app.HealthPath, true, i.cell.options.StartupInterval)
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("instance never healthy after %s: %s check on port %s failed", patience, kind, appPort)
	}
	return err
}

// stayHealthy returns an error when the health check of a running instance fails.
func (i *Instance) stayHealthy(ctx context.Context) error {
	return i.checkUntil(ctx, i.healthKind(), i.run.app.HealthPath, false, i.cell.options.HealthInterval)
}

// watchReadiness takes the instance off its routes while its readiness check
// fails. One that is not ready is checked as often as one that starts.
func (i *Instance) watchReadiness(ctx context.Context) {
	kind, path := i.readinessKind(), i.run.app.ReadinessPath
	for kind != HealthProcess {
		if i.checkUntil(ctx, kind, path, true, i.cell.options.StartupInterval) != nil {
			return // the instance has ended
		}
		i.setReady(true)
		i.log("Container became ready: instance %s", i.guid)
		err := i.checkUntil(ctx, kind, path, false, i.cell.options.HealthInterval)
		if ctx.Err() != nil {
			return // while it stops its routes are what they are
		}
		i.setReady(false)
		i.log("Container became not ready: instance %s: %s", i.guid, err)
	}
}

// checkUntil checks until the check passes, or fails: then it returns why. The
// first check is made at once if it is to pass.
func (i *Instance) checkUntil(ctx context.Context, kind, path string, passes bool, interval time.Duration) error {
	for first := passes; ; first = false {
		if !first {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(interval):
			}
		}
		err := i.check(ctx, kind, path)
		var failed *checkError
		if (err == nil) == passes || err != nil && !errors.As(err, &failed) {
			return err
		}
	}
}

// checkError is what a check that was made has found.
type checkError struct{ text string }

func (e *checkError) Error() string { return e.text }

// check runs the platform's program in the container.
func (i *Instance) check(ctx context.Context, kind, path string) error {
	if kind == HealthProcess {
		return ctx.Err() // the end of a process ends the instance anyway
	}
	const program = "/tmp/lifecycle/healthcheck"
	args := []string{program, "-port", appPort}
	if kind == HealthHTTP {
		args = append(args, "-uri", path)
	}
	var out syncBuffer
	p, err := i.ctr.Run(container.Process{Path: program, Args: args, Stdout: &out, Stderr: &out})
	if err != nil {
		return fmt.Errorf("failed to check the health: %w", err)
	}
	status, err := p.Wait(ctx)
	if err == nil && status.Code != 0 {
		err = &checkError{fmt.Sprintf("%s check failed: %s", kind, strings.TrimSpace(out.String()))}
	}
	return err
}
