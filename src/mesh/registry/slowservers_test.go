package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/consul-mesh/mesh-buildpack/src/droplet"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/consul"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/wait"
)

// slowServers have a catalog as Consul does, and take their time for what changes it:
// each write for itself, whether somebody still waits for the answer or not.
type slowServers struct {
	slow func() time.Duration // how long the next write takes

	mutex    sync.Mutex
	index    int
	changed  chan struct{}           // closed with the next change
	nodes    map[string]*slowNode    // by name
	sessions map[string]*slowSession // by id
	keys     map[string]string       // sessions by key
	written  map[string]int          // index at which a key was last
	values   map[string][]byte       // by key
	removed  map[string]int          // how often a node was
	asked    int                     // but for renewals of sessions, and how the catalog has who asks
	acquired int                     // tries to be the janitor
	silent   string                  // the server that answers nobody
	cutOff   map[string]bool         // instances that reach no server, by GUID
}

type slowNode struct {
	address  string
	meta     map[string]string
	services map[string]map[string]any // by id
	checks   map[string]consul.Check   // by id
}

type slowSession struct {
	node    string
	renewed time.Time
}

func newSlowServers(slow func() time.Duration) *slowServers {
	return &slowServers{
		slow: slow, index: 1, changed: make(chan struct{}), nodes: map[string]*slowNode{},
		sessions: map[string]*slowSession{}, keys: map[string]string{}, written: map[string]int{}, values: map[string][]byte{}, removed: map[string]int{},
	}
}

// answer is a status, and what is said with it.
type answer struct {
	status int
	body   any
	index  int
}

