package gate

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/consul-mesh/mesh-buildpack/src/mesh/instance"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/wait"
)

// parts are what is otherwise the sidecars, as children of `mesh app`. The zero value
// has none.
type parts struct {
	log  wait.Log
	lost chan error // one has ended, and nobody had told it to
	// outlive says that they end after the command, which may call others until then.
	outlive bool

	mutex    sync.Mutex
	all      []*exec.Cmd // guarded by mutex
	stopping bool        // guarded by mutex
	running  sync.WaitGroup
}

func newParts(log wait.Log) *parts { return &parts{log: log, lost: make(chan error, 2)} }

// start starts a part with the environment that a sidecar has, and further entries.
func (p *parts) start(inst instance.Instance, part string, output io.Writer, further ...string) error {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if p.stopping {
		return nil
	}
	cmd := exec.Command(inst.Program("mesh"), part)
	cmd.Env = append(ownEnvironment(), further...)
	cmd.Stdout, cmd.Stderr = output, output
	cmd.WaitDelay = instance.EnvoyBudget // its Envoy may have the output for a moment longer
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("failed to start `mesh %s`: %w", part, err)
	}
	p.all = append(p.all, cmd)
	p.running.Go(func() {
		err := cmd.Wait()
		p.mutex.Lock()
		defer p.mutex.Unlock()
		if !p.stopping {
			if err == nil {
				err = errors.New("exit status 0")
			}
			p.lost <- fmt.Errorf("`mesh %s` ended: %w", part, err)
		}
	})
	return nil
}

// stop passes SIGTERM on, once.
func (p *parts) stop() { p.signal(syscall.SIGTERM) }

func (p *parts) signal(sig syscall.Signal) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if sig == syscall.SIGTERM && p.stopping {
		return
	}
	p.stopping = true
	for _, cmd := range slices.Backward(p.all) {
		_ = cmd.Process.Signal(sig) // it may have ended
	}
}

// end stops all and waits for them. After a time they are killed.
func (p *parts) end(after time.Duration) {
	p.stop()
	kill := time.AfterFunc(after, func() { p.signal(syscall.SIGKILL) })
	defer kill.Stop()
	p.running.Wait()
}

// standIn runs the parts of an instance that nobody else runs: the platform gives an
// instance no sidecars whose droplet it has not staged for this app.
func (p *parts) standIn(inst instance.Instance, needed []string) error {
	for _, part := range needed {
		if has, err := inst.HasPart(part); has || err != nil {
			return err // a sidecar that is there alone is waiting for the others
		}
	}
	p.log("this instance has no sidecars: a droplet that was copied or uploaded has none. The mesh runs beside the app in its process, whose memory pays for it")
	for _, part := range needed {
		if err := p.start(inst, part, os.Stdout); err != nil {
			return err
		}
	}
	return nil
}
