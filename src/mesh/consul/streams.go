package consul

import (
	"context"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/consul-mesh/mesh-buildpack/src/mesh/instance"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/wait"
)

// streams are those of Envoys that are open. They stay where they are when the API is
// asked of another server, but not for long at one that has no leader: Envoy would
// hear of nothing there.
type streams struct {
	mutex   sync.Mutex
	open    map[*openStream]bool // guarded by mutex
	watched map[string]bool      // hosts that were left; guarded by mutex
	again   wait.Backoff         // of those that break
}

// openStream is one at a server.
type openStream struct {
	host string
	end  func()
}

// begin notes a stream until its context ends, or done says that it has.
func (s *streams) begin(request *http.Request, host string) (begun *http.Request, done func()) {
	ctx, cancel := context.WithCancel(request.Context())
	begun = request.WithContext(ctx)
	one := &openStream{host, func() {
		cancel()
		if request.Body != nil {
			_ = request.Body.Close() // the transport looks at ctx only when it has read what Envoy says
		}
	}}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.open == nil {
		s.open, s.watched = map[*openStream]bool{}, map[string]bool{}
	}
	s.open[one] = true
	done = func() {
		s.mutex.Lock()
		defer s.mutex.Unlock()
		delete(s.open, one)
	}
	context.AfterFunc(ctx, done)
	return begun, done
}

// at are those at a host.
func (s *streams) at(host string) (all []*openStream) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	for one := range s.open {
		if one.host == host {
			all = append(all, one)
		}
	}
	return all
}

// watch says that nobody watches a host yet, where there are streams.
func (s *streams) watch(host string) bool {
	if len(s.at(host)) == 0 {
		return false
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	defer func() { s.watched[host] = true }()
	return !s.watched[host]
}

func (s *streams) unwatch(host string) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	delete(s.watched, host)
}

// watchLeft ends Envoy's streams at a server that was left, and what else is open
// there, if it has no leader after a time either, and the one that is asked instead
// works.
func (t *ToServer) watchLeft(host string, hangUp func()) {
	if t.isXDS || !t.streams.watch(host) {
		return
	}
	go func() {
		defer t.streams.unwatch(host)
		for len(t.streams.at(host)) > 0 {
			<-time.After(instance.LeaderlessFor + rand.N(instance.LeaderlessFor/2))
			current, works := t.now()
			switch {
			case current == host:
				return
			case !works: // there is nothing better
			case t.hasLeader(host):
				return
			default:
				hangUp()
				for _, one := range t.streams.at(host) {
					one.end()
				}
			}
		}
	}()
}

// now is the server that is asked, empty without one, and whether it has done what it
// was asked for.
func (s *Servers) now() (host string, works bool) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.current, s.works
}

// hasLeader asks one server for its leader.
func (t *ToServer) hasLeader(host string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), instance.CallTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://servers"+leaderPath, nil)
	if err != nil {
		return false
	}
	request = t.addressed(request, host)
	response, err := t.Transport.RoundTrip(request)
	if err != nil {
		return false
	}
	defer response.Body.Close()
	leaderless := isLeaderless(request, response)
	_, _ = io.Copy(io.Discard, response.Body) // so that the connection can be used again
	return response.StatusCode == http.StatusOK && !leaderless
}