// RoundTrip implements http.RoundTripper.
func (s *slowServers) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	said := make(chan answer, 1)
	s.mutex.Lock()
	silent := s.silent == r.URL.Hostname() && s.silent != "" || s.cutOff[r.Header.Get(fromGUID)]
	s.mutex.Unlock()
	if silent {
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	isRenewal := strings.HasPrefix(r.URL.Path, "/v1/session/renew/")
	own := droplet.NodeName("app", r.Header.Get(fromGUID))
	if !isRenewal && !strings.HasSuffix(r.URL.Path, "/"+own) {
		s.mutex.Lock()
		s.asked++
		s.mutex.Unlock()
	}
	if r.Method == http.MethodPut && !isRenewal {
		var body []byte
		if r.Body != nil {
			var err error
			if body, err = io.ReadAll(r.Body); err != nil {
				return nil, err
			}
		}
		go func() {
			time.Sleep(s.slow())
			said <- s.change(r.URL, body)
		}()
	} else {
		go func() { said <- s.tell(r.Context(), r.URL) }()
	}
	select {
	case a := <-said:
		s.mutex.Lock()
		defer s.mutex.Unlock()
		text, err := json.Marshal(a.body)
		header := http.Header{"X-Consul-Index": {strconv.Itoa(max(1, a.index))}}
		return &http.Response{StatusCode: a.status, Header: header, Body: io.NopCloser(strings.NewReader(string(text)))}, err
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
}

// change carries out a write.
func (s *slowServers) change(u *url.URL, body []byte) answer {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	defer s.tick()
	refused := func(why string) answer { return answer{status: http.StatusInternalServerError, body: why} }
	switch {
	case u.Path == "/v1/catalog/register":
		var entry struct {
			catalogEntry
			SkipNodeUpdate bool
		}
		if err := json.Unmarshal(body, &entry); err != nil {
			return answer{status: http.StatusBadRequest, body: err.Error()}
		}
		node := s.nodes[entry.Node]
		if node == nil {
			node = &slowNode{services: map[string]map[string]any{}, checks: map[string]consul.Check{}}
		}
		for _, check := range entry.Checks {
			if node.services[check.ServiceID] == nil && entry.Service["ID"] != check.ServiceID {
				return refused("Missing service registration")
			}
		}
		if !entry.SkipNodeUpdate || s.nodes[entry.Node] == nil {
			node.address, node.meta = entry.Address, entry.NodeMeta
		}
		s.nodes[entry.Node] = node
		if id, ok := entry.Service["ID"].(string); ok {
			node.services[id] = entry.Service
		}
		for _, check := range entry.Checks {
			node.checks[check.CheckID] = check
		}
	case u.Path == "/v1/catalog/deregister":
		var gone struct{ Node, ServiceID string }
		if err := json.Unmarshal(body, &gone); err != nil {
			return answer{status: http.StatusBadRequest, body: err.Error()}
		}
		s.remove(gone.Node)
	case u.Path == "/v1/session/create":
		var wanted struct{ Node string }
		if err := json.Unmarshal(body, &wanted); err != nil {
			return answer{status: http.StatusBadRequest, body: err.Error()}
		}
		if s.nodes[wanted.Node] == nil {
			return refused("Missing node registration")
		}
		id := fmt.Sprint(s.index)
		s.sessions[id] = &slowSession{wanted.Node, time.Now()}
		return answer{status: http.StatusOK, body: map[string]string{"ID": id}}
	case strings.HasPrefix(u.Path, "/v1/kv/"):
		key, id := strings.TrimPrefix(u.Path, "/v1/kv/"), u.Query().Get("acquire")
		if id == "" && s.keys[key] == u.Query().Get("release") {
			s.keys[key], s.written[key] = "", s.index
			return answer{status: http.StatusOK, body: true}
		}
		if strings.Contains(key, ".janitor/") {
			s.acquired++
		}
		if s.sessions[id] == nil {
			return refused("invalid session")
		}
		if s.keys[key] == "" {
			s.keys[key], s.written[key], s.values[key] = id, s.index, body
		}
		return answer{status: http.StatusOK, body: s.keys[key] == id}
	default:
		return answer{status: http.StatusNotFound, body: u.Path}
	}
	return answer{status: http.StatusOK, body: true}
}

// remove takes a node away with all that it has. The mutex is held.
func (s *slowServers) remove(node string) {
	if s.nodes[node] != nil {
		s.removed[node]++
	}
	delete(s.nodes, node)
	for id, session := range s.sessions {
		if session.node == node {
			s.end(id)
		}
	}
}

// end ends a session. The mutex is held.
func (s *slowServers) end(id string) {
	delete(s.sessions, id)
	for key, holder := range s.keys {
		if holder == id {
			delete(s.keys, key)
			s.written[key] = s.index
		}
	}
}

// tick is after a change. The mutex is held.
func (s *slowServers) tick() {
	s.index++
	close(s.changed)
	s.changed = make(chan struct{})
}

// lastWritten is the index at which a key was written last, or any below a prefix. The
// mutex is held.
func (s *slowServers) lastWritten(key string) (index int) {
	for written, at := range s.written {
		if written == key || strings.HasSuffix(key, "/") && strings.HasPrefix(written, key) {
			index = max(index, at)
		}
	}
	return index
}

// endSessions ends those that are not renewed, as Consul does those of 10 s.
func (s *slowServers) endSessions(ctx context.Context) {
	for wait.Pause(ctx, time.Second) == nil {
		s.mutex.Lock()
		for id, session := range s.sessions {
			if time.Since(session.renewed) > 20*time.Second {
				s.end(id)
				s.tick()
			}
		}
		s.mutex.Unlock()
	}
}

// tell answers a question, and a renewal, at once.
func (s *slowServers) tell(ctx context.Context, u *url.URL) answer {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	last := u.Path[strings.LastIndex(u.Path, "/")+1:]
	list := []any{}
	switch {
	case u.Path == "/v1/status/leader":
		return answer{status: http.StatusOK, body: "10.0.0.1:8300"}
	case strings.HasPrefix(u.Path, "/v1/session/renew/"):
		if s.sessions[last] == nil {
			return answer{status: http.StatusNotFound, body: "no session"}
		}
		s.sessions[last].renewed = time.Now()
	case strings.HasPrefix(u.Path, "/v1/session/node/"):
		for id, session := range s.sessions {
			if session.node == last {
				list = append(list, map[string]string{"ID": id})
			}
		}
	case strings.HasPrefix(u.Path, "/v1/kv/"):
		key := strings.TrimPrefix(u.Path, "/v1/kv/")
		seen, _ := strconv.Atoi(u.Query().Get("index"))
		open, _ := time.ParseDuration(u.Query().Get("wait"))
		for over := time.After(open); seen > 0 && s.lastWritten(key) <= seen; {
			changed := s.changed
			s.mutex.Unlock()
			select {
			case <-changed:
				s.mutex.Lock()
				continue
			case <-over:
			case <-ctx.Done():
			}
			s.mutex.Lock()
			break
		}
		index := s.lastWritten(key)
		if !strings.HasSuffix(key, "/") {
			holder, there := s.keys[key]
			if !there {
				return answer{http.StatusNotFound, "", index}
			}
			return answer{http.StatusOK, []any{map[string]any{"Session": holder, "Value": s.values[key]}}, index}
		}
		for other := range s.keys {
			if strings.HasPrefix(other, key) {
				list = append(list, other)
			}
		}
		return answer{http.StatusOK, list, index}
	case strings.HasPrefix(u.Path, "/v1/catalog/node/"), strings.HasPrefix(u.Path, "/v1/health/node/"):
		node := s.nodes[last]
		switch {
		case node == nil:
		case strings.HasPrefix(u.Path, "/v1/catalog/"):
			return answer{status: http.StatusOK, body: map[string]any{"Node": map[string]string{"Address": node.address}, "Services": node.services}}
		default:
			for _, check := range node.checks {
				list = append(list, check)
			}
		}
	case u.Path == "/v1/catalog/nodes", strings.HasPrefix(u.Path, "/v1/catalog/service/"):
		for name, node := range s.nodes {
			has := func(service map[string]any) bool { return service["Service"] == last }
			isOne := last == "nodes" || slices.ContainsFunc(slices.Collect(maps.Values(node.services)), has)
			if filter := u.Query().Get("filter"); isOne && node.fits(u.Query()["node-meta"]) && (filter == "" || filter == fmt.Sprintf("Node == %q", name)) {
				list = append(list, map[string]any{"Node": name, "NodeMeta": node.meta})
			}
		}
	default:
		return answer{status: http.StatusNotFound, body: u.Path}
	}
	return answer{status: http.StatusOK, body: list}
}

// fits says that a node has all of some metadata, each as key:value.
func (n *slowNode) fits(meta []string) bool {
	return !slices.ContainsFunc(meta, func(pair string) bool {
		key, value, _ := strings.Cut(pair, ":")
		return n.meta[key] != value
	})
}

// fromGUID is the header that says which instance asks.
const fromGUID = "X-From"
