package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/consul-mesh/mesh-buildpack/integration/crowd"
)

// others are services that nothing special happens to: with two more there are ten.
var others = []string{"cat", "dan", "eve", "fay", "gus", "hal", "ida", "joe"}

// Of half, half die at once, and of most, most; each of these are in one process.
const (
	half, deadOfHalf = "ann", 45
	most, deadOfMost = "bob", 60
)

// beside is so many instances of two services, and of each of the others.
func beside(ofHalf, ofMost, ofOthers int) map[string]int {
	of := map[string]int{half: ofHalf, most: ofMost}
	for _, service := range others {
		of[service] = ofOthers
	}
	return of
}

// crowdSizes are the numbers of instances, which ones come to those before, and how
// long all are watched then.
var crowdSizes = []struct {
	instances int
	come      []map[string]int
	idle      time.Duration
}{
	{100, []map[string]int{beside(10, 10, 10)}, time.Minute},
	{300, []map[string]int{beside(10, 10, 10), beside(10, 10, 10)}, time.Minute},
	{1000, []map[string]int{
		{half: deadOfHalf}, {most: deadOfMost}, beside(5, 2, 10), beside(5, 2, 10), beside(5, 2, 10),
		beside(5, 2, 10), beside(5, 2, 10), beside(0, 0, 10), beside(0, 0, 10),
	}, 2 * time.Minute},
}

// harnessMost is what all of the instances may take of a processor for a thousand
// starts and two minutes in which they are idle: they share it with the servers.
const harnessMost = 40

// scale starts more and more instances, watches what idle ones ask of the servers, and
// has many die at once.
func scale(ctx context.Context, b *bench) (all []result, err error) {
	c, done, err := b.newCrowd(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	var groups [][]*crowd.Group
	var seen []crowdSeen
	harness := time.Duration(0)
	for _, size := range crowdSizes {
		begun := c.ProcessorTime()
		started, s, err := growCrowd(ctx, c, size.instances, size.come)
		if err != nil {
			return all, fmt.Errorf("%d instances: %w", size.instances, err)
		}
		harness += c.ProcessorTime() - begun
		groups = append(groups, started)
		if err := s.watch(ctx, c, size.idle); err != nil {
			return all, fmt.Errorf("%d instances: %w", size.instances, err)
		}
		seen = append(seen, s)
		all = append(all, s.results()...)
	}
	last := len(crowdSizes) - 1
	harness += seen[last].harness
	all = append(all, growth(seen)...)
	all = append(all, result{Name: "scale-harness", Unit: "s", Ours: harness.Seconds()}.aimedAt(goal{atMost: harnessMost}))
	dead, err := die(ctx, c, groups[0][0], groups[last][0], groups[last][1])
	all = append(all, dead...)
	buried := result{Name: "scale-living-buried", Unit: "instances", Ours: saidOf("scale", c.LivingBuried())}
	return append(all, buried.aimedAt(goal{none: true})), err
}

// crowdSeen is what is seen of a number of instances when they start, and of the
// servers while they are idle.
type crowdSeen struct {
	instances   int
	failed      float64 // starts
	slowest     float64 // start of those that came last, in seconds
	startWrites float64 // entries in the servers' log for each of these
	processor   float64 // of all servers, in ms of each second
	memory      float64 // of the largest server, in MB
	connections float64 // to the HTTP API
	streams     float64 // to the gRPC port
	requests    float64 // in a second
	entries     float64 // in the servers' log, in a second
	harness     time.Duration
}

// growCrowd starts more instances.
func growCrowd(ctx context.Context, c *crowd.Crowd, instances int, come []map[string]int) (groups []*crowd.Group, s crowdSeen, err error) {
	s = crowdSeen{instances: instances}
	first, err := c.LogIndex(ctx)
	if err != nil {
		return nil, s, err
	}
	if groups, err = startCrowd(ctx, c, come...); err != nil {
		return groups, s, err
	}
	last, err := c.LogIndex(ctx)
	starts := 0
	for _, g := range groups {
		starts += len(g.Members)
		s.slowest = max(s.slowest, g.SlowestStart().Seconds())
	}
	s.startWrites = float64(last-first) / float64(starts)
	s.failed = failedStarts("scale", c)
	return groups, s, err
}

// watch watches idle instances.
func (s *crowdSeen) watch(ctx context.Context, c *crowd.Crowd, long time.Duration) error {
	<-time.After(crowdSettling)
	before, err := c.Usage()
	first, indexErr := c.LogIndex(ctx)
	if err := errors.Join(err, indexErr); err != nil {
		return err
	}
	own, begun := c.ProcessorTime(), time.Now()
	if s.requests, err = answered(ctx, c.APIs(), "", long); err != nil {
		return err
	}
	s.harness = c.ProcessorTime() - own
	after, err := c.Usage()
	last, indexErr := c.LogIndex(ctx)
	seconds := time.Since(begun).Seconds()
	s.processor = float64((after.Processor - before.Processor).Milliseconds()) / seconds
	s.memory, s.connections, s.streams = megabytes(after.Memory), float64(after.Connections), float64(after.Streams)
	s.entries = float64(last-first) / seconds
	say("scale: %+v", *s)
	return errors.Join(err, indexErr)
}

func (s crowdSeen) results() []result {
	row := func(name, unit string, value float64) result {
		return result{Name: fmt.Sprintf("scale-%d-%s", s.instances, name), Unit: unit, Ours: value}
	}
	return []result{
		row("starts-failed", "instances", s.failed).aimedAt(goal{none: true}),
		row("start-slowest", "s", s.slowest),
		row("start-entries", "1/start", s.startWrites),
		row("processor", "ms/s", s.processor),
		row("memory", "MB", s.memory),
		row("connections", "", s.connections),
		row("streams", "", s.streams),
		row("requests", "1/s", s.requests),
		row("entries", "1/s", s.entries),
	}
}

// growsAtMost is how much more each further instance may take than one of the first
// did, for what the servers take to be linear.
const growsAtMost = 1.5

// growth is what each of the last instances takes of the servers, as a share of what
// each of those before did.
func growth(seen []crowdSeen) (all []result) {
	of := func(name string, takes func(crowdSeen) float64) {
		each := func(from, to crowdSeen) float64 {
			return (takes(to) - takes(from)) / float64(to.instances-from.instances)
		}
		if before := each(seen[0], seen[1]); before > 0 {
			r := result{Name: "scale-growth-" + name, Unit: "ratio", Ours: each(seen[1], seen[2]) / before}
			all = append(all, r.aimedAt(goal{atMost: growsAtMost}))
		}
	}
	of("processor", func(s crowdSeen) float64 { return s.processor })
	of("memory", func(s crowdSeen) float64 { return s.memory })
	return all
}
