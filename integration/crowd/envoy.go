package crowd

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/consul-mesh/mesh-buildpack/src/droplet"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/envoy"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/instance"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/wait"
)

// standIn takes the place of an Envoy: it has its stream, takes all that it is told
// there, and answers on the admin API what the proxy asks.
type standIn struct {
	bootstrap
	sidecar   envoy.Sidecar
	client    http.Client
	connected atomic.Bool
	clusters  atomic.Int32 // times that it was told of these
	listeners atomic.Int32
}

// bootstrap is what it reads of an Envoy's bootstrap configuration.
type bootstrap struct {
	Node struct {
		Metadata map[string]string
	}
	StaticResources struct {
		Clusters []struct {
			LoadAssignment struct {
				Endpoints []struct {
					LbEndpoints []struct {
						Endpoint struct {
							Address struct{ Pipe struct{ Path string } }
						}
					} `json:"lb_endpoints"`
				}
			} `json:"load_assignment"`
		}
	} `json:"static_resources"`
	DynamicResources struct {
		AdsConfig struct {
			GrpcServices struct {
				InitialMetadata []struct{ Key, Value string } `json:"initial_metadata"`
			} `json:"grpc_services"`
		} `json:"ads_config"`
	} `json:"dynamic_resources"`
}

// pipe is the socket of the relay.
func (b bootstrap) pipe() string {
	for _, cluster := range b.StaticResources.Clusters {
		for _, locality := range cluster.LoadAssignment.Endpoints {
			for _, endpoint := range locality.LbEndpoints {
				if path := endpoint.Endpoint.Address.Pipe.Path; path != "" {
					return path
				}
			}
		}
	}
	return ""
}

// startEnvoy is a proxy.StartEnvoy.
func startEnvoy(_ instance.Instance, _ droplet.Envoy, s envoy.Sidecar, text []byte) (*envoy.Envoy, error) {
	in := &standIn{sidecar: s}
	if err := json.Unmarshal(text, &in.bootstrap); err != nil {
		return nil, err
	}
	socket := in.pipe()
	if socket == "" {
		return nil, errors.New("the bootstrap leads to no relay")
	}
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	var dialer net.Dialer
	in.client.Transport = &http.Transport{Protocols: &protocols, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return dialer.DialContext(ctx, "unix", socket)
	}}
	ctx, cancel := context.WithCancel(context.Background())
	e := &envoy.Envoy{Sidecar: s, Admin: "http://envoy", Exited: make(chan struct{}), Reason: errors.New("it was told to end")}
	e.HTTP.Transport = in
	var once sync.Once
	e.Signal = func(os.Signal) error {
		once.Do(func() {
			cancel()
			close(e.Exited)
		})
		return nil
	}
	go in.run(ctx)
	return e, nil
}

// again is after how long, at most, it begins another stream.
const again = time.Second

// run has a stream until ctx ends.
func (in *standIn) run(ctx context.Context) {
	for ctx.Err() == nil {
		_ = in.stream(ctx) // it is begun anew, whatever it has ended for
		in.connected.Store(false)
		_ = wait.Pause(ctx, rand.N(again))
	}
}

// What is asked for (Envoy: xDS protocol, resource types).
const (
	adsPath      = "http://relay/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
	clusterType  = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
	listenerType = "type.googleapis.com/envoy.config.listener.v3.Listener"
)

// Fields of DeltaDiscoveryRequest and DeltaDiscoveryResponse (Envoy:
// service.discovery.v3).
const (
	requestType   protowire.Number = 2
	requestNonce  protowire.Number = 6
	responseType  protowire.Number = 4
	responseNonce protowire.Number = 5
)

// stream takes what it is told until the stream ends.
func (in *standIn) stream(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	heard, says := io.Pipe()
	defer says.Close()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, adsPath, heard)
	if err != nil {
		return err
	}
	request.Header = http.Header{"Content-Type": {"application/grpc"}, "Te": {"trailers"}}
	for _, header := range in.DynamicResources.AdsConfig.GrpcServices.InitialMetadata {
		request.Header.Set(header.Key, header.Value)
	}
	ask := func(kind string, nonce string) error {
		message := wait.ProtoText(nil, requestType, kind)
		if nonce != "" {
			message = wait.ProtoText(message, requestNonce, nonce)
		}
		_, err := says.Write(wait.GRPCFrame(message))
		return err
	}
	go func() {
		_, err := says.Write(envoy.Introduction(in.sidecar, in.Node.Metadata["node_name"]))
		if err == nil {
			_ = errors.Join(ask(clusterType, ""), ask(listenerType, "")) // else the stream has ended
		}
	}()
	response, err := in.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if status := response.Header.Get("Grpc-Status"); status != "" {
		return fmt.Errorf("status %s", status)
	}
	in.connected.Store(true)
	for {
		kind, nonce, err := read(response.Body)
		if err != nil {
			return err
		}
		switch kind {
		case clusterType:
			in.clusters.Add(1)
		case listenerType:
			in.listeners.Add(1)
		}
		if err := ask(kind, nonce); err != nil {
			return err
		}
	}
}

// read reads a response, and gives what has to be said back.
func read(body io.Reader) (kind, nonce string, err error) {
	var head [5]byte // of a gRPC message: whether it is compressed, and how long it is
	if _, err := io.ReadFull(body, head[:]); err != nil {
		return "", "", err
	}
	message := make([]byte, binary.BigEndian.Uint32(head[1:]))
	if _, err := io.ReadFull(body, message); err != nil {
		return "", "", err
	}
	for len(message) > 0 {
		field, of, n := protowire.ConsumeTag(message)
		if n < 0 {
			return "", "", protowire.ParseError(n)
		}
		message = message[n:]
		if n = protowire.ConsumeFieldValue(field, of, message); n < 0 {
			return "", "", protowire.ParseError(n)
		}
		switch text, _ := protowire.ConsumeBytes(message); field {
		case responseType:
			kind = string(text)
		case responseNonce:
			nonce = string(text)
		}
		message = message[n:]
	}
	return kind, nonce, nil
}

// RoundTrip implements http.RoundTripper: it is the admin API.
func (in *standIn) RoundTrip(request *http.Request) (*http.Response, error) {
	text := "LIVE"
	switch {
	case request.URL.Path == "/stats":
		connected := 0
		if in.connected.Load() {
			connected = 1
		}
		text = fmt.Sprintf("control_plane.connected_state: %d\ncluster_manager.cds.update_success: %d\nlistener_manager.lds.update_success: %d\n"+
			"http.public_listener.downstream_rq_active: 0\nhttp.public_listener.downstream_rq_total: 0\n", connected, in.clusters.Load(), in.listeners.Load())
	case in.clusters.Load() == 0 || in.listeners.Load() == 0:
		text = "PRE_INITIALIZING"
	}
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(text)), Request: request}, nil
}
