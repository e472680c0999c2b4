// Package consul asks Consul: the API of the local agent, or that of the servers, one
// of them until it fails (servers.go), with the tokens of the bound service
// (access.go).
package consul

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
	"github.com/consul-mesh/mesh-buildpack/src/mesh/instance"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/wait"
)

// Client is the HTTP API of the local agent or, where its transport says so, of
// the servers, as far as the runtime calls it. The registrations pass through
// as the JSON that staging rendered, so the types of Consul's own client
// library would only be in the way.
type Client struct {
	Base   string
	HTTP   http.Client
	Access *Access // nil: no tokens
}

// StatusError is an answer other than 200.
type StatusError struct {
	Status int
	Text   string
}

func (e *StatusError) Error() string { return fmt.Sprintf("Consul answers %d: %s", e.Status, e.Text) }

// Passes says that an error is one of the moment: it says nothing of what was
// asked, and the same question may be answered soon.
func Passes(err error) bool {
	var status *StatusError
	if !errors.As(err, &status) {
		return true // nobody has answered, or there is none
	}
	return status.Status == http.StatusTooManyRequests || slices.ContainsFunc(momentary, func(text string) bool {
		return strings.Contains(status.Text, text)
	})
}

// momentary is what Consul says with a status of 500 while it has no leader, or
// an agent no server (Consul 1.22, agent/structs/errors.go and agent/pool).
var momentary = []string{"No cluster leader", "No known Consul servers", "failed to get conn", "leadership lost"}

// WhilePasses repeats a call for as long as its errors pass.
func WhilePasses(ctx context.Context, call func(context.Context) error) error {
	return wait.Poll(ctx, func(ctx context.Context) error {
		err := call(ctx)
		if !Passes(err) {
			return wait.Final(err)
		}
		return err
	})
}

// call makes a call as somebody, in the namespace of the bound service.
func (c *Client) call(ctx context.Context, who identity, method, path string, body, answer any) error {
	var token credentials.Secret
	if c.Access.Enabled() {
		token = who(c.Access)
	}
	request, err := c.request(ctx, token, method, path, body)
	if err != nil {
		return err
	}
	if c.Access.Enabled() {
		if namespace := c.Access.Current().Namespace; namespace != "" {
			request.Header.Set("X-Consul-Namespace", namespace)
		}
	}
	_, err = c.do(request, answer)
	return err
}

// CallWith makes a call with a token of its own.
func (c *Client) CallWith(ctx context.Context, token credentials.Secret, method, path string, body, answer any) error {
	request, err := c.request(ctx, token, method, path, body)
	if err != nil {
		return err
	}
	_, err = c.do(request, answer)
	return err
}

// Watch reads what there is at path, which names the index of the last news,
// and returns the index of these, 0 where that is less than what was named: servers
// that were restored from a snapshot count anew. What is not there is an empty answer.
func (c *Client) Watch(ctx context.Context, token credentials.Secret, path string, answer any) (index uint64, err error) {
	header, err := c.Read(ctx, token, path, answer)
	var status *StatusError
	if errors.As(err, &status) && status.Status == http.StatusNotFound {
		err = nil
	}
	index, _ = strconv.ParseUint(header.Get("X-Consul-Index"), 10, 64)
	if at, parseErr := url.Parse(path); parseErr == nil {
		if before, _ := strconv.ParseUint(at.Query().Get("index"), 10, 64); index < before {
			index = 0
		}
	}
	return index, err
}

// List reads what there is at a path; ErrHidden says that it is not all.
func (c *Client) List(ctx context.Context, token credentials.Secret, path string, answer any) error {
	header, err := c.Read(ctx, token, path, answer)
	if err == nil && header.Get("X-Consul-Results-Filtered-By-ACLs") == "true" {
		err = ErrHidden
	}
	return err
}

// ErrHidden says that an answer is not whole.
var ErrHidden = errors.New("ACLs hide a part of it")

// Read is callWith for what is said about an answer, too.
func (c *Client) Read(ctx context.Context, token credentials.Secret, path string, answer any) (http.Header, error) {
	request, err := c.request(ctx, token, http.MethodGet, path, nil)
	if err != nil {
		return nil, err
	}
	return c.do(request, answer)
}

func (c *Client) request(ctx context.Context, token credentials.Secret, method, path string, body any) (*http.Request, error) {
	var content io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return nil, wait.Final(err)
		}
		content = bytes.NewReader(text)
	}
	request, err := http.NewRequestWithContext(ctx, method, c.Base+path, content)
	if err != nil {
		return nil, wait.Final(err)
	}
	if token != "" {
		request.Header.Set(TokenHeader, string(token))
	}
	return request, nil
}

