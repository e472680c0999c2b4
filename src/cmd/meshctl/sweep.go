package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// coming is how long an instance that is just being registered may have no session
// (BareFor of src/mesh/instance/budgets.go).
const coming = 30 * time.Second

// catalogNode is a node of an instance without an agent, as the catalog has it.
type catalogNode struct {
	Node, Address string
	Meta          map[string]string
}

// sweep lists the nodes that dead instances without agents have left, and takes them
// out of the catalog where it is told to. While one instance of their service and app
// lives, it does so by itself.
func (c *command) sweep() func(string) error {
	remove := c.flags.Bool("delete", false, "take them out of the catalog")
	wait := c.flags.Duration("wait", coming, "how long they have to be without a session")
	return func(file string) error {
		if file != "" {
			return fmt.Errorf("sweep: want no file, got %q\n%s", file, usage)
		}
		consul, err := newConsulAPI(os.Getenv)
		if err != nil {
			return err
		}
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
		defer stop()
		dead, err := consul.withoutSession(ctx)
		if err != nil || len(dead) == 0 {
			return c.listDead(dead, err)
		}
		fmt.Fprintf(c.err, "%d nodes have no session, looking again in %v…\n", len(dead), *wait)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(*wait):
		}
		still, err := consul.withoutSession(ctx)
		dead = slices.DeleteFunc(dead, func(node catalogNode) bool {
			return !slices.ContainsFunc(still, func(other catalogNode) bool { return other.Node == node.Node })
		})
		if err := c.listDead(dead, err); err != nil || len(dead) == 0 {
			return err
		}
		if !*remove {
			_, err := fmt.Fprintln(c.out, "Nothing was changed: meshctl sweep -delete takes them out of the catalog.")
			return err
		}
		for _, node := range dead {
			if err := consul.deregister(ctx, node.Node); err != nil {
				return fmt.Errorf("failed to take %s out of the catalog: %w", node.Node, err)
			}
		}
		_, err = fmt.Fprintf(c.out, "%d nodes were taken out of the catalog.\n", len(dead))
		return err
	}
}

// listDead prints a table of nodes.
func (c *command) listDead(dead []catalogNode, err error) error {
	if err != nil {
		return err
	}
	if len(dead) == 0 {
		_, err := fmt.Fprintln(c.out, "Every node of an instance without an agent has a session.")
		return err
	}
	slices.SortFunc(dead, func(a, b catalogNode) int { return cmp.Compare(a.Node, b.Node) })
	table := tabwriter.NewWriter(c.out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(table, "node\tapp\tprocess\tindex\taddress")
	for _, node := range dead {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", node.Node, node.Meta["cf-app"], node.Meta["cf-process"], node.Meta["cf-index"], node.Address)
	}
	return table.Flush()
}

// consulAPI is Consul's HTTP API, found as Consul's own program finds it.
type consulAPI struct {
	base, token string
	client      http.Client
}

func newConsulAPI(getenv func(string) string) (*consulAPI, error) {
	address := cmp.Or(getenv("CONSUL_HTTP_ADDR"), "127.0.0.1:8500")
	if !strings.Contains(address, "://") {
		scheme := "http"
		if getenv("CONSUL_HTTP_SSL") == "true" {
			scheme = "https"
		}
		address = scheme + "://" + address
	}
	base, err := url.Parse(address)
	if err != nil || base.Host == "" || base.Scheme != "http" && base.Scheme != "https" {
		return nil, fmt.Errorf("CONSUL_HTTP_ADDR is %q\nhint: it wants an address such as https://consul.example.com:8501", address)
	}
	c := &consulAPI{base: strings.TrimSuffix(base.String(), "/"), token: getenv("CONSUL_HTTP_TOKEN"), client: http.Client{Timeout: time.Minute}}
	if file := getenv("CONSUL_HTTP_TOKEN_FILE"); c.token == "" && file != "" {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("failed to read CONSUL_HTTP_TOKEN_FILE: %w", err)
		}
		c.token = strings.TrimSpace(string(text))
	}
	if file := getenv("CONSUL_CACERT"); file != "" {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("failed to read CONSUL_CACERT: %w", err)
		}
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("CONSUL_CACERT names %s, which has no certificate in PEM", file)
		}
		transport := http.DefaultTransport.(*http.Transport).Clone()
		transport.TLSClientConfig = &tls.Config{RootCAs: roots, ServerName: getenv("CONSUL_TLS_SERVER_NAME")}
		c.client.Transport = transport
	}
	return c, nil
}

// withoutSession lists the nodes of instances without agents that have none.
func (c *consulAPI) withoutSession(ctx context.Context) ([]catalogNode, error) {
	var nodes []catalogNode
	if err := c.call(ctx, http.MethodGet, "/v1/catalog/nodes?consistent&node-meta=cf-agentless:true", nil, &nodes); err != nil {
		return nil, fmt.Errorf("failed to list the nodes: %w", err)
	}
	var sessions []struct{ Node string }
	if err := c.call(ctx, http.MethodGet, "/v1/session/list?consistent", nil, &sessions); err != nil {
		return nil, fmt.Errorf("failed to list the sessions: %w", err)
	}
	alive := map[string]bool{}
	for _, session := range sessions {
		alive[session.Node] = true
	}
	return slices.DeleteFunc(nodes, func(node catalogNode) bool { return alive[node.Node] }), nil
}

// deregister takes a node out of the catalog, with all that it has.
func (c *consulAPI) deregister(ctx context.Context, node string) error {
	var sessions []struct{}
	if err := c.call(ctx, http.MethodGet, "/v1/session/node/"+url.PathEscape(node)+"?consistent", nil, &sessions); err != nil || len(sessions) > 0 {
		return err // it has just come back
	}
	return c.call(ctx, http.MethodPut, "/v1/catalog/deregister", map[string]string{"Node": node}, nil)
}

// errHidden says that who is not seen may live.
var errHidden = errors.New("the token may not see everything\nhint: sweep needs node_prefix \"\" write and session_prefix \"\" read, in CONSUL_HTTP_TOKEN")

func (c *consulAPI) call(ctx context.Context, method, path string, body, answer any) error {
	var content bytes.Buffer
	if body != nil {
		if err := json.NewEncoder(&content).Encode(body); err != nil {
			return err
		}
	}
	request, err := http.NewRequestWithContext(ctx, method, c.base+path, &content)
	if err != nil {
		return err
	}
	if c.token != "" {
		request.Header.Set("X-Consul-Token", c.token)
	}
	response, err := c.client.Do(request)
	if err != nil {
		return fmt.Errorf("%w\nhint: CONSUL_HTTP_ADDR names the servers, CONSUL_CACERT the CA of their certificate", err)
	}
	defer response.Body.Close()
	switch {
	case response.StatusCode == http.StatusForbidden || response.Header.Get("X-Consul-Results-Filtered-By-ACLs") == "true":
		return errHidden
	case response.StatusCode != http.StatusOK:
		text, _ := io.ReadAll(io.LimitReader(response.Body, 1024))
		return fmt.Errorf("the answer of Consul is %s: %s", response.Status, strings.TrimSpace(string(text)))
	case answer == nil:
		return nil
	}
	return json.NewDecoder(response.Body).Decode(answer)
}
