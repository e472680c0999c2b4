package runtime

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/consul-mesh/mesh-buildpack/src/credentials"
	"github.com/consul-mesh/mesh-buildpack/src/droplet"
)

// consul is the HTTP API of the local agent or, where its transport says so, of
// the servers, as far as the runtime calls it. The registrations pass through
// as the JSON that staging rendered, so the types of Consul's own client
// library would only be in the way.
type consul struct {
	base   string
	http   http.Client
	access *access // nil: no tokens
}

// statusError is an answer other than 200.
type statusError struct {
	status int
	text   string
}

func (e *statusError) Error() string { return fmt.Sprintf("Consul answers %d: %s", e.status, e.text) }

// passes says that an error is one of the moment: it says nothing of what was
// asked, and the same question may be answered soon.
func passes(err error) bool {
	var status *statusError
	if !errors.As(err, &status) {
		return true // nobody has answered, or there is none
	}
	return status.status == http.StatusTooManyRequests || slices.ContainsFunc(momentary, func(text string) bool {
		return strings.Contains(status.text, text)
	})
}

// momentary is what Consul says with a status of 500 while it has no leader, or
// an agent no server (Consul 1.22, agent/structs/errors.go and agent/pool).
var momentary = []string{"No cluster leader", "No known Consul servers", "failed to get conn", "leadership lost"}

// whilePasses repeats a call for as long as its errors pass.
func whilePasses(ctx context.Context, call func(context.Context) error) error {
	return poll(ctx, func(ctx context.Context) error {
		err := call(ctx)
		if !passes(err) {
			return &finalError{err}
		}
		return err
	})
}

// call makes a call with the token that it needs.
func (c *consul) call(ctx context.Context, method, path string, body, answer any) error {
	request, err := c.request(ctx, "", method, path, body)
	if err != nil {
		return err
	}
	c.access.authorize(request)
	_, err = c.do(request, answer)
	return err
}

// callWith makes a call with a token of its own.
func (c *consul) callWith(ctx context.Context, token credentials.Secret, method, path string, body, answer any) error {
	request, err := c.request(ctx, token, method, path, body)
	if err != nil {
		return err
	}
	_, err = c.do(request, answer)
	return err
}

// watch reads what there is at path, which names the index of the last news,
// and returns the index of these. What is not there is an empty answer.
func (c *consul) watch(ctx context.Context, token credentials.Secret, path string, answer any) (index uint64, err error) {
	header, err := c.read(ctx, token, path, answer)
	var status *statusError
	if errors.As(err, &status) && status.status == http.StatusNotFound {
		err = nil
	}
	index, _ = strconv.ParseUint(header.Get("X-Consul-Index"), 10, 64)
	return index, err
}

// list reads what there is at a path; errHidden says that it is not all.
func (c *consul) list(ctx context.Context, token credentials.Secret, path string, answer any) error {
	header, err := c.read(ctx, token, path, answer)
	if err == nil && header.Get("X-Consul-Results-Filtered-By-ACLs") == "true" {
		err = errHidden
	}
	return err
}

var errHidden = errors.New("ACLs hide a part of it")

// read is callWith for what is said about an answer, too.
func (c *consul) read(ctx context.Context, token credentials.Secret, path string, answer any) (http.Header, error) {
	request, err := c.request(ctx, token, http.MethodGet, path, nil)
	if err != nil {
		return nil, err
	}
	return c.do(request, answer)
}

func (c *consul) request(ctx context.Context, token credentials.Secret, method, path string, body any) (*http.Request, error) {
	var content io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return nil, &finalError{err}
		}
		content = bytes.NewReader(text)
	}
	request, err := http.NewRequestWithContext(ctx, method, c.base+path, content)
	if err != nil {
		return nil, &finalError{err}
	}
	if token != "" {
		request.Header.Set(tokenHeader, string(token))
	}
	return request, nil
}

