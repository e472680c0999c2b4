package envoy

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"sync"

	"github.com/consul-mesh/mesh-buildpack/src/droplet"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/consul"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/wait"
)

// early has servers make the configurations of Envoys before they are there. A
// server begins with that when the first stream for a sidecar comes, and hands
// it out 200 ms later at the earliest (Consul 1.22, agent/proxycfg/state.go,
// coalesceTimeout), but to a further stream at once (agent/proxycfg/manager.go,
// Watch). So a first stream is begun while Envoy starts, with a message that the
// server keeps in mind and does not answer, and ended when Envoy's own is
// answered. A server that has no room for two of them refuses Envoy's, which
// then goes on with the first; without a first, with another server.
type FirstStreams struct {
	http.RoundTripper // to the servers

	mutex    sync.Mutex
	sidecars map[string]*sidecarStreams // by their ids; guarded by mutex
}

// sidecarStreams is what is known of the streams of one sidecar.
type sidecarStreams struct {
	begun  *firstStream  // until its Envoy comes; nil: none
	served bool          // its Envoy found one
	heard  chan struct{} // closed when its Envoy has an answer
}

// NewFirstStreams begins streams by way of a transport to the servers.
func NewFirstStreams(servers http.RoundTripper) *FirstStreams {
	return &FirstStreams{RoundTripper: servers, sidecars: map[string]*sidecarStreams{}}
}

// of gives what is known of a sidecar. The mutex is held.
func (s *FirstStreams) of(sidecar string) *sidecarStreams {
	if s.sidecars[sidecar] == nil {
		s.sidecars[sidecar] = &sidecarStreams{heard: make(chan struct{})}
	}
	return s.sidecars[sidecar]
}

// sidecarHeader is what an Envoy sends along with its stream: its sidecar's id.
const sidecarHeader = "mesh-sidecar"

// firstStream is a stream that no Envoy has yet.
type firstStream struct {
	cancel   context.CancelFunc
	says     *io.PipeWriter // what Envoy says, if it goes on with this one
	answered chan struct{}  // closed when response and err are set
	response *http.Response
	err      error
}

// begin opens a stream for a sidecar, in place of one that was begun before. It
// has no error: without it, Envoy waits for longer.
func (s *FirstStreams) begin(request *http.Request, sidecar string, first []byte) {
	s.mutex.Lock()
	before := s.of(sidecar).begun
	s.mutex.Unlock()
	s.open(request, sidecar, first, before, serverTries)
}

// serverTries is how many servers are asked: one may have streams enough.
const serverTries = 3

// open begins a stream, unless somebody else has begun one since before was (nil: none
// was). A server that is full is one of tries.
func (s *FirstStreams) open(request *http.Request, sidecar string, first []byte, before *firstStream, tries int) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.of(sidecar).begun != before {
		return
	}
	if before != nil {
		before.cancel()
	}
	ctx, cancel := context.WithCancel(context.Background())
	heard, says := io.Pipe()
	e := &firstStream{cancel: cancel, says: says, answered: make(chan struct{})}
	s.of(sidecar).begun = e
	attempt := request.WithContext(ctx)
	attempt.Body = after(first, heard)
	go func() {
		e.response, e.err = s.RoundTripper.RoundTrip(attempt)
		close(e.answered)
		if tries > 1 {
			s.open(request, sidecar, first, e, tries-1) // unless an Envoy has it
		}
	}()
}

// RoundTrip implements http.RoundTripper for what an Envoy asks.
func (s *FirstStreams) RoundTrip(request *http.Request) (*http.Response, error) {
	sidecar := request.Header.Get(sidecarHeader)
	request.Header.Del(sidecarHeader)
	response, err := s.pass(request, sidecar)
	if err == nil {
		s.noteAnswer(sidecar)
	}
	return response, err
}

func (s *FirstStreams) pass(request *http.Request, sidecar string) (*http.Response, error) {
	e := s.take(sidecar)
	if e != nil {
		context.AfterFunc(request.Context(), e.cancel)
	}
	envoy := newReplay(request.Context().Value(envoySays{}).(io.Reader))
	for tries := serverTries; ; tries-- {
		request.Body = envoy.hear()
		response, err := s.RoundTripper.RoundTrip(request)
		full := err == nil && consul.IsFull(response.Header)
		switch {
		case e != nil && (full || err != nil):
			if full {
				_ = response.Body.Close()
			}
			envoy.sayAgain(e.says)
			<-e.answered // or the end of request's context ends the stream
			return e.response, e.err
		case !full || tries == 1:
			if envoy.settle(); e != nil {
				e.cancel()
			}
			return response, err
		}
		_ = response.Body.Close()
	}
}

