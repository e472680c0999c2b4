package foundation

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/consul-mesh/mesh-buildpack/integration/cell"
)

// HotRODUpstreams are HotROD's services and whom each calls.
var HotRODUpstreams = map[string][]string{
	"frontend": {"customer", "driver", "route"},
	"customer": nil, "driver": nil, "route": nil,
}

// PushHotROD pushes HotROD's four services as four apps, with exactly the
// network policies that they need.
func (f *Foundation) PushHotROD(ctx context.Context) error {
	if err := f.Allow(f.HotRODPolicies()...); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	for name := range HotRODUpstreams {
		group.Go(func() error {
			source, err := f.Source("hotrod/"+name, f.Binaries.HotROD())
			if err != nil {
				return err
			}
			if f.Agentless {
				if err := f.withoutAgent(source); err != nil {
					return err
				}
			}
			app := cell.App{Name: name, Dir: source}
			if f.Secure != nil {
				binding, err := f.Binding(ctx, name, source)
				if err != nil {
					return err
				}
				if err := f.Intend(ctx, source); err != nil {
					return err
				}
				app.VcapServices = Bind(binding)
			}
			_, err = f.Push(ctx, app)
			return err
		})
	}
	return group.Wait()
}

// HotRODPolicies are the network policies of HotROD as it is pushed here.
func (f *Foundation) HotRODPolicies() []cell.Policy {
	switch {
	case !f.Agentless:
		return MeshPolicies(HotRODUpstreams)
	case f.Secure != nil:
		return AgentlessTLSPolicies(HotRODUpstreams)
	}
	return AgentlessPolicies(HotRODUpstreams)
}

// withoutAgent changes an app's source from agent mode, with the servers' ports
// where they are not Consul's own.
func (f *Foundation) withoutAgent(source string) error {
	path := filepath.Join(source, "mesh.hcl")
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	const block = "consul {\n"
	if strings.Count(string(text), block) != 1 {
		return fmt.Errorf("%s has no block consul to change", path)
	}
	lines := AgentlessLines
	if f.Secure != nil {
		lines = agentlessMode // the ports are Consul's own
	}
	// Without an agent the datacenter is the servers', and may not be said.
	without := strings.NewReplacer(block, block+lines+"\n", "  datacenter = \"cf\"\n", "").Replace(string(text))
	return os.WriteFile(path, []byte(without), 0o644)
}

// AgentlessLines are for the block consul of an app without an agent, where the
// servers have no TLS.
var AgentlessLines = fmt.Sprintf("%s\n  ports {\n    http = %d\n    grpc = %d\n  }", agentlessMode, serverHTTP, serverGRPC)

const agentlessMode = `  mode = "agentless"`

// Dispatch is the frontend's answer: data from driver and route, for a
// location from customer.
type Dispatch struct {
	Driver string
	ETA    int64 // nanoseconds
}

// Dispatch asks the frontend, through the router, for a ride. HotROD answers
// 200 with "null" while one of its services cannot be reached: an error here.
func (f *Foundation) Dispatch(ctx context.Context) (Dispatch, string, error) {
	var dispatch Dispatch
	text, err := f.Route(ctx, "frontend", "/dispatch?customer=123")
	if err != nil {
		return dispatch, text, err
	}
	if err := json.Unmarshal([]byte(text), &dispatch); err != nil || dispatch.Driver == "" {
		return dispatch, text, fmt.Errorf("no driver in the answer %q", text)
	}
	return dispatch, text, nil
}

// Route GETs a path from an app through the platform's router.
func (f *Foundation) Route(ctx context.Context, app, path string) (string, error) {
	recorder := httptest.NewRecorder()
	f.Router().ServeHTTP(recorder, httptest.NewRequestWithContext(ctx, http.MethodGet, "http://"+app+".localhost"+path, nil))
	return read(recorder.Result())
}

// From GETs a URL from inside an instance's container.
func From(ctx context.Context, instance *cell.Instance, url string) (string, error) {
	text, _, err := FromWithHeader(ctx, instance, url)
	return text, err
}

// FromWithHeader is From that gives the answer's header as well.
func FromWithHeader(ctx context.Context, instance *cell.Instance, url string) (string, http.Header, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", nil, err
	}
	response, err := instance.HTTPClient().Do(request)
	if err != nil {
		return "", nil, err
	}
	text, err := read(response)
	return text, response.Header, err
}

// StatusError is an answer other than 200.
type StatusError struct {
	Status int
	Text   string
}

func (e *StatusError) Error() string { return fmt.Sprintf("status %d: %s", e.Status, e.Text) }

func read(response *http.Response) (string, error) {
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		return "", err
	}
	text := strings.TrimSpace(string(content))
	if response.StatusCode != http.StatusOK {
		return text, &StatusError{response.StatusCode, text}
	}
	return text, nil
}
