package proxy

import (
	"context"
	"sync"
)

// serveTask stays until the task's command has ended, which `mesh app` says with a
// SIGTERM, or Envoy has. Nobody calls a task, so nobody is waited for.
func (p *proxy) serveTask(ctx context.Context) (err error) {
	health, cancel := context.WithCancel(ctx)
	defer cancel()
	go p.registry.Keep(health)
	go p.watchCredentials(health)
	e := p.envoys[0]
	select {
	case <-ctx.Done():
	case <-p.gate.Ended:
	case <-e.Exited:
		err = e.ended()
	}
	cancel()
	var group sync.WaitGroup
	group.Go(p.abandon)
	group.Go(func() { p.registry.Leave(ctx) })
	group.Wait()
	return err
}
