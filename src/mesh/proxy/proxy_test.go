package proxy

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/consul-mesh/mesh-buildpack/src/droplet"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/consul"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/envoy"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/instance"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/registry"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/wait"
)

// TestTenThousandCycles: an instance that runs for months takes the memory of
// one that has just started. (Real Envoys take 83 minutes for as many.)
func TestTenThousandCycles(t *testing.T) {
	var looks, updates atomic.Int64
	admin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if looks.Add(1)%100 == 0 {
			fmt.Fprintln(w, "DRAINING") // it flips now and then
			return
		}
		fmt.Fprintln(w, "LIVE")
	}))
	defer admin.Close()
	agent := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/v1/agent/check/update/") {
			updates.Add(1)
		}
	}))
	defer agent.Close()
	log := func(string, ...any) {}
	n := &registry.Node{Log: log, Consul: &consul.Client{Base: agent.URL}}
	p := &proxy{Node: n, registry: registry.ViaAgent{Node: n}, timeline: &wait.Timeline{Log: log}}
	shop := registry.NewRegistration(instance.Instance{}, droplet.Service{ID: "shop"}, droplet.Definition{
		Endpoint: droplet.Endpoint{ID: "shop"},
		Connect:  droplet.Connect{SidecarService: droplet.Sidecar{Endpoint: droplet.Endpoint{Port: 21000}}},
	})
	e := &served{Envoy: &envoy.Envoy{Admin: admin.URL, Exited: make(chan struct{})}, service: shop}
	e.inRotation = p.timeline.Begin(t.Context(), "passing")
	cycles := func(n int) (heap uint64, goroutines int) {
		for range n {
			e.toldAt = time.Time{} // as if every one were due
			p.tell(context.Background(), e)
		}
		runtime.GC()
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return stats.HeapAlloc, runtime.NumGoroutine()
	}
	heap, goroutines := cycles(1_000)
	laterHeap, laterGoroutines := cycles(10_000)
	if updates.Load() != 11_000 {
		t.Errorf("%d updates", updates.Load())
	}
	const most = 256 << 10
	if laterHeap > heap+most || laterGoroutines > goroutines+2 {
		t.Errorf("heap %d and then %d bytes, %d and then %d goroutines", heap, laterHeap, goroutines, laterGoroutines)
	}
}