func (c *consul) do(request *http.Request, answer any) (http.Header, error) {
	response, err := c.http.Do(request)
	var asked *url.Error
	if errors.As(err, &asked) {
		return nil, fmt.Errorf("%s: %w", request.URL.Path, asked.Err) // which names who was asked, as the URL does not
	}
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(response.Body, 1024))
		err := &statusError{response.StatusCode, strings.TrimSpace(string(text))}
		if err.status == http.StatusBadRequest {
			return response.Header, &finalError{err}
		}
		return response.Header, err
	}
	if answer == nil {
		_, err := io.Copy(io.Discard, response.Body)
		return response.Header, err
	}
	return response.Header, json.NewDecoder(response.Body).Decode(answer)
}

// member is one of the gossip, as the agent sees it.
type member struct {
	Status int // one of serf's, below
	Tags   map[string]string
}

// What serf.MemberStatus says of a member.
const (
	memberAlive = iota + 1
	memberLeaving
	memberLeft
)

// joined returns nil once the agent knows a server that knows a leader. It
// looks at the members first, because the agent prints an error for every
// question that it has no server for. With ACLs on it may see no members at
// all, not even itself; then the leader is asked for all the same.
func (c *consul) joined(ctx context.Context) error {
	var members []member
	if err := c.call(ctx, http.MethodGet, "/v1/agent/members", nil, &members); err != nil {
		return err
	}
	servers := 0
	for _, member := range members {
		if member.Status == memberAlive && member.Tags["role"] == "consul" {
			servers++
		}
	}
	if len(members) > 0 && servers == 0 {
		return &notJoinedError{errors.New("the agent has joined no Consul server")}
	}
	_, err := c.leader(ctx)
	return err
}

// leader is the address of the servers' leader, an error where there is none.
func (c *consul) leader(ctx context.Context) (string, error) {
	var leader string
	err := c.call(ctx, http.MethodGet, "/v1/status/leader", nil, &leader)
	if err == nil && leader == "" {
		err = errors.New("the servers have not elected a leader")
	}
	return leader, err
}

// notJoinedError says that the agent is alone.
type notJoinedError struct{ error }

// register registers a service and its sidecar, keeping the states of checks
// that are there already.
func (c *consul) register(ctx context.Context, registration map[string]any) error {
	return c.call(ctx, http.MethodPut, "/v1/agent/service/register?replace-existing-checks=true", registration, nil)
}

// deregister takes a service or a sidecar out of the catalog. One that is not
// there is fine.
func (c *consul) deregister(ctx context.Context, id string) error {
	err := c.call(ctx, http.MethodPut, "/v1/agent/service/deregister/"+url.PathEscape(id), nil, nil)
	var status *statusError
	if errors.As(err, &status) && status.status == http.StatusNotFound {
		return nil
	}
	return err
}

// sweepNode takes a node out of the catalog if it is there, whatever its agent
// thinks.
func (c *consul) sweepNode(ctx context.Context, name string) error {
	var node *struct{}
	err := c.call(ctx, http.MethodGet, "/v1/catalog/node/"+url.PathEscape(name), nil, &node)
	if err != nil || node == nil {
		return err
	}
	return c.call(ctx, http.MethodPut, "/v1/catalog/deregister", map[string]string{"Node": name}, nil)
}

// alive returns nil while the agent answers at all, whatever it says.
func (c *consul) alive(ctx context.Context) error {
	err := c.call(ctx, http.MethodGet, "/v1/agent/version", nil, nil)
	var status *statusError
	if errors.As(err, &status) {
		return nil
	}
	return err
}

// leaving tells whether the agent, whose node has a name, is on its way out of
// the mesh. Where ACLs keep it from seeing itself it seems to stay.
func (c *consul) leaving(ctx context.Context, name string) (bool, error) {
	query := url.Values{"filter": {fmt.Sprintf("Name == %q", name)}}
	var members []member
	err := c.call(ctx, http.MethodGet, "/v1/agent/members?"+query.Encode(), nil, &members)
	for _, m := range members {
		if m.Status == memberLeaving || m.Status == memberLeft {
			return true, err
		}
	}
	return false, err
}

