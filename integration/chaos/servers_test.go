package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
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
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+server.Address()+":8080/v1/status/leader", nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err == nil && (response.StatusCode != http.StatusOK || string(text) != `""`) {
		err = fmt.Errorf("it says %s: %s", response.Status, text)
	}
	return err
}

// listedFor is how long apps.internal goes on naming a server that is gone, and nobody
// else has its address: longer than it takes to replace them all.
const listedFor = 3 * time.Minute

// TestServersReplaced: each server dies with its cell, and is another one at another
// address, until none is where it was.
func TestServersReplaced(t *testing.T) {
	if !long {
		t.Skip("in the long form only")
	}
	inEachMode(t, false, serversReplaced)
}

func serversReplaced(t *testing.T) {
	unharmed(t, func(ctx context.Context) error {
		var before []string
		for _, server := range mesh.Servers.Instances() {
			before = append(before, server.Address())
		}
		for index := range before {
			if err := mesh.Lose(mesh.Servers.Instance(index), listedFor); err != nil {
				return err
			}
			if err := foundation.Eventually(ctx, "the servers are whole", func(ctx context.Context) error { return mesh.raftIsWhole(ctx) }); err != nil {
				return err
			}
		}
		for _, server := range mesh.Servers.Instances() {
			if slices.Contains(before, server.Address()) {
				return fmt.Errorf("a server is at %s, where one was before", server.Address())
			}
		}
		return nil
	})
}

// raftIsWhole returns nil when those who vote are the servers that run.
func (s *system) raftIsWhole(ctx context.Context) error {
	var raft struct {
		Servers []struct {
			Address string
			Voter   bool
		}
	}
	if err := s.Consul(ctx, http.MethodGet, "/v1/operator/raft/configuration", nil, &raft); err != nil {
		return err
	}
	var want, got []string
	for _, server := range s.Servers.Instances() {
		want = append(want, fmt.Sprintf("%s:8300 true", server.Address()))
	}
	for _, server := range raft.Servers {
		got = append(got, fmt.Sprintf("%s %v", server.Address, server.Voter))
	}
	return foundation.Same(want, got, "those who vote are not the servers that run")
}
