package mesh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/consul-mesh/mesh-buildpack/integration/cell"
)

// TestLongRequests: what works without a mesh works with it: an answer that takes longer
// than Envoy waits by itself, and headers of more than it takes by itself. The entry
// that callers need for that is made again where it is deleted.
func TestLongRequests(t *testing.T) { inBothModes(t, longRequests) }

func longRequests(t *testing.T, m mode) {
	t.Parallel()
	name := "patient-" + m.name
	backend := m.start(t, m.echo(t, name, `protocol = "http"`))
	caller := m.start(t, m.echo(t, "caller-of-"+name, fmt.Sprintf("upstream %q { port = 9001 }", name)), name)
	served(t, caller, backend)
	entry := "/v1/config/service-resolver/" + backend.App().Name
	marked := func(ctx ctx) error {
		var there struct {
			RequestTimeout string
			Meta           map[string]string
		}
		err := shared.Consul(ctx, http.MethodGet, entry, nil, &there)
		if err == nil && (there.RequestTimeout != "24h0m0s" || there.Meta["consul-mesh-buildpack"] != backend.GUID()) {
			err = fmt.Errorf("there is %+v", there)
		}
		return err
	}
	eventually(t, "the entry is there", marked)
	t.Cleanup(func() { _ = shared.Consul(context.Background(), http.MethodDelete, entry, nil, nil) })
	eventually(t, "the caller has heard of it", func(ctx ctx) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1:19000/config_dump", nil)
		if err != nil {
			return err
		}
		response, err := caller.Instance(0).HTTPClient().Do(request)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		config, err := io.ReadAll(response.Body)
		if err == nil && !strings.Contains(string(config), `"timeout": "86400s"`) {
			err = errors.New("its routes have no such timeout")
		}
		return err
	})
	if err := ask(t, caller, "", strings.Repeat("x", 70<<10)); err != nil {
		t.Errorf("with a header of 70 KB: %v", err)
	}
	if err := ask(t, caller, "slow?ms=20000", ""); err != nil {
		t.Errorf("an answer after 20 s: %v", err)
	}

	if err := shared.Consul(t.Context(), http.MethodDelete, entry, nil, nil); err != nil {
		t.Fatal(err)
	}
	within(t, 2*time.Minute, "the entry is there again", marked)
}

// ask sends one request through the mesh.
func ask(t *testing.T, caller *cell.RunningApp, path, header string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, backURL+path, nil)
	if err != nil {
		return err
	}
	request.Header.Set("X-Long", header)
	response, err := caller.Instance(0).HTTPClient().Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("status %s", response.Status)
	}
	return nil
}
