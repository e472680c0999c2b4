package foundation

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/consul-mesh/mesh-buildpack/integration/cell"
)

// ServersApp is the name of the control plane's app, and of its internal
// route; SecureApp is that of a second one, which is closed by default.
const (
	ServersApp = "consul-server"
	SecureApp  = "secure-server"
)

// StartServers pushes the control plane, three instances of an ordinary app,
// and waits for a leader and for
// all of them to be in the catalog.
func (f *Foundation) StartServers(ctx context.Context) error {
	source, err := f.Source("consul-server", f.Binaries.Consul())
	if err != nil {
		return err
	}
	if f.Secure != nil {
		if err := f.Secure.configure(source, f.serverAddresses()); err != nil {
			return err
		}
	}
	err = f.Allow(
		cell.Policy{Source: f.serversApp, Destination: f.serversApp, Protocol: "tcp", Start: 8300, End: 8301},
		cell.Policy{Source: f.serversApp, Destination: f.serversApp, Protocol: "udp", Start: 8301},
	)
	if err != nil {
		return err
	}
	f.Servers, err = f.Push(ctx, cell.App{
		Name: f.serversApp, Dir: source, Instances: serverCount, Buildpacks: []cell.Buildpack{f.Last},
	})
	if err != nil {
		return err
	}
	err = Eventually(ctx, "the servers elect a leader", func(ctx context.Context) error {
		var leader string
		if err := f.Consul(ctx, http.MethodGet, "/v1/status/leader", nil, &leader); err != nil {
			return err
		}
		if leader == "" {
			return errors.New("no leader yet")
		}
		return nil
	})
	if err != nil {
		return err
	}
	if f.Secure != nil {
		if err := Eventually(ctx, "the servers have their token", f.serverToken); err != nil {
			return err
		}
	}
	return Eventually(ctx, "all servers are in the catalog", f.CatalogEmpty)
}

// serverCount is the number of instances of the control plane.
const serverCount = 3

// CatalogEmpty returns nil while the catalog has the servers and nothing else.
func (f *Foundation) CatalogEmpty(ctx context.Context) error {
	services, err := f.Services(ctx)
	if err != nil {
		return err
	}
	nodes, err := f.Nodes(ctx)
	if err != nil {
		return err
	}
	if len(services) > 0 || len(nodes) != serverCount {
		return fmt.Errorf("the catalog has services %v, nodes %v", services, nodes)
	}
	return nil
}

// Consul calls the servers' HTTP API, as an operator would. A nil answer is
// not read.
func (f *Foundation) Consul(ctx context.Context, method, path string, body, answer any) error {
	return f.ConsulAt(ctx, f.Servers.Instance(0), method, path, body, answer)
}

// ConsulAt is Consul at one of the servers.
func (f *Foundation) ConsulAt(ctx context.Context, server *cell.Instance, method, path string, body, answer any) error {
	var content io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return err
		}
		content = bytes.NewReader(text)
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://"+server.Address()+":8080"+path, content)
	if err != nil {
		return err
	}
	if f.Secure != nil {
		request.Header.Set("X-Consul-Token", f.Secure.Management)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s: %s: %s", method, path, response.Status, text)
	}
	if answer == nil {
		return nil
	}
	return json.Unmarshal(text, answer)
}

// Intention writes what a source may do to a destination, "allow" or "deny".
func (f *Foundation) Intention(ctx context.Context, source, destination, action string) error {
	return f.Consul(ctx, http.MethodPut, "/v1/config", map[string]any{
		"Kind": "service-intentions", "Name": destination,
		"Sources": []map[string]any{{"Name": source, "Action": action}},
	}, nil)
}

// RemoveIntentions removes all intentions of a destination.
func (f *Foundation) RemoveIntentions(ctx context.Context, destination string) error {
	return f.Consul(ctx, http.MethodDelete, "/v1/config/service-intentions/"+url.PathEscape(destination), nil, nil)
}

