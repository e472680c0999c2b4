package crowd

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"github.com/consul-mesh/mesh-buildpack/src/mesh/proxy"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/registry"
)

// orders is what a group is told, on its standard input. When that is closed, its
// members stop.
type orders struct {
	Dir   string
	Seats []seat
	Every time.Duration // between two starts
}

// groupEnv is set in the environment of a group.
const groupEnv = "MESH_CROWD_GROUP"

// gcPercent spends memory to save the processors, which the servers need.
const gcPercent = 400

// Main runs a group, and ends the process then, where it was started for that.
func Main() {
	if os.Getenv(groupEnv) == "" {
		return
	}
	runtime.GOMAXPROCS(1) // as in a container
	debug.SetGCPercent(gcPercent)
	if err := runGroup(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "crowd:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func runGroup(in io.Reader, out io.Writer) error {
	input := bufio.NewReader(in)
	text, err := input.ReadBytes('\n')
	if err != nil {
		return err
	}
	var o orders
	if err := json.Unmarshal(text, &o); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, input) // until it is closed
		stop()
	}()
	port, err := listen()
	if err != nil {
		return err
	}
	says := &reporter{out: out}
	var group sync.WaitGroup
	ticker := time.NewTicker(max(o.Every, time.Microsecond))
	defer ticker.Stop()
	for _, s := range o.Seats {
		s.Port = port
		group.Go(func() { says.end(s.live(ctx, o.Dir, says)) })
		select {
		case <-ticker.C:
		case <-ctx.Done():
		}
	}
	group.Wait()
	return nil
}

// end says that a member has ended.
func (r *reporter) end(node string, err error) {
	r.say(report{Node: node, Line: fmt.Sprint(err), Ended: true})
}

// listen is the app of all members of a group: it is healthy.
func listen() (port int, err error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	server := http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), ReadHeaderTimeout: time.Minute}
	go func() { _ = server.Serve(listener) }() // until the process ends
	return listener.Addr().(*net.TCPAddr).Port, nil
}

// live is an instance from its start to its end.
func (s seat) live(ctx context.Context, dir string, says *reporter) (node string, err error) {
	inst, err := s.instance(dir)
	if err != nil {
		return "", err
	}
	node = inst.NodeName()
	if err := inst.MakeRunDir(); err != nil {
		return node, err
	}
	config, err := inst.Config()
	if err != nil {
		return node, err
	}
	log := func(format string, args ...any) { says.say(report{Node: node, Line: fmt.Sprintf(format, args...)}) }
	n, err := registry.NewNode(inst, config, log)
	if err != nil {
		return node, err
	}
	n.From = &net.TCPAddr{IP: s.Address.AsSlice()}
	return node, proxy.RunNode(ctx, n, startEnvoy)
}
