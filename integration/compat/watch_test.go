package compat

import (
	"context"
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

// watch looks until the test ends, again and again, whether the catalog has all
// instances that run. Who takes one out that lives fails the test.
func (s *system) watch(t *testing.T) {
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
	t.Cleanup(func() {
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