// replay is what an Envoy says, which can be said again to another until it is
// settled who listens.
type replay struct {
	mutex sync.Mutex
	to    *io.PipeWriter // guarded by mutex
	said  []byte         // guarded by mutex
	done  bool           // nothing more is kept; guarded by mutex
	end   error          // of what is said, nil before; guarded by mutex
}

// newReplay passes on what comes from body, in a goroutine of its own, to who
// hears it.
func newReplay(body io.Reader) *replay {
	_, nobody := io.Pipe()
	_ = nobody.Close() // it never fails
	s := &replay{to: nobody}
	go func() {
		buffer := smallBuffers{}.Get()
		for {
			n, err := body.Read(buffer)
			s.mutex.Lock()
			to := s.to
			if !s.done {
				s.said = append(s.said, buffer[:n]...)
			}
			s.mutex.Unlock()
			if n > 0 {
				_, _ = to.Write(buffer[:n]) // who does not listen any more has ended the stream
			}
			if err != nil {
				s.finish(err)
				return
			}
		}
	}()
	return s
}

func (s *replay) finish(err error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.end = err
	_ = s.to.CloseWithError(err) // it never fails
}

// hear gives everything from the beginning, to this listener alone.
func (s *replay) hear() io.ReadCloser {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	heard, to := io.Pipe()
	s.turnTo(to)
	return after(s.said, heard)
}

// after is a body of what was said, and of what is heard then.
func after(said []byte, heard *io.PipeReader) io.ReadCloser {
	return struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(said), heard), heard}
}

// turnTo has another listener hear what comes from now on. The mutex is held.
func (s *replay) turnTo(to *io.PipeWriter) {
	_ = s.to.Close() // it never fails
	s.to = to
	if s.end != nil {
		_ = to.CloseWithError(s.end)
	}
}

func (s *replay) settle() {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.said, s.done = nil, true
}

// sayAgain goes on with another listener, from the beginning.
func (s *replay) sayAgain(to *io.PipeWriter) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	_, _ = to.Write(s.said)
	s.turnTo(to)
	s.said, s.done = nil, true
}

// take gives away the stream that was begun for a sidecar, nil without one.
// Nothing was asked of it, so where there is an answer the server has refused
// it.
func (s *FirstStreams) take(sidecar string) *firstStream {
	s.mutex.Lock()
	known := s.of(sidecar)
	e := known.begun
	known.begun = nil
	refused := e != nil && isClosed(e.answered)
	known.served = known.served || e != nil && !refused
	s.mutex.Unlock()
	if !refused {
		return e
	}
	if e.err == nil {
		_ = e.response.Body.Close() // it may wait for the server, so not with the mutex
	}
	e.cancel()
	return nil
}

func isClosed(done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	default:
		return false
	}
}

// Served says whether a stream had been begun for a sidecar when its Envoy came.
func (s *FirstStreams) Served(sidecar string) bool {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.of(sidecar).served
}

// Answered is closed when the Envoy of a sidecar has heard from a server.
func (s *FirstStreams) Answered(sidecar string) <-chan struct{} {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.of(sidecar).heard
}

func (s *FirstStreams) noteAnswer(sidecar string) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if heard := s.of(sidecar).heard; !isClosed(heard) {
		close(heard)
	}
}

// forget ends what was begun and is nobody's.
func (s *FirstStreams) forget() {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	for _, known := range s.sidecars {
		if known.begun != nil {
			known.begun.cancel()
			known.begun = nil
		}
	}
}

// Introduction is the first message of a stream (Envoy: service.discovery.v3,
// DeltaDiscoveryRequest). It says
// which Envoy this is, and asks for the one type that Consul has none of.
func Introduction(s Sidecar, node string) []byte {
	const runtimeType = "type.googleapis.com/envoy.service.runtime.v3.Runtime"
	var metadata []byte
	for _, pair := range [][2]string{{"namespace", "default"}, {"partition", "default"}, {"node_name", node}} {
		metadata = wait.ProtoMessage(metadata, 1, wait.ProtoText(nil, 1, pair[0]), wait.ProtoMessage(nil, 2, wait.ProtoText(nil, 3, pair[1])))
	}
	from := wait.ProtoText(wait.ProtoText(nil, 1, droplet.SidecarID(s.ID)), 2, s.Name)
	from = wait.ProtoMessage(from, 3, metadata)
	request := wait.ProtoText(wait.ProtoMessage(nil, 1, from), 2, runtimeType)
	return wait.GRPCFrame(request)
}
