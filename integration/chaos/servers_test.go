package chaos

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"syscall"
	"testing"
	"time"

	"github.com/consul-mesh/mesh-buildpack/integration/cell"
	"github.com/consul-mesh/mesh-buildpack/integration/foundation"
)

// leaderless is how long a server that is cut off from the others may go on as if it
// knew a leader. It is shorter than the cut.
const leaderless = 8 * time.Second

// TestServerWithoutLeader: a server loses the other two, still answers, and has only
// errors for whoever needs a leader. Names may fail meanwhile: then instances go on to
// the servers that they have known last.
func TestServerWithoutLeader(t *testing.T) {
	inEachMode(t, true, serverWithoutLeader)
}

func serverWithoutLeader(t *testing.T) {
	for _, c := range []struct {
		name  string
		short bool
		names cell.InternalDNS
	}{
		{"names work", false, cell.InternalDNS{}},
		{"names fail", mesh.agentless(), cell.InternalDNS{Fails: true}},
	} {
		if !long && !c.short {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			unharmed(t, func(ctx context.Context) error {
				mesh.SetInternalDNS(c.names)
				defer mesh.SetInternalDNS(cell.InternalDNS{})
				server := mesh.Servers.Instance(dice.IntN(len(mesh.Servers.Instances())))
				restore, err := mesh.CutInstance(server, foundation.ServersApp)
				if err != nil {
					return err
				}
				whole := time.After(away())
				within, cancel := context.WithTimeout(ctx, leaderless)
				defer cancel()
				err = foundation.Eventually(within, "the server has no leader", func(ctx context.Context) error { return hasNoLeader(ctx, server) })
				<-whole
				return errors.Join(err, restore())
			})
		})
	}
}

// hasNoLeader returns nil when a server answers, and knows of no leader.
func hasNoLeader(ctx context.Context, server *cell.Instance) error {
	known := "?"
	err := mesh.ConsulAt(ctx, server, http.MethodGet, "/v1/status/leader", nil, &known)
	if err == nil && known != "" {
		err = fmt.Errorf("it knows the leader %s", known)
	}
	return err
}

// slowFor is how long servers write slowly. At a time their followers rest for at most
// slowest, which is less than what makes them elect another leader, and catch up then.
const (
	slowFor = time.Minute
	slowest = 3 * time.Second
	catchUp = 300 * time.Millisecond
)

// TestSlowWrites: the leader answers, and what it is to write waits for the others. An
// instance that starts meanwhile comes into rotation.
func TestSlowWrites(t *testing.T) {
	if !long {
		t.Skip("in the long form only")
	}
	inEachMode(t, false, slowWrites)
}

func slowWrites(t *testing.T) {
	unharmed(t, func(ctx context.Context) error {
		leader, err := mesh.leader(ctx)
		if err != nil {
			return err
		}
		var followers []int
		for _, server := range mesh.Servers.Instances() {
			parts, err := foundation.Parts(server)
			if err != nil {
				return err
			}
			if server != leader {
				followers = append(followers, parts[foundation.Consul].HostPid)
			}
		}
		instances := len(mesh.service.Instances())
		grown := make(chan error, 1)
		go func() {
			grown <- errors.Join(mesh.service.Scale(ctx, instances+1), mesh.service.WaitRunning(ctx))
		}()
		for begun := time.Now(); time.Since(begun) < slowFor && err == nil; <-time.After(catchUp) {
			err = signalAll(followers, syscall.SIGSTOP)
			<-time.After(time.Duration(dice.Int64N(int64(slowest))))
			err = errors.Join(err, signalAll(followers, syscall.SIGCONT))
		}
		return errors.Join(err, <-grown, mesh.service.Scale(ctx, instances))
	})
}

func signalAll(processes []int, signal syscall.Signal) (failed error) {
	for _, pid := range processes {
		failed = errors.Join(failed, syscall.Kill(pid, signal))
	}
	return failed
}
