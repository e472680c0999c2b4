package runtime

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/consul-mesh/mesh-buildpack/src/droplet"
)

// early begins the streams of Envoys before they are there. A server makes the
// configuration of an Envoy when its stream begins, and has it 200 ms later at
// the earliest (Consul 1.22, agent/proxycfg/state.go, coalesceTimeout); an Envoy
// takes half of that to start. What Envoy says on the stream is passed on as it
// is, after a first message that the server keeps in mind and does not answer.
type early struct {
	http.RoundTripper // to the servers

	mutex sync.Mutex
	begun map[string]*earlyStream // by the sidecar's id, until its Envoy comes; guarded by mutex
	went  map[string]bool         // the sidecars whose Envoys went on with theirs; guarded by mutex
}

// sidecarHeader is what an Envoy sends along with its stream: its sidecar's id.
const sidecarHeader = "mesh-sidecar"

// earlyStream is a stream that no Envoy has yet.
type earlyStream struct {
	cancel   context.CancelFunc
	says     *io.PipeWriter // what Envoy says, when there is one
	answered chan struct{}  // closed when response and err are set
	response *http.Response
	err      error
}

// begin opens the stream of a sidecar, in place of one that was begun before. It
// has no error: without it, Envoy begins its own.
func (s *early) begin(request *http.Request, sidecar string, first []byte) {
	s.mutex.Lock()
	before := s.begun[sidecar]
	s.mutex.Unlock()
	s.open(request, sidecar, first, before, earlyTries)
}

// earlyTries is how many servers are asked: one may have streams enough.
const earlyTries = 3

// open is begin for as long as before, nil for none, is what was begun.
func (s *early) open(request *http.Request, sidecar string, first []byte, before *earlyStream, tries int) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.begun[sidecar] != before {
		return
	}
	if before != nil {
		before.cancel()
	}
	ctx, cancel := context.WithCancel(context.Background())
	heard, says := io.Pipe()
	e := &earlyStream{cancel: cancel, says: says, answered: make(chan struct{})}
	s.begun[sidecar] = e
	attempt := request.WithContext(ctx)
	attempt.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(first), heard), heard}
	go func() {
		e.response, e.err = s.RoundTripper.RoundTrip(attempt)
		close(e.answered)
		if tries > 1 {
			s.open(request, sidecar, first, e, tries-1) // unless an Envoy has it
		}
	}()
}

// RoundTrip implements http.RoundTripper for what an Envoy asks.
func (s *early) RoundTrip(request *http.Request) (*http.Response, error) {
	sidecar := request.Header.Get(sidecarHeader)
	request.Header.Del(sidecarHeader)
	request.Body = request.Context().Value(envoySays{}).(io.ReadCloser)
	e := s.take(sidecar)
	if e == nil {
		return s.RoundTripper.RoundTrip(request)
	}
	context.AfterFunc(request.Context(), e.cancel)
	go func() {
		_, err := io.CopyBuffer(e.says, request.Body, smallBuffers{}.Get())
		_ = e.says.CloseWithError(err) // it never fails
	}()
	<-e.answered // or the end of request's context ends the stream
	return e.response, e.err
}

// take gives away the stream that was begun for a sidecar, nil without one.
// Nothing was asked of it, so where there is an answer the server has refused
// it.
func (s *early) take(sidecar string) *earlyStream {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	e := s.begun[sidecar]
	if e == nil {
		return nil
	}
	delete(s.begun, sidecar)
	select {
	case <-e.answered:
		if e.err == nil {
			_ = e.response.Body.Close()
		}
		e.cancel()
		return nil
	default:
		s.went[sidecar] = true
		return e
	}
}

// wentOn says whether a sidecar's Envoy went on with the stream that was begun
// for it.
func (s *early) wentOn(sidecar string) bool {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.went[sidecar]
}

// forget ends what was begun and is nobody's.
func (s *early) forget() {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	for sidecar, e := range s.begun {
		e.cancel()
		delete(s.begun, sidecar)
	}
}

// introduction is the first message of a stream (Envoy: service.discovery.v3,
// DeltaDiscoveryRequest; gRPC over HTTP/2: a length-prefixed message). It says
// which Envoy this is, and asks for the one type that Consul has none of. It is
// nil without the version of the Envoy, which the server wants to know.
func introduction(r *registration, node, version string) []byte {
	numbers := strings.Split(version, ".")
	if len(numbers) != 3 {
		return nil
	}
	var semantic []byte
	for i, text := range numbers {
		n, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return nil
		}
		semantic = protowire.AppendVarint(protowire.AppendTag(semantic, protowire.Number(i+1), protowire.VarintType), n)
	}
	const runtimeType = "type.googleapis.com/envoy.service.runtime.v3.Runtime"
	var metadata []byte
	for _, pair := range [][2]string{{"namespace", "default"}, {"partition", "default"}, {"node_name", node}} {
		metadata = message(metadata, 1, text(nil, 1, pair[0]), message(nil, 2, text(nil, 3, pair[1])))
	}
	from := text(text(nil, 1, droplet.SidecarID(r.ID)), 2, r.name)
	from = message(from, 3, metadata)
	from = message(text(from, 6, "envoy"), 8, message(nil, 1, semantic))
	request := text(message(nil, 1, from), 2, runtimeType)
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(request))), request...)
}

// message appends a field that consists of others.
func message(to []byte, field protowire.Number, parts ...[]byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(to, field, protowire.BytesType), bytes.Join(parts, nil))
}

func text(to []byte, field protowire.Number, value string) []byte {
	return message(to, field, []byte(value))
}
