// Package crowd runs many instances without agents beside real Consul servers, on the
// addresses of one loopback: the container program's own code from its start to its
// end, with a stream of Envoy's each, but no containers and no Envoys. Instances are
// members of groups; a group is one process, so that all in it can die at once without
// a word.
//
// A program that uses it calls Main first.
package crowd

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/consul-mesh/mesh-buildpack/src/mesh/instance"
)

// Crowd is the servers and all instances that were started beside them.
type Crowd struct {
	*Servers
	dir  string
	port int // of the HTTP API that instances ask

	mutex   sync.Mutex
	members map[string]*Member // by their nodes; guarded by mutex
	groups  []*Group           // guarded by mutex
	said    []Line             // guarded by mutex
}

// Member is one instance. What is not in its seat is guarded by the crowd's mutex.
type Member struct {
	seat
	Node   string
	Passed time.Duration // how long its start took; 0: it has not come into rotation yet
	Ended  error         // why it has ended by itself, nil otherwise
	begun  time.Time
	gone   bool // it was killed, or told to stop
}

// Line is one of a member's log.
type Line struct {
	Node, Text string
	At         time.Time
	Living     bool // who it is said of, or by, was meant to live then
}

// Group is members in one process.
type Group struct {
	Members []*Member
	crowd   *Crowd
	process *exec.Cmd
	stdin   io.Closer
	ended   chan struct{}
}

// New starts servers. Everything of the crowd is below dir, with the servers' logs.
func New(ctx context.Context, consul, dir string) (*Crowd, error) {
	servers, err := startServers(ctx, consul, dir)
	if err != nil {
		return nil, err
	}
	return &Crowd{Servers: servers, dir: dir, port: HTTPPort, members: map[string]*Member{}}, nil
}

// Start starts instances of services in a process of their own, one every pause. It
// does not wait for them.
func (c *Crowd) Start(of map[string]int, every time.Duration) (*Group, error) {
	g := &Group{crowd: c, ended: make(chan struct{})}
	if err := c.seat(g, of, every); err != nil {
		return nil, err
	}
	o := orders{Dir: c.dir, Every: every}
	for _, m := range g.Members {
		o.Seats = append(o.Seats, m.seat)
	}
	text, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	g.process = exec.Command(self)
	g.process.Env = append(os.Environ(), groupEnv+"=1")
	g.process.Stderr = os.Stderr
	stdin, err := g.process.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := g.process.StdoutPipe()
	if err != nil {
		return nil, err
	}
	g.stdin = stdin
	if err := g.process.Start(); err != nil {
		return nil, fmt.Errorf("failed to start a group: %w", err)
	}
	go g.hear(stdout)
	_, err = stdin.Write(append(text, '\n'))
	return g, err
}

// seat gives the members of a group their addresses, in turn of each service, and
// their droplets.
func (c *Crowd) seat(g *Group, of map[string]int, every time.Duration) error {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	left := map[string]int{}
	var services []string
	for service, count := range of {
		left[service] = count
		services = append(services, service)
	}
	slices.Sort(services)
	begun := time.Now()
	for len(services) > 0 {
		services = slices.DeleteFunc(services, func(service string) bool { return left[service] == 0 })
		for _, service := range services {
			left[service]--
			s := newSeat(service, len(c.members), c.net)
			m := &Member{seat: s, begun: begun.Add(every * time.Duration(len(g.Members)))}
			inst, err := s.instance(c.dir)
			if err != nil {
				return err
			}
			if err := s.furnish(c.dir, c.Addresses(), c.port); err != nil {
				return err
			}
			m.Node = inst.NodeName()
			c.members[m.Node] = m
			g.Members = append(g.Members, m)
		}
	}
	c.groups = append(c.groups, g)
	return nil
}

// hear notes what the members of a group say.
func (g *Group) hear(stdout io.Reader) {
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		var r report
		if json.Unmarshal(lines.Bytes(), &r) == nil {
			g.crowd.note(r)
		}
	}
	_ = g.process.Wait() // it was killed, or has said what is wrong
	close(g.ended)
}

// burial is what a janitor says of a node that it has taken out of the catalog, and
// taken is what an instance says that was.
const (
	burial = " has died and is taken out of the catalog"
	taken  = "the servers took this instance for dead"
)

// note notes what a member has said.
func (c *Crowd) note(r report) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	m := c.members[r.Node]
	if m == nil {
		return
	}
	line := Line{Node: r.Node, Text: r.Line, At: r.At, Living: !m.gone}
	if of, buries := strings.CutSuffix(r.Line, burial); buries {
		of = strings.TrimPrefix(of, "the instance ")
		line.Living = c.members[of] != nil && !c.members[of].gone
	}
	switch {
	case r.Ended && !m.gone:
		m.Ended = errors.New(r.Line)
	case m.Passed == 0 && strings.Contains(r.Line, "passing, in rotation"):
		m.Passed = r.At.Sub(m.begun)
	}
	c.said = append(c.said, line)
}