// servicePort is where the agent has a service.
func (c *consul) servicePort(ctx context.Context, id string) (int, error) {
	var service struct{ Port int }
	err := c.call(ctx, http.MethodGet, "/v1/agent/service/"+url.PathEscape(id), nil, &service)
	return service.Port, err
}

// awaitGone returns when the agent no longer has a service, or is gone itself:
// a request stays open, so that its end is noticed and not looked for.
func (c *consul) awaitGone(ctx context.Context, id string) error {
	hash := ""
	for {
		var service struct{ ContentHash string }
		path := "/v1/agent/service/" + url.PathEscape(id) + "?wait=10m&hash=" + url.QueryEscape(hash)
		err := c.call(ctx, http.MethodGet, path, nil, &service)
		var status *statusError
		switch {
		case errors.As(err, &status) && status.status == http.StatusForbidden:
			// The agent is there; it is the token that is not good.
			if err := pause(ctx, watchInterval); err != nil {
				return err
			}
		case err != nil:
			return err
		}
		hash = service.ContentHash
	}
}

// nodesAt lists the nodes of apps of this buildpack that have an address.
func (c *consul) nodesAt(ctx context.Context, address string) ([]string, error) {
	query := url.Values{"filter": {fmt.Sprintf("Address == %q", address)}}
	var nodes []struct {
		Node string
		Meta map[string]string
	}
	if err := c.call(ctx, http.MethodGet, "/v1/catalog/nodes?"+query.Encode(), nil, &nodes); err != nil {
		return nil, err
	}
	var names []string
	for _, node := range nodes {
		if _, ours := node.Meta[metaApp]; ours {
			names = append(names, node.Node)
		}
	}
	return names, nil
}

func (c *consul) registerCheck(ctx context.Context, check map[string]any) error {
	return c.call(ctx, http.MethodPut, "/v1/agent/check/register", check, nil)
}

// updateTTL says how a TTL check is: "passing" or "critical".
func (c *consul) updateTTL(ctx context.Context, id, status, output string) error {
	return c.call(ctx, http.MethodPut, "/v1/agent/check/update/"+url.PathEscape(id),
		map[string]string{"Status": status, "Output": output}, nil)
}

// serviceDefaults is a configuration entry: what a service says to its callers
// (Protocol) and what Consul takes from no registration (EnvoyExtensions).
type serviceDefaults struct {
	Kind            string // service-defaults
	Name            string
	Protocol        string                   `json:",omitempty"`
	EnvoyExtensions []droplet.EnvoyExtension `json:",omitempty"`
}

// ensureDefaults makes an entry where there is none. One that is there is never
// touched. It returns the entry that Consul then has.
func (c *consul) ensureDefaults(ctx context.Context, entry serviceDefaults) (serviceDefaults, error) {
	var made bool
	err := c.call(ctx, http.MethodPut, "/v1/config?cas=0", entry, &made)
	if err != nil || made {
		return entry, err
	}
	var there serviceDefaults
	err = c.call(ctx, http.MethodGet, "/v1/config/service-defaults/"+url.PathEscape(entry.Name), nil, &there)
	return there, err
}

// readToken returns nil if the servers know a token. Any of them may answer.
func (c *consul) readToken(ctx context.Context, token credentials.Secret) error {
	return c.callWith(ctx, token, http.MethodGet, "/v1/acl/token/self?stale", nil, nil)
}

func (c *consul) logout(ctx context.Context, token credentials.Secret) error {
	return c.callWith(ctx, token, http.MethodPost, "/v1/acl/logout", nil, nil)
}

// setAgentToken gives the agent the token that it works with.
func (c *consul) setAgentToken(ctx context.Context, token credentials.Secret) error {
	return c.call(ctx, http.MethodPut, "/v1/agent/token/agent", map[string]string{"Token": string(token)}, nil)
}

// reload has the agent read its files again.
func (c *consul) reload(ctx context.Context) error {
	return c.call(ctx, http.MethodPut, "/v1/agent/reload", nil, nil)
}
