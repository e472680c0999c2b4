package consul

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/consul-mesh/mesh-buildpack/src/droplet"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/instance"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/meshtest"
)

// TestStreamsComeBackApart: when servers are away, and when they are back, Envoys'
// streams come spread over some time, and all of them within three seconds.
func TestStreamsComeBackApart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const instances, outage = 200, 30 * time.Second
		begun := time.Now()
		tried, opened := make(chan time.Duration, 1_000_000), make(chan time.Duration, instances)
		network := meshtest.RoundTripper(func(r *http.Request) (*http.Response, error) {
			at := time.Since(begun)
			tried <- at
			if at < outage {
				return nil, errors.New("connection refused")
			}
			return meshtest.Transport(func(string) (int, string) { return http.StatusOK, "" }).RoundTrip(r)
		})
		for range instances {
			s := NewServers(&droplet.Servers{Addresses: []string{one, other}}, &Access{})
			relay := &ToServer{Servers: s, isXDS: true, Transport: network}
			go func() {
				for { // an Envoy does not wait for long
					request := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "http://servers/ads", strings.NewReader("envoy"))
					if _, err := relay.RoundTrip(request); err == nil {
						opened <- time.Since(begun) - outage
						return
					}
					time.Sleep(25 * time.Millisecond)
				}
			}()
		}
		back := map[int]int{} // by quarters of a second
		for range instances {
			took := <-opened
			if took > instance.StreamAgain {
				t.Errorf("one is back after %v", took)
			}
			back[int(took/(250*time.Millisecond))]++
		}
		for _, n := range back {
			if n > instances/3 {
				t.Errorf("by quarters of a second there came back %v", back)
				break
			}
		}
		if most := instances * int(outage/(500*time.Millisecond)); len(tried) > most {
			t.Errorf("%d tries in %v, want at most %d", len(tried), outage, most)
		}
	})
}

// TestIndexGoesBack: where the index of the last news is less than the one that was
// named, the next question is for all there is.
func TestIndexGoesBack(t *testing.T) {
	t.Parallel()
	for index, want := range map[string]uint64{"99": 0, "100": 100, "101": 101, "": 0} {
		client := &Client{Base: "http://servers"}
		client.HTTP.Transport = meshtest.RoundTripper(func(r *http.Request) (*http.Response, error) {
			answer, err := meshtest.Transport(func(string) (int, string) { return http.StatusOK, "[]" }).RoundTrip(r)
			answer.Header.Set("X-Consul-Index", index)
			return answer, err
		})
		var keys []string
		got, err := client.Watch(context.Background(), "", "/v1/kv/alive/?keys&index=100&wait=30s", &keys)
		if err != nil || got != want {
			t.Errorf("%q gives %d, %v, want %d", index, got, err, want)
		}
	}
}
