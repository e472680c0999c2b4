package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/consul-mesh/mesh-buildpack/integration/cell"
)

// taskRuns is how often a task is run in each way.
const taskRuns = 15

// task takes how much longer a task with one call takes through the mesh than without
// one, from the start of its container to the container's end: in a mesh that is in use,
// and alone with the service that it calls.
func task(ctx context.Context, b *bench) (results []result, err error) {
	if err := b.stopCallers(ctx); err != nil {
		return nil, err
	}
	ways := []way{agentless, plain}
	for _, w := range ways {
		service, err := b.start(ctx, w, tcpService, "./echo", 1)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, service.Stop(context.WithoutCancel(ctx))) }()
		if err := service.WaitRunning(ctx); err != nil {
			return nil, err
		}
	}
	if err := b.allPass(ctx, agentless, tcpService, 1); err != nil {
		return nil, err
	}
	take := func(name string) error {
		times, err := b.alternate(ctx, name, taskRuns, ways, b.runTask)
		if err != nil {
			return err
		}
		without := times[plain]
		results = append(results, result{Name: name, Unit: "s", Ours: times[agentless] - without, Plain: &without}.aimedAt(goal{atMost: 0.35}))
		return nil
	}
	if err := take("task-alone"); err != nil {
		return nil, err
	}
	if err := b.startNeighbours(ctx); err != nil {
		return results, err
	}
	return results, errors.Join(take("task"), b.stopNeighbours(ctx))
}

// runTask runs a task that calls the service without requests.
func (b *bench) runTask(ctx context.Context, w way) (time.Duration, error) {
	s, err := b.stage(ctx, w, jobs)
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := warmMemory(perInstance); err != nil {
		return 0, err
	}
	begun := time.Now()
	started, err := b.f.StartTask(ctx, s.app, s.droplet, "curl --silent --fail --output /dev/null http://"+w.address()+"/", cell.TaskOptions{})
	if err != nil {
		return 0, err
	}
	status, err := started.Wait(ctx)
	if err == nil && status.Code != 0 {
		err = fmt.Errorf("a task ended with exit status %d", status.Code)
	}
	return time.Since(begun), err
}
