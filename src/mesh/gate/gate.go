// Package gate is both ends of what the app and its proxy say to each other: the gate
// where the app waits, and `mesh app`, which waits there.
package gate

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"

	"github.com/consul-mesh/mesh-buildpack/src/mesh/wait"
)

// The gate is where the app waits for its proxy. `mesh app` connects to a Unix
// socket in the run folder and says what it is about to run; the proxy
// answers when it may start, and later when it may stop. A connection lives as
// long as the command that is behind it, which is how the proxy knows when the
// app has ended.
//
//	app → proxy   AskStatus   not an app, but `mesh status`: the answer is JSON
//	              KindApp     the process's own start command
//	              kindMaybe   a command that nobody has declared: `cf push -c`,
//	                          or a sidecar from the app's manifest
//	proxy → app   SayStart    start it
//	              sayForeign  start it without me: it is somebody's sidecar
//	              SayStop     no caller sends requests any more
const (
	AskStatus  = "status"
	KindApp    = "app"
	kindMaybe  = "maybe"
	SayStart   = "start"
	sayForeign = "foreign"
	SayStop    = "stop"
)

// Gate is the proxy's side.
type Gate struct {
	Listener net.Listener

	mutex   sync.Mutex
	waiting map[net.Conn]string // connection → kind, before open
	running map[net.Conn]bool
	opened  bool
	stopped bool
	known   bool          // a declared command of the app has been here
	started bool          // some command of the app has been started
	Ended   chan struct{} // closed when the last command of the app has ended

	status func(context.Context) any // nil: nobody knows it yet
}

// New listens at a path for the app, and for who asks for the status.
func New(ctx context.Context, path string) (*Gate, error) {
	// A socket of a proxy that was killed in this container.
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("failed to clear the way for the app: %w", err)
	}
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("failed to listen for the app: %w", err)
	}
	g := &Gate{
		Listener: wait.Steady(listener),
		waiting:  map[net.Conn]string{},
		running:  map[net.Conn]bool{},
		Ended:    make(chan struct{}),
	}
	go g.accept()
	return g, nil
}

func (g *Gate) accept() {
	for {
		conn, err := g.Listener.Accept()
		if err != nil {
			return // closed
		}
		go g.serve(conn)
	}
}

// serve follows one command from its first word to its end.
func (g *Gate) serve(conn net.Conn) {
	defer conn.Close()
	lines := bufio.NewScanner(conn)
	if !lines.Scan() {
		return
	}
	if lines.Text() == AskStatus {
		g.sayStatus(conn)
		return
	}
	g.enter(conn, lines.Text())
	for lines.Scan() {
		// The app has nothing more to say; its end is what we wait for.
	}
	g.exit(conn)
}

// AnswerStatus says who knows the status.
func (g *Gate) AnswerStatus(status func(context.Context) any) {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	g.status = status
}

func (g *Gate) sayStatus(conn net.Conn) {
	g.mutex.Lock()
	status := g.status
	g.mutex.Unlock()
	if status != nil {
		// Who asked and has gone does not need the answer.
		_ = json.NewEncoder(conn).Encode(status(context.Background()))
	}
}

func (g *Gate) enter(conn net.Conn, kind string) {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	g.known = g.known || kind == KindApp
	g.waiting[conn] = kind
	if g.opened {
		g.answer()
	}
}

func (g *Gate) exit(conn net.Conn) {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	delete(g.waiting, conn)
	if g.running[conn] {
		delete(g.running, conn)
		g.checkEnded()
	}
}

func (g *Gate) checkEnded() {
	if g.started && len(g.running) == 0 {
		select {
		case <-g.Ended:
		default:
			close(g.Ended)
		}
	}
}

// answer lets every waiting command go. Where a declared command is among
// them, the others are somebody's sidecars.
func (g *Gate) answer() {
	for conn, kind := range g.waiting {
		delete(g.waiting, conn)
		if kind == kindMaybe && g.known {
			say(conn, sayForeign)
			continue
		}
		g.running[conn] = true
		g.started = true
		say(conn, SayStart)
		if g.stopped {
			say(conn, SayStop)
		}
	}
}

// Open lets the app start.
func (g *Gate) Open() {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	g.opened = true
	g.answer()
}

// Stop tells the app that no caller sends requests any more.
func (g *Gate) Stop() {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	g.stopped = true
	for conn := range g.running {
		say(conn, SayStop)
	}
}

// Occupied says whether the app is behind this gate.
func (g *Gate) Occupied() bool {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	return len(g.running) > 0
}

// say writes a word. A command that has ended does not hear it, and its
// connection's end tells so.
func say(conn net.Conn, word string) { _, _ = fmt.Fprintln(conn, word) }
