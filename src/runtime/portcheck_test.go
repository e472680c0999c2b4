package runtime

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"
)

// judged is a registry whose checks are as they are told to be.
type judged struct {
	registry
	status chan string // of the next look
}

func (j judged) checks(ctx context.Context, _ *registration) ([]CheckStatus, error) {
	status := <-j.status
	if status == "" {
		return nil, errHidden
	}
	return []CheckStatus{{ID: "ready", Name: "ready", Status: passing}, {ID: "other", Name: "other", Status: status}}, nil
}

// TestPortCheckFollowsTheChecks: the platform's port check is answered when all
// checks pass and not before, until the platform says stop, and only for an app
// that has PORT on loopback.
func TestPortCheckFollowsTheChecks(t *testing.T) {
	t.Parallel()
	loopback := listen(t, func(net.Conn) {})
	_, text, _ := net.SplitHostPort(loopback)
	port, _ := strconv.Atoi(text)
	for name, test := range map[string]struct {
		network, address string
		looks            []string
		want             string // in the log
	}{
		"all pass at last": {"tcp", loopback, []string{critical, missing, "warning"}, "is answered on 127.0.0.2:" + text},
		"ACLs hide them":   {"tcp", loopback, []string{""}, "is answered"},
		"a socket":         {"unix", "/tmp/app.sock", []string{passing}, "is answered"},
		"another port":     {"tcp", "127.0.0.1:1", nil, "is left to the app"},
		"no port":          {"", "", nil, "is left to the app"},
	} {
		t.Run(name, func(t *testing.T) {
			log := make(chan string, 1)
			j := judged{status: make(chan string)}
			p := &proxy{
				inst: Instance{Address: netip.MustParseAddr("127.0.0.2"), Port: port}, registry: j,
				log:      func(format string, args ...any) { log <- fmt.Sprintf(format, args...) },
				services: []*registration{{network: test.network, address: test.address}},
			}
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
			eventually(t, "nobody answers after the platform has said stop", func() bool { return dial() != nil })
		})
	}
}
