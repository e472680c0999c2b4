package proxy

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/consul-mesh/mesh-buildpack/src/droplet"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/consul"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/instance"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/meshtest"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/registry"
)

// judged is a registry whose checks are as they are told to be.
type judged struct {
	registry.Registry
	status chan string // of the next look
}

func (j judged) CheckStatuses(ctx context.Context, _ *registry.Registration) ([]consul.CheckStatus, error) {
	status := <-j.status
	if status == "" {
		return nil, consul.ErrHidden
	}
	return []consul.CheckStatus{{ID: "ready", Name: "ready", Status: consul.Passing}, {ID: "other", Name: "other", Status: status}}, nil
}

// TestPortCheckFollowsTheChecks: the platform's port check is answered when all
// checks pass and not before, until the platform says stop, and only for an app
// that has PORT on loopback.
func TestPortCheckFollowsTheChecks(t *testing.T) {
	t.Parallel()
	listening := meshtest.Listen(t, func(net.Conn) {})
	_, text, _ := net.SplitHostPort(listening)
	port, _ := strconv.Atoi(text)
	onPort := func(text string) droplet.Endpoint {
		port, _ := strconv.Atoi(text)
		return droplet.Endpoint{Port: port}
	}
	for name, test := range map[string]struct {
		app   droplet.Endpoint // its service
		looks []string
		want  string // in the log
	}{
		"all pass at last": {onPort(text), []string{consul.Critical, consul.Missing, "warning"}, "is answered on 127.0.0.2:" + text},
		"ACLs hide them":   {onPort(text), []string{""}, "is answered"},
		"a socket":         {droplet.Endpoint{SocketPath: "/tmp/app.sock"}, []string{consul.Passing}, "is answered"},
		"another port":     {onPort("1"), nil, "is left to the app"},
		"no port":          {droplet.Endpoint{}, nil, "is left to the app"},
	} {
		t.Run(name, func(t *testing.T) {
			log := make(chan string, 1)
			j := judged{status: make(chan string)}
			n := &registry.Node{
				Inst:     instance.Instance{Address: netip.MustParseAddr("127.0.0.2"), Port: port},
				Log:      func(format string, args ...any) { log <- fmt.Sprintf(format, args...) },
				Services: []*registry.Registration{registry.NewRegistration(instance.Instance{}, droplet.Service{}, droplet.Definition{Endpoint: test.app})},
			}
			p := &proxy{Node: n, registry: j}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() {
				defer close(done)
				p.answerPortCheck(ctx)
			}()
			dial := func() error {
				conn, err := net.DialTimeout("tcp", "127.0.0.2:"+text, time.Second)
				if err == nil {
					conn.Close()
				}
				return err
			}
			for _, status := range test.looks {
				if err := dial(); err == nil {
					t.Errorf("it is answered before the check is %s", status)
				}
				j.status <- status
			}
			if line := <-log; !strings.Contains(line, test.want) {
				t.Errorf("the log says %q", line)
			}
			if err := dial(); (err == nil) != (test.looks != nil) {
				t.Errorf("dialled: %v", err)
			}
			cancel()
			<-done
			meshtest.Eventually(t, "nobody answers after the platform has said stop", func() bool { return dial() != nil })
		})
	}
}
