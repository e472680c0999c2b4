// Package load sends requests at a fixed rate and counts those that are lost.
// It knows neither cell nor Consul: the connections are made by whom it is
// given, so that the requests can come from inside a container.
//
// The rate is kept whatever the answers do (an open loop): a stall of half a
// second at 200 requests a second is a hundred late requests, not one.
package load

import (
	"context"
	"net"
	"sync"
	"time"
)

// Kind is how a request is made.
type Kind string

// The kinds. Each TCP request is a line, and the answer is to be the same line.
const (
	HTTP    Kind = "http"     // POST on connections that are kept; lost unless 200
	TCPNew  Kind = "tcp-new"  // a connection for each line
	TCPLong Kind = "tcp-long" // lines on a few connections that stay open
)

// Plan says what is sent.
type Plan struct {
	Kind Kind
	// Target is the URL of HTTP, the host and port of the others.
	Target string
	// Rate is requests a second.
	Rate int
	// Dial makes the connections.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Timeout is how long an answer may take, counted from when the request
	// was due. Defaults to 3 s.
	Timeout time.Duration
	// Connections is the number of TCPLong's. Defaults to 9.
	Connections int
}

// Load is a plan that is being carried out.
type Load struct {
	plan   Plan
	begun  time.Time
	stop   chan struct{}
	ended  chan struct{}
	mutex  sync.Mutex
	record record // guarded by mutex
}

// sender makes the requests of a kind. send returns when the answer is there;
// n is the number of the request, from 0.
type sender interface {
	send(ctx context.Context, n int) error
	close()
}

// Start begins to send.
func Start(plan Plan) *Load {
	if plan.Timeout == 0 {
		plan.Timeout = 3 * time.Second
	}
	if plan.Connections == 0 {
		plan.Connections = 9
	}
	l := &Load{plan: plan, begun: time.Now(), stop: make(chan struct{}), ended: make(chan struct{})}
	go l.run()
	return l
}

// Stop sends no more, waits for the answers that are out, and returns what was
// counted.
func (l *Load) Stop() Result {
	close(l.stop)
	<-l.ended
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return l.record.result()
}

// Lost is the number of requests that were lost until now.
func (l *Load) Lost() int {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return len(l.record.losses)
}

func (l *Load) run() {
	defer close(l.ended)
	sender := l.plan.sender()
	defer sender.close()
	var group sync.WaitGroup
	defer group.Wait()
	for n := 0; ; n++ {
		due := l.begun.Add(time.Duration(n) * time.Second / time.Duration(l.plan.Rate))
		select {
		case <-l.stop:
			return
		case <-time.After(time.Until(due)):
		}
		group.Go(func() { l.send(sender, n, due) })
	}
}

func (l *Load) send(s sender, n int, due time.Time) {
	ctx, cancel := context.WithDeadline(context.Background(), due.Add(l.plan.Timeout))
	defer cancel()
	err := s.send(ctx, n)
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.record.add(due, time.Since(due), err)
}
