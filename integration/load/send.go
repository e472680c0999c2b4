package load

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
)

func (p Plan) sender() sender {
	switch p.Kind {
	case TCPNew:
		return tcpNew{p}
	case TCPLong:
		s := &tcpLong{plan: p}
		for range p.Connections {
			s.lines = append(s.lines, make(chan *line, 1))
			s.lines[len(s.lines)-1] <- &line{}
		}
		return s
	}
	// All connections are kept: an open loop has many requests out at once.
	return httpSender{p.Target, &http.Client{Transport: &http.Transport{
		DialContext: p.Dial, MaxIdleConnsPerHost: 1000,
	}}}
}

type httpSender struct {
	target string
	client *http.Client
}

// send POSTs, because Go's client repeats a GET by itself and so would hide
// what is lost.
func (s httpSender) send(ctx context.Context, _ int) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, s.target, nil)
	if err != nil {
		return err
	}
	response, err := s.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d: %s", response.StatusCode, strings.TrimSpace(string(text)))
	}
	return nil
}

func (s httpSender) close() { s.client.CloseIdleConnections() }

type tcpNew struct{ plan Plan }

func (s tcpNew) send(ctx context.Context, n int) error {
	var l line
	defer l.close()
	return l.send(ctx, s.plan, n)
}

func (s tcpNew) close() {}

// tcpLong has its connections each in a channel of one, from which it is taken
// for the time of a line.
type tcpLong struct {
	plan  Plan
	lines []chan *line
}

func (s *tcpLong) send(ctx context.Context, n int) error {
	mine := s.lines[n%len(s.lines)]
	select {
	case l := <-mine:
		defer func() { mine <- l }()
		return l.send(ctx, s.plan, n)
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *tcpLong) close() {
	for _, mine := range s.lines {
		(<-mine).close()
	}
}

// line is a connection, open or not yet.
type line struct {
	conn   net.Conn
	answer *bufio.Reader
}

// send opens the connection where it is not, and closes it when anything goes
// wrong: the next line gets a new one.
func (l *line) send(ctx context.Context, plan Plan, n int) (err error) {
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	if l.conn == nil {
		conn, err := plan.Dial(ctx, "tcp", plan.Target)
		if err != nil {
			return err
		}
		l.conn, l.answer = conn, bufio.NewReader(conn)
	}
	deadline, _ := ctx.Deadline()
	if err := l.conn.SetDeadline(deadline); err != nil {
		return err
	}
	said := fmt.Sprintf("line %d\n", n)
	if _, err := io.WriteString(l.conn, said); err != nil {
		return err
	}
	heard, err := l.answer.ReadString('\n')
	if err != nil {
		return err
	}
	if heard != said {
		return fmt.Errorf("the answer to %q is %q", said, heard)
	}
	return nil
}

func (l *line) close() {
	if l.conn != nil {
		l.conn.Close()
	}
	l.conn = nil
}
