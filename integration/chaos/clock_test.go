package chaos

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/consul-mesh/mesh-buildpack/integration/cell"
	"github.com/consul-mesh/mesh-buildpack/integration/foundation"
)

// Certificates are valid from a minute before they were signed, so who gets one
// may be no further behind the servers than that. The servers may be: what they
// sign looks older than it is.
const (
	ahead      = time.Hour
	behind     = -50 * time.Second
	longBehind = -time.Hour
)

// TestClock steps the time of day of programs that run, and later back.
func TestClock(t *testing.T) { inEachMode(t, false, clock) }

func clock(t *testing.T) {
	one := func() []*cell.Instance { return []*cell.Instance{mesh.service.Instance(dice.IntN(instances))} }
	servers := mesh.Servers.Instances
	everyone := func() []*cell.Instance { return append(mesh.all(), servers()...) }
	for _, c := range []struct {
		name string
		who  func() []*cell.Instance
		by   time.Duration
	}{
		{"an instance ahead", one, ahead},
		{"an instance behind", one, behind},
		{"the servers ahead", servers, ahead},
		{"the servers behind", servers, longBehind},
		{"everyone ahead", everyone, ahead},
		{"everyone behind", everyone, behind},
	} {
		if !long && c.name != "an instance ahead" {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			if c.by < 0 {
				waitForOldRoot(t)
			} else {
				<-time.After(time.Until(serversStepped.Add(cutWithin)))
			}
			survive(t, 0, func(ctx context.Context) (time.Time, error) {
				who, from := c.who(), time.Now()
				defer func() {
					if slices.Contains(who, servers()[0]) {
						serversStepped = time.Now()
					}
					for _, i := range who {
						_ = i.SetClock(0) // it is not, where something failed before
					}
				}()
				if err := step(ctx, who, c.by); err != nil {
					return from, err
				}
				<-time.After(away())
				if err := connect(ctx); err != nil {
					return from, fmt.Errorf("later, with clocks set by %s: %w", c.by, err)
				}
				return from, step(ctx, who, 0)
			})
		})
	}
}

// A server whose clock has been set back ends its streams within 50 s (grpc-go's
// keepalive: 30 and 20 s by the time of day). One that an Envoy without an agent
// opens instead must not be at a server that is ahead by then: it would give it a
// certificate that nobody takes for an hour.
const cutWithin = time.Minute

// serversStepped is when the servers' clocks were right again.
var serversStepped time.Time

// waitForOldRoot waits until those who are behind find the root certificate
// valid. It is from when the servers started, to the second.
func waitForOldRoot(t *testing.T) {
	t.Helper()
	var roots struct {
		Roots []struct{ NotBefore time.Time }
	}
	if err := mesh.Consul(t.Context(), http.MethodGet, "/v1/connect/ca/roots", nil, &roots); err != nil {
		t.Fatal(err)
	}
	for _, root := range roots.Roots {
		<-time.After(time.Until(root.NotBefore.Add(5*time.Second - behind)))
	}
}

// step sets clocks, looks whether they have stepped, and whether certificates
// are accepted then.
func step(ctx context.Context, who []*cell.Instance, by time.Duration) error {
	for _, i := range who {
		if err := i.SetClock(by); err != nil {
			return err
		}
	}
	look, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for _, i := range who {
		name := fmt.Sprintf("the clocks of %s/%d are set by %s", i.App(), i.Index(), by)
		// Envoy makes its dates twice a second.
		if err := foundation.Eventually(look, name, func(ctx context.Context) error { return stepped(ctx, i, by) }); err != nil {
			return err
		}
	}
	if err := connect(ctx); err != nil {
		return fmt.Errorf("with clocks set by %s: %w", by, err)
	}
	return nil
}

// stepped asks Consul, Envoy and the app for the date. The buildpack's own
// programs tell nobody what time it is; they are Go programs, as Consul is.
func stepped(ctx context.Context, i *cell.Instance, by time.Duration) error {
	parts, err := foundation.Parts(i)
	if err != nil {
		return err
	}
	asked := map[foundation.Part]string{
		foundation.Consul: "http://127.0.0.1:8500/v1/status/leader",
		foundation.Envoy:  "http://127.0.0.1:19000/ready",
		foundation.Echo:   "http://127.0.0.1:8080/health",
	}
	if i.App() == foundation.ServersApp {
		asked = map[foundation.Part]string{foundation.Consul: "http://127.0.0.1:8080/v1/status/leader"}
	} else if _, exists := parts[foundation.MeshAgent]; !exists {
		delete(asked, foundation.Consul)
	}
	for part, url := range asked {
		if _, exists := parts[part]; !exists {
			return fmt.Errorf("there is no %s", part)
		}
		_, header, err := foundation.FromWithHeader(ctx, i, url)
		if err != nil {
			return err
		}
		date, err := http.ParseTime(header.Get("Date"))
		if err != nil {
			return err
		}
		if off := time.Until(date) - by; off.Abs() > 5*time.Second {
			return fmt.Errorf("that of %s is %s from there", part, off)
		}
	}
	return nil
}

// connect sends more requests at a time than the caller has connections, until
// it has opened one more to each instance: that is when certificates are looked
// at. All have to be answered.
func connect(ctx context.Context) error {
	before, open, err := connections(ctx)
	if err != nil {
		return err
	}
	for n := open + 10; ; n += 10 {
		errs := make([]error, n)
		var group sync.WaitGroup
		for k := range errs {
			group.Go(func() {
				_, errs[k] = foundation.From(ctx, mesh.caller.Instance(0), fmt.Sprintf("http://127.0.0.1:%d/slow?ms=200", port))
			})
		}
		group.Wait()
		if err := errors.Join(errs...); err != nil {
			return err
		}
		after, _, err := connections(ctx)
		if err != nil {
			return err
		}
		everywhere := true
		for sidecar := range before {
			everywhere = everywhere && after[sidecar] > before[sidecar]
		}
		if everywhere {
			return nil
		}
	}
}

// connections tells how many TLS handshakes each sidecar of the service has been
// through, and how many connections all of them have now.
func connections(ctx context.Context) (handshakes map[string]int, open int, err error) {
	const listener = "listener.0.0.0.0_21000."
	handshakes = map[string]int{}
	for _, i := range mesh.service.Instances() {
		text, err := foundation.From(ctx, i, "http://127.0.0.1:19000/stats?filter=_21000")
		if err != nil {
			return nil, 0, err
		}
		sidecar := foundation.SidecarOf(i)
		for line := range strings.Lines(text) {
			name, number, _ := strings.Cut(strings.TrimSpace(line), ": ")
			n, _ := strconv.Atoi(number) // a histogram is not one
			switch name {
			case listener + "ssl.handshake":
				handshakes[sidecar] = n
			case listener + "downstream_cx_active":
				open += n
			}
		}
		if _, counted := handshakes[sidecar]; !counted {
			return nil, 0, fmt.Errorf("the Envoy of %s/%d does not count handshakes:\n%s", i.App(), i.Index(), text)
		}
	}
	return handshakes, open, nil
}