func (c *Client) do(request *http.Request, answer any) (http.Header, error) {
	response, err := c.HTTP.Do(request)
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
		err := &StatusError{response.StatusCode, strings.TrimSpace(string(text))}
		switch err.Status {
		case http.StatusBadRequest:
			return response.Header, wait.Final(err)
		case http.StatusForbidden:
			c.Access.noteRefused()
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
	Addr   string
	Status int // one of serf's, below
	Tags   map[string]string
}

// What serf.MemberStatus says of a member.
const (
	memberAlive = iota + 1
	memberLeaving
	memberLeft
)

// Joined returns nil once the agent knows a server that knows a leader. It
// looks at the members first, because the agent prints an error for every
// question that it has no server for. With ACLs on it may see no members at
// all, not even itself; then the leader is asked for all the same.
func (c *Client) Joined(ctx context.Context) error {
	var members []member
	if err := c.call(ctx, asSelf, http.MethodGet, "/v1/agent/members", nil, &members); err != nil {
		return err
	}
	servers := 0
	for _, member := range members {
		if member.Status == memberAlive && member.Tags["role"] == "consul" {
			servers++
		}
	}
	if len(members) > 0 && servers == 0 {
		return NotJoined(errors.New("the agent has joined no Consul server"))
	}
	_, err := c.Leader(ctx)
	return err
}

// Leader is the address of the servers' leader, an error where there is none.
func (c *Client) Leader(ctx context.Context) (string, error) {
	var leader string
	err := c.call(ctx, asService, http.MethodGet, leaderPath, nil, &leader)
	if err == nil && leader == "" {
		err = errors.New("the servers have not elected a leader")
	}
	return leader, err
}

// NotJoinedError says that the agent is alone.
type NotJoinedError struct{ error }

// Register registers a service and its sidecar, keeping the states of checks
// that are there already.
func (c *Client) Register(ctx context.Context, registration map[string]any) error {
	return c.call(ctx, asService, http.MethodPut, "/v1/agent/service/register?replace-existing-checks=true", registration, nil)
}

// Deregister takes a service or a sidecar out of the catalog. One that is not
// there is fine.
func (c *Client) Deregister(ctx context.Context, id string) error {
	err := c.call(ctx, asService, http.MethodPut, "/v1/agent/service/deregister/"+url.PathEscape(id), nil, nil)
	var status *StatusError
	if errors.As(err, &status) && status.Status == http.StatusNotFound {
		return nil
	}
	return err
}

// Answers returns nil while the agent answers at all, whatever it says.
func (c *Client) Answers(ctx context.Context) error {
	err := c.call(ctx, asSelf, http.MethodGet, "/v1/agent/version", nil, nil)
	var status *StatusError
	if errors.As(err, &status) {
		return nil
	}
	return err
}

// Leaving tells whether the agent, whose node has a name, is on its way out of
// the mesh. Where ACLs keep it from seeing itself it seems to stay.
func (c *Client) Leaving(ctx context.Context, name string) (bool, error) {
	query := url.Values{"filter": {fmt.Sprintf("Name == %q", name)}}
	var members []member
	err := c.call(ctx, asSelf, http.MethodGet, "/v1/agent/members?"+query.Encode(), nil, &members)
	for _, m := range members {
		if m.Status == memberLeaving || m.Status == memberLeft {
			return true, err
		}
	}
	return false, err
}

// ServicePort is where the agent has a service.
func (c *Client) ServicePort(ctx context.Context, id string) (int, error) {
	var service struct{ Port int }
	err := c.call(ctx, asService, http.MethodGet, "/v1/agent/service/"+url.PathEscape(id), nil, &service)
	return service.Port, err
}

// AwaitGone returns when the agent no longer has a service, or is gone itself:
// a request stays open, so that its end is noticed and not looked for.
func (c *Client) AwaitGone(ctx context.Context, id string) error {
	hash := ""
	for {
		var service struct{ ContentHash string }
		path := "/v1/agent/service/" + url.PathEscape(id) + "?wait=10m&hash=" + url.QueryEscape(hash)
		err := c.call(ctx, asService, http.MethodGet, path, nil, &service)
		var status *StatusError
		switch {
		case errors.As(err, &status) && status.Status == http.StatusForbidden:
			// The agent is there; it is the token that is not good.
			if err := wait.Pause(ctx, instance.WatchInterval); err != nil {
				return err
			}
		case err != nil:
			return err
		}
		hash = service.ContentHash
	}
}

// RegisterCheck gives the agent a check of its own.
func (c *Client) RegisterCheck(ctx context.Context, check map[string]any) error {
	return c.call(ctx, asService, http.MethodPut, "/v1/agent/check/register", check, nil)
}

// UpdateTTL says how a TTL check is: "passing" or "critical".
func (c *Client) UpdateTTL(ctx context.Context, id, status, output string) error {
	return c.call(ctx, asService, http.MethodPut, "/v1/agent/check/update/"+url.PathEscape(id),
		map[string]string{"Status": status, "Output": output}, nil)
}

// readToken returns nil if the servers know a token. Any of them may answer.
func (c *Client) readToken(ctx context.Context, token credentials.Secret) error {
	return c.CallWith(ctx, token, http.MethodGet, "/v1/acl/token/self?stale", nil, nil)
}

// Logout ends the login that a token comes from.
func (c *Client) Logout(ctx context.Context, token credentials.Secret) error {
	return c.CallWith(ctx, token, http.MethodPost, "/v1/acl/logout", nil, nil)
}

// setAgentToken gives the agent the token that it works with.
func (c *Client) setAgentToken(ctx context.Context, token credentials.Secret) error {
	return c.call(ctx, asSelf, http.MethodPut, "/v1/agent/token/agent", map[string]string{"Token": string(token)}, nil)
}

// Reload has the agent read its files again.
func (c *Client) Reload(ctx context.Context) error {
	return c.call(ctx, asSelf, http.MethodPut, "/v1/agent/reload", nil, nil)
}

// NotJoined says that an agent is alone.
func NotJoined(err error) error { return &NotJoinedError{err} }
