// Package meshtest has what the tests of the packages beside it share: an agent or
// servers that answer as a script says, and instances made of files.
package meshtest

import (
	"context"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// Transport are servers that answer as a function says: a status, and a body.
type Transport func(path string) (status int, body string)

func (s Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	status, body := s(r.URL.Path)
	if status == 0 {
		return nil, context.DeadlineExceeded
	}
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body))}, nil
}

// RoundTripper is a function that answers requests.
type RoundTripper func(*http.Request) (*http.Response, error)

func (f RoundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// Script is an agent that answers by a path's first words, and writes down what
// it was asked.
type Script struct {
	mutex   sync.Mutex
	Answers map[string]func(before int) (status int, body string) // guarded by mutex
	asked   []string                                              // guarded by mutex
}

// Answer is a Transport.
func (s *Script) Answer(path string) (int, string) {
	s.mutex.Lock()
	known := len(s.asked)
	before := 0
	var answer func(int) (int, string)
	for prefix, f := range s.Answers {
		if strings.HasPrefix(path, prefix) {
			answer = f
			for _, earlier := range s.asked[:known] {
				if strings.HasPrefix(earlier, prefix) {
					before++
				}
			}
		}
	}
	s.asked = append(s.asked, path)
	s.mutex.Unlock()
	if answer == nil {
		return http.StatusOK, "null"
	}
	return answer(before)
}

// Count is how often something that begins so was asked for.
func (s *Script) Count(path string) int {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return len(slices.DeleteFunc(slices.Clone(s.asked), func(asked string) bool { return !strings.HasPrefix(asked, path) }))
}

// Paths that an agent is asked for.
const (
	AskMembers    = "/v1/agent/members"
	AskLeader     = "/v1/status/leader"
	AskSidecar    = "/v1/agent/service/one-sidecar-proxy"
	AskCatalog    = "/v1/catalog/node-services/"
	AskNode       = "/v1/catalog/node/"
	TellRegister  = "/v1/agent/service/register"
	TellGone      = "/v1/agent/service/deregister/"
	TellNodeGone  = "/v1/catalog/deregister"
	AskVersion    = "/v1/agent/version"
	ServerAndSelf = `[{"Status": 1, "Tags": {"role": "consul"}}]`
)

// Listen serves every connection of a port on loopback.
func Listen(t *testing.T, serve func(net.Conn)) (address string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				serve(conn)
			}()
		}
	}()
	return listener.Addr().String()
}

// Eventually waits until a condition holds, ten seconds at most.
func Eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !condition(); {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for: %s", what)
		}
		<-time.After(2 * time.Millisecond)
	}
}
