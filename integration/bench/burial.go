package main

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/consul-mesh/mesh-buildpack/integration/crowd"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/instance"
)

// survivors are how many instances of a service live when one dies.
var survivors = []int{20, 200}

const (
	// deathsEach is how many of a service die, one after the other.
	deathsEach = 3
	// burialMost is how many requests a death may cost.
	burialMost = 5
	// heardOf is for all to have asked what they ask because of a death.
	heardOf = 4 * time.Second
)

// crowdOf is a service whose dead are counted.
type crowdOf struct {
	service string
	living  int
	janitor *crowd.Group   // who starts first
	mortal  []*crowd.Group // who dies, one each
	deaths  []float64      // how many requests each has cost
	last    float64        // how many the death of the janitor has
}

// burialRequests counts what a death costs in requests to the servers, where few
// instances survive and where many do, and apart what the death of the janitor costs.
func burialRequests(ctx context.Context, b *bench) (all []result, err error) {
	c, done, err := b.newCrowd(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	front, err := c.NewFront(func(*http.Request) time.Duration { return 0 })
	if err != nil {
		return nil, err
	}
	defer front.Close()
	var services []*crowdOf
	for _, living := range survivors {
		of, err := startMortals(ctx, c, living)
		if err != nil {
			return nil, err
		}
		services = append(services, of)
	}
	<-time.After(crowdSettling)
	for i := range deathsEach {
		var dead []*crowd.Group
		for _, of := range services {
			dead = append(dead, of.mortal[i])
		}
		if err := countDeath(ctx, c, front, services, false, dead...); err != nil {
			return nil, err
		}
	}
	if err := countDeath(ctx, c, front, services, true, services[0].janitor, services[1].janitor); err != nil {
		return nil, err
	}
	row := func(name string, living int, n float64) result {
		return result{Name: fmt.Sprintf("%s-%d", name, living), Unit: "requests", Ours: n}
	}
	for _, of := range services {
		all = append(all, row("burial-requests", of.living, median(of.deaths)).aimedAt(goal{atMost: burialMost}))
	}
	for _, of := range services {
		all = append(all, row("burial-requests-janitor", of.living, of.last))
	}
	buried := result{Name: "burial-living-buried", Unit: "instances", Ours: saidOf("burial-requests", c.LivingBuried())}
	return append(all, buried.aimedAt(goal{none: true})), nil
}

// startMortals starts a janitor, some who are to die, each in a process of its own, and
// those who live on.
func startMortals(ctx context.Context, c *crowd.Crowd, living int) (*crowdOf, error) {
	of := &crowdOf{service: fmt.Sprint("of-", living), living: living}
	first, err := startCrowd(ctx, c, map[string]int{of.service: 1})
	if err != nil {
		return nil, err
	}
	of.janitor = first[0]
	electing, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if _, err := c.AwaitJanitor(electing, of.service); err != nil {
		return nil, err
	}
	var groups []map[string]int
	for range deathsEach {
		groups = append(groups, map[string]int{of.service: 1})
	}
	// With the janitor they are one more, until that dies.
	all, err := startCrowd(ctx, c, append(groups, map[string]int{of.service: living - 1})...)
	of.mortal = all[:min(len(all), deathsEach)]
	return of, err
}

// countDeath kills one instance of each service, the janitors or others, and counts
// what is asked until all has been said about it.
func countDeath(ctx context.Context, c *crowd.Crowd, f *crowd.Front, services []*crowdOf, janitors bool, dead ...*crowd.Group) error {
	ctx, cancel := context.WithTimeout(ctx, outPatience)
	defer cancel()
	begun := time.Now()
	for _, g := range dead {
		g.Kill()
	}
	if err := c.AwaitOut(ctx, dead...); err != nil {
		return err
	}
	<-time.After(heardOf)
	asked := f.Asked(begun)
	for _, of := range services {
		n := of.count(c, asked, begun, janitors)
		if janitors {
			of.last = n
		} else {
			of.deaths = append(of.deaths, n)
		}
	}
	return nil
}

// count is how many of the requests the living of the service have made because of a
// death; what is asked of idle instances is left out. Only janitors look at all nodes,
// once a minute, and a new one at once: looks of the minute are none of a death's.
func (of *crowdOf) count(c *crowd.Crowd, asked []crowd.Request, begun time.Time, newJanitor bool) float64 {
	kinds := map[string]int{}
	for _, m := range c.Living() {
		if m.Service != of.service {
			continue
		}
		for _, r := range asked {
			if r.From == m.Address.String() && !isIdle(r, m.Node, begun) {
				kinds[kindOf(r)]++
			}
		}
	}
	if !newJanitor {
		kinds[listsService] = max(1, kinds[listsService]-kinds[listsNodes])
		delete(kinds, listsNodes)
	}
	all := 0
	for _, n := range kinds {
		all += n
	}
	say("burial-requests, %d instances: %d for one: %v", of.living, all, kinds)
	return float64(all)
}

// isIdle says that an instance asks something also when nobody has died: whether it is
// there itself, whether its configuration entries are, and who the janitor is or whose
// keys are there, as long as that is no news.
func isIdle(r crowd.Request, node string, death time.Time) bool {
	own := strings.HasSuffix(r.Path, "/"+node) && r.Method == http.MethodGet
	if own || strings.HasPrefix(r.Path, "/v1/session/renew/") || strings.HasPrefix(r.Path, "/v1/config/") {
		return true
	}
	open, err := time.ParseDuration(r.Query.Get("wait"))
	if err != nil || open <= instance.QuietMost { // it is no watch, or one that was begun because of a death
		return r.Begun.Before(death)
	}
	return r.Ended.IsZero() || r.Ended.Sub(r.Begun) >= open
}

// Kinds of requests.
const (
	listsService = "GET catalog/service"
	listsNodes   = "GET catalog/nodes"
)

// kindOf is what a request asks for.
func kindOf(r crowd.Request) string {
	parts := strings.SplitN(strings.TrimPrefix(r.Path, "/v1/"), "/", 3)
	kind := r.Method + " " + strings.Join(parts[:min(len(parts), 2)], "/")
	switch {
	case strings.HasPrefix(r.Path, "/v1/kv/") && strings.Contains(r.Path, "/.janitor/"):
		return r.Method + " janitor"
	case strings.HasPrefix(r.Path, "/v1/kv/"):
		return r.Method + " keys"
	}
	return kind
}
