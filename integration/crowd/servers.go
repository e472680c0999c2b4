package crowd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/consul-mesh/mesh-buildpack/src/droplet"
)

// The ports of the servers.
const (
	HTTPPort = 8500
	GRPCPort = 8502
)

// serverCount is how many servers there are.
const serverCount = 3

// Servers are real Consul servers, each with an address of its own, and otherwise as
// Consul has them by default.
type Servers struct {
	net       byte // the second number of all addresses
	processes []*exec.Cmd
	ended     sync.WaitGroup
}

// startServers starts servers, and waits until they have a leader.
func startServers(ctx context.Context, consul, dir string) (*Servers, error) {
	const lowest, highest = 16, 250 // what others on the machine have is below
	s := &Servers{net: byte(lowest + rand.IntN(highest-lowest))}
	started := make(chan error, serverCount)
	for i := range serverCount {
		data := filepath.Join(dir, fmt.Sprint("server-", i))
		process := exec.Command(consul, s.arguments(i, data)...)
		process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		s.processes = append(s.processes, process)
		s.ended.Go(func() { run(process, data+".log", started) })
	}
	var err error
	for range serverCount {
		err = errors.Join(err, <-started)
	}
	for err == nil {
		if s.haveLeader(ctx) {
			return s, nil
		}
		select {
		case <-ctx.Done():
			err = fmt.Errorf("the servers have no leader: %w", ctx.Err())
		case <-time.After(look):
		}
	}
	s.stop()
	return nil, err
}

// run runs a process until it is killed, and says when it has started.
func run(process *exec.Cmd, path string, started chan<- error) {
	runtime.LockOSThread() // it ends with the thread that has started it
	log, err := os.Create(path)
	if err == nil {
		defer log.Close()
		process.Stdout, process.Stderr = log, log
		err = process.Start()
	}
	if err != nil {
		err = fmt.Errorf("failed to start Consul: %w", err)
	}
	started <- err
	if err == nil {
		_ = process.Wait() // it is killed
	}
}

// haveLeader says that all servers know a leader.
func (s *Servers) haveLeader(ctx context.Context) bool {
	for _, server := range s.Addresses() {
		var leader string
		if s.AskOf(ctx, server, http.MethodGet, "/v1/status/leader", nil, &leader) != nil || leader == "" {
			return false
		}
	}
	return true
}

func (s *Servers) arguments(i int, data string) []string {
	arguments := []string{
		"agent", "-server", fmt.Sprint("-bootstrap-expect=", serverCount), "-datacenter=cf", fmt.Sprint("-node=server-", i), "-data-dir=" + data,
		"-bind=" + s.address(i), "-client=" + s.address(i), fmt.Sprint("-http-port=", HTTPPort), fmt.Sprint("-grpc-port=", GRPCPort),
		"-grpc-tls-port=-1", "-serf-wan-port=-1", "-dns-port=-1", "-log-level=error", "-disable-host-node-id",
		"-hcl=disable_update_check=true", "-hcl=retry_interval=\"1s\"", "-hcl=performance { raft_multiplier = 1 }",
	}
	for _, other := range s.Addresses() {
		arguments = append(arguments, "-retry-join="+other)
	}
	return arguments
}

func (s *Servers) address(i int) string { return fmt.Sprintf("127.%d.0.%d", s.net, i+1) }

// Addresses are those of the servers.
func (s *Servers) Addresses() (all []string) {
	for i := range serverCount {
		all = append(all, s.address(i))
	}
	return all
}

// APIs are the servers' HTTP APIs.
func (s *Servers) APIs() (all []string) {
	for _, server := range s.Addresses() {
		all = append(all, fmt.Sprintf("http://%s:%d", server, HTTPPort))
	}
	return all
}

func (s *Servers) stop() {
	for _, process := range s.processes {
		if process.Process != nil {
			_ = process.Process.Kill() // it may have ended
		}
	}
	s.ended.Wait()
}

// Ask asks the first server.
func (s *Servers) Ask(ctx context.Context, path string, answer any) error {
	return s.AskOf(ctx, s.address(0), http.MethodGet, path, nil, answer)
}

// AskOf asks one server. What is not there is an empty answer.
func (s *Servers) AskOf(ctx context.Context, server, method, path string, body, answer any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, method, fmt.Sprintf("http://%s:%d%s", server, HTTPPort, path), bytes.NewReader(text))
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode == http.StatusNotFound { // there is nothing
		return nil
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", path, response.Status)
	}
	if answer == nil {
		return nil
	}
	return json.NewDecoder(response.Body).Decode(answer)
}

// Nodes are those in the catalog that are instances'.
func (s *Servers) Nodes(ctx context.Context) (map[string]bool, error) {
	var list []struct{ Node string }
	err := s.Ask(ctx, "/v1/catalog/nodes?node-meta=cf-process:"+process, &list)
	there := map[string]bool{}
	for _, node := range list {
		there[node.Node] = true
	}
	return there, err
}

// Passing counts the instances of a service that pass all their checks.
func (s *Servers) Passing(ctx context.Context, service string) (int, error) {
	var list []struct{}
	err := s.Ask(ctx, "/v1/health/connect/"+service+"?passing", &list)
	return len(list), err
}

// Janitor is the node of the janitor of a service, empty where there is none.
func (s *Servers) Janitor(ctx context.Context, service string) (node string, err error) {
	var key []struct {
		Session string
		Value   []byte
	}
	path := "/v1/kv/" + droplet.JanitorKey(service, service, process)
	if err := s.Ask(ctx, path, &key); err != nil || len(key) == 0 || key[0].Session == "" {
		return "", err
	}
	return node, json.Unmarshal(key[0].Value, &node)
}

// AwaitJanitor waits until a service has a janitor.
func (s *Servers) AwaitJanitor(ctx context.Context, service string) (node string, err error) {
	for {
		if node, err = s.Janitor(ctx, service); node != "" {
			return node, err
		}
		select {
		case <-ctx.Done():
			return "", errors.Join(fmt.Errorf("%s has no janitor: %w", service, ctx.Err()), err)
		case <-time.After(look):
		}
	}
}

// LogIndex is the number of the last entry in the servers' log that counts.
func (s *Servers) LogIndex(ctx context.Context) (int, error) {
	var self struct {
		Stats struct{ Raft map[string]string }
	}
	if err := s.Ask(ctx, "/v1/agent/self", &self); err != nil {
		return 0, err
	}
	return strconv.Atoi(self.Stats.Raft["applied_index"])
}