// Nodes lists the names of the nodes in the catalog.
func (f *Foundation) Nodes(ctx context.Context) ([]string, error) {
	var nodes []struct{ Node string }
	if err := f.Consul(ctx, http.MethodGet, "/v1/catalog/nodes", nil, &nodes); err != nil {
		return nil, err
	}
	var names []string
	for _, node := range nodes {
		names = append(names, node.Node)
	}
	return names, nil
}

// Services lists the names of the services in the catalog, "consul" left out.
func (f *Foundation) Services(ctx context.Context) ([]string, error) {
	var services map[string][]string
	if err := f.Consul(ctx, http.MethodGet, "/v1/catalog/services", nil, &services); err != nil {
		return nil, err
	}
	delete(services, "consul")
	var names []string
	for name := range services {
		names = append(names, name)
	}
	return names, nil
}

// Healthy lists the addresses of the instances of a service that callers are
// sent to, as address:port of their sidecars.
func (f *Foundation) Healthy(ctx context.Context, service string) ([]string, error) {
	var entries []struct {
		Node    struct{ Address string }
		Service struct {
			Address string
			Port    int
		}
	}
	err := f.Consul(ctx, http.MethodGet, "/v1/health/connect/"+url.PathEscape(service)+"?passing", nil, &entries)
	var addresses []string
	for _, entry := range entries {
		address := entry.Service.Address
		if address == "" {
			address = entry.Node.Address
		}
		addresses = append(addresses, fmt.Sprintf("%s:%d", address, entry.Service.Port))
	}
	return addresses, err
}

// MeshPolicies are the network policies that apps in agent mode need: RPC to
// the servers, gossip between all members in both directions, an app's own
// instances included, and each app to the sidecars of its upstreams.
func MeshPolicies(upstreams map[string][]string) []cell.Policy {
	var policies []cell.Policy
	gossip := func(from, to string) {
		policies = append(policies,
			cell.Policy{Source: from, Destination: to, Protocol: "tcp", Start: 8301},
			cell.Policy{Source: from, Destination: to, Protocol: "udp", Start: 8301})
	}
	for app, calls := range upstreams {
		policies = append(policies, cell.Policy{Source: app, Destination: ServersApp, Protocol: "tcp", Start: 8300})
		gossip(app, ServersApp)
		gossip(ServersApp, app)
		for other := range upstreams {
			gossip(app, other)
		}
		for _, upstream := range calls {
			policies = append(policies, cell.Policy{Source: app, Destination: upstream, Protocol: "tcp", Start: 21000})
		}
	}
	return policies
}

// AgentlessPolicies are those of apps without agents: the servers' APIs, which
// listen side by side so that one policy is enough, and each app to the sidecars of
// its upstreams.
func AgentlessPolicies(upstreams map[string][]string) []cell.Policy {
	return agentlessPolicies(upstreams, serverHTTP, serverGRPC)
}

// AgentlessTLSPolicies are those where the servers have TLS.
func AgentlessTLSPolicies(upstreams map[string][]string) []cell.Policy {
	return agentlessPolicies(upstreams, serverHTTPS, serverGRPCTLS)
}

// The servers' ports. Those with TLS are Consul's own. The HTTP API is where the
// platform looks for an app.
const (
	serverHTTP    = 8080
	serverGRPC    = 8081
	serverHTTPS   = 8501
	serverGRPCTLS = 8503
)

func agentlessPolicies(upstreams map[string][]string, start, end int) []cell.Policy {
	var policies []cell.Policy
	for app, calls := range upstreams {
		policies = append(policies, cell.Policy{Source: app, Destination: ServersApp, Protocol: "tcp", Start: start, End: end})
		for _, upstream := range calls {
			policies = append(policies, cell.Policy{Source: app, Destination: upstream, Protocol: "tcp", Start: 21000})
		}
	}
	return policies
}

// Eventually waits until a condition holds, and says what was seen last where
// it does not before ctx ends.
func Eventually(ctx context.Context, what string, condition func(context.Context) error) error {
	for {
		err := condition(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waited in vain until %s, last seen: %w", what, err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}
