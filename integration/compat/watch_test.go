package compat

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/consul-mesh/mesh-buildpack/integration/cell"
	"github.com/consul-mesh/mesh-buildpack/integration/foundation"
)

// burials are what either version says when it takes another instance for dead,
// or was taken for it.
var burials = []string{"has died and is taken out of the catalog", "took this instance for dead", "the servers no longer have it"}

// watch looks again and again, until stop is called or the test ends, whether the
// catalog has all instances that run. Who takes one out that lives fails the test.
func (s *system) watch(t *testing.T) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var looking sync.WaitGroup
	for _, a := range []*app{s.service, s.caller} {
		looking.Go(func() {
			seen := map[string]bool{}
			for ctx.Err() == nil {
				running := a.Instances()
				nodes, err := s.nodesOf(ctx, a.App().Name)
				if ctx.Err() != nil {
					return
				}
				if err != nil {
					t.Errorf("the catalog cannot be seen: %v", err)
					return
				}
				for _, i := range running {
					node := foundation.NodeOf(i)
					if slices.Contains(nodes, node) {
						seen[node] = true
					} else if seen[node] && i.State() == cell.Running {
						t.Errorf("%s runs, and was taken out of the catalog, which has %v", node, nodes)
						delete(seen, node)
					}
				}
				<-time.After(100 * time.Millisecond)
			}
		})
	}
	stop = sync.OnceFunc(func() {
		cancel()
		looking.Wait()
		for _, a := range []*app{s.service, s.caller} {
			for _, line := range a.Logs() {
				if slices.ContainsFunc(burials, func(text string) bool { return strings.Contains(line.Text, text) }) {
					t.Errorf("nobody has died: %v", line)
				}
			}
		}
	})
	t.Cleanup(stop)
	return stop
}

// buries: one that dies is taken out of the catalog by one of the other version.
func (s *system) buries(t *testing.T) {
	for _, pair := range [][2]*cell.Droplet{{s.service.before, s.service.now}, {s.service.now, s.service.before}} {
		s.scale(t, 1)
		s.use(t, s.service, pair[0])
		s.evacuate(t, s.service, 0)
		s.use(t, s.service, pair[1])
		s.scale(t, 2)
		s.allServe(t)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if _, err := foundation.Vanish(ctx, s.service.RunningApp, 1); err != nil {
			t.Fatal(err)
		}
		s.catalogIsRight(t)
	}
}

func (s *system) scale(t *testing.T, n int) {
	t.Helper()
	s.eventually(t, fmt.Sprintf("%d instances run", n), func(ctx context.Context) error {
		return errors.Join(s.service.Scale(ctx, n), s.service.WaitRunning(ctx))
	})
}

// nodesOf are those that have a service.
func (s *system) nodesOf(ctx context.Context, service string) (nodes []string, err error) {
	var entries []struct{ Node string }
	err = s.Consul(ctx, http.MethodGet, "/v1/catalog/service/"+url.PathEscape(service), nil, &entries)
	for _, entry := range entries {
		nodes = append(nodes, entry.Node)
	}
	return nodes, err
}