// Said lists the lines with a text, since a time.
func (c *Crowd) Said(text string, since time.Time) (lines []Line) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	for _, line := range c.said {
		if strings.Contains(line.Text, text) && !line.At.Before(since) {
			lines = append(lines, line)
		}
	}
	return lines
}

// SaidBy lists the lines of a node.
func (c *Crowd) SaidBy(node string) []Line {
	return slices.DeleteFunc(c.Said("", time.Time{}), func(line Line) bool { return line.Node != node })
}

// LivingBuried are the lines that say that somebody was taken for dead who lived.
func (c *Crowd) LivingBuried() (lines []Line) {
	for _, text := range []string{burial, taken} {
		for _, line := range c.Said(text, time.Time{}) {
			if line.Living {
				lines = append(lines, line)
			}
		}
	}
	return lines
}

// Living lists who was neither killed nor told to stop.
func (c *Crowd) Living() (all []Member) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	for _, m := range c.members {
		if !m.gone {
			all = append(all, *m)
		}
	}
	return all
}

// Failed lists who has ended by itself.
func (c *Crowd) Failed() []Member {
	return slices.DeleteFunc(c.Living(), func(m Member) bool { return m.Ended == nil })
}

// AwaitPassed waits until everybody who lives has come into rotation, or has ended.
func (c *Crowd) AwaitPassed(ctx context.Context) error {
	for {
		waiting := slices.DeleteFunc(c.Living(), func(m Member) bool { return m.Passed > 0 || m.Ended != nil })
		if len(waiting) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d instances are not in rotation, one of them is %s: %w", len(waiting), waiting[0].Node, ctx.Err())
		case <-time.After(look):
		}
	}
}

// look is how often is looked at what is waited for.
const look = 250 * time.Millisecond

// AwaitOut waits until none of some nodes is in the catalog, and returns when the last
// was not.
func (c *Crowd) AwaitOut(ctx context.Context, groups ...*Group) error {
	for {
		there, err := c.Nodes(ctx)
		left := 0
		for _, g := range groups {
			for _, m := range g.Members {
				if there[m.Node] {
					left++
				}
			}
		}
		if err == nil && left == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("%d dead instances are in the catalog: %w", left, ctx.Err()), err)
		case <-time.After(look):
		}
	}
}

// Has says that a node is a member's.
func (g *Group) Has(node string) bool {
	return slices.ContainsFunc(g.Members, func(m *Member) bool { return m.Node == node })
}

// SlowestStart is how long the slowest of those took to come into rotation who have.
func (g *Group) SlowestStart() (slowest time.Duration) {
	g.crowd.mutex.Lock()
	defer g.crowd.mutex.Unlock()
	for _, m := range g.Members {
		slowest = max(slowest, m.Passed)
	}
	return slowest
}

// Kill has all members of a group die at once.
func (g *Group) Kill() {
	g.leave()
	_ = g.process.Process.Signal(syscall.SIGKILL) // it may have ended
	<-g.ended
	g.clear()
}

// Stop has all members of a group stop, as the platform does.
func (g *Group) Stop() {
	g.leave()
	_ = g.stdin.Close() // which is what tells them
	select {
	case <-g.ended:
	case <-time.After(instance.Grace):
		_ = g.process.Process.Signal(syscall.SIGKILL)
		<-g.ended
	}
	g.clear()
}

// leave notes that the members are not meant to live.
func (g *Group) leave() {
	g.crowd.mutex.Lock()
	defer g.crowd.mutex.Unlock()
	for _, m := range g.Members {
		m.gone = true
	}
}

// clear removes what is in memory of the members.
func (g *Group) clear() {
	for _, m := range g.Members {
		if inst, err := m.instance(g.crowd.dir); err == nil {
			inst.RemovePrivate()
		}
	}
}

// Close ends everything.
func (c *Crowd) Close() {
	c.mutex.Lock()
	groups := slices.Clone(c.groups)
	c.mutex.Unlock()
	for _, g := range groups {
		g.Kill()
	}
	c.Servers.stop()
}

// ProcessorTime is what the processes of the instances have taken that live, and this
// one.
func (c *Crowd) ProcessorTime() (used time.Duration) {
	c.mutex.Lock()
	groups := slices.Clone(c.groups)
	c.mutex.Unlock()
	for _, g := range groups {
		one, _ := processorTime(g.process.Process.Pid) // of one that was killed there is none
		used += one
	}
	own, _ := processorTime(os.Getpid())
	return used + own
}

// report is what a group says: a line of a member's log, or that it has ended and why.
type report struct {
	Node, Line string
	At         time.Time
	Ended      bool
}

// reporter writes reports, one at a time.
type reporter struct {
	mutex sync.Mutex
	out   io.Writer
}

func (r *reporter) say(what report) {
	what.At = time.Now()
	text, err := json.Marshal(what)
	if err != nil {
		return // it is text
	}
	r.mutex.Lock()
	defer r.mutex.Unlock()
	_, _ = r.out.Write(append(bytes.TrimSpace(text), '\n')) // who does not hear has ended, and ends this one
}
