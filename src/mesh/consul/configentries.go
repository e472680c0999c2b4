package consul

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"reflect"

	"github.com/consul-mesh/mesh-buildpack/src/droplet"
)

// Configuration entries are everybody's: operators write them, and so do the instances
// of apps. What an instance may change carries a mark; what has none is left alone.

// metaOwner is the mark: the GUID of the app whose instances keep an entry.
const metaOwner = "consul-mesh-buildpack"

// Entry is a configuration entry as /v1/config takes it. Names of keys and forms of
// values are those with which Consul answers, such as "24h0m0s".
type Entry struct {
	Kind, Name string
	Fields     map[string]any
}

// NotOwnError says that an entry is somebody else's, and has been left alone.
type NotOwnError struct {
	Entry
	Fields map[string]any // as they are there
}

func (e *NotOwnError) Error() string {
	return fmt.Sprintf("the %s entry of %s in Consul is not this app's, and is left alone", e.Kind, e.Name)
}

// KeepEntry writes an entry for an app where there is none, or where the app's own is
// otherwise; it checks that nobody has written meanwhile. An entry without the app's
// mark is a NotOwnError.
func (c *Client) KeepEntry(ctx context.Context, app string, entry Entry) error {
	path := "/v1/config/" + url.PathEscape(entry.Kind) + "/" + url.PathEscape(entry.Name)
	there := map[string]any{}
	err := c.call(ctx, asService, http.MethodGet, path, nil, &there)
	var status *StatusError
	switch {
	case errors.As(err, &status) && status.Status == http.StatusNotFound:
	case err != nil:
		return err
	default:
		if meta, _ := there["Meta"].(map[string]any); meta[metaOwner] != app {
			return &NotOwnError{entry, there}
		}
		if entry.is(there) {
			return nil
		}
	}
	index, _ := there["ModifyIndex"].(float64) // 0 is that of an entry which is not there
	body := map[string]any{"Kind": entry.Kind, "Name": entry.Name, "Meta": map[string]string{metaOwner: app}}
	for key, value := range entry.Fields {
		body[key] = value
	}
	var written bool
	err = c.call(ctx, asService, http.MethodPut, fmt.Sprintf("/v1/config?cas=%.0f", index), body, &written)
	if err == nil && !written {
		err = errors.New("somebody else has just written it")
	}
	return err
}

// is says that an entry is there as it is meant to be.
func (e Entry) is(there map[string]any) bool {
	for key, value := range e.Fields {
		if !reflect.DeepEqual(there[key], value) {
			return false
		}
	}
	return true
}

// ServiceDefaults is a configuration entry: what a service says to its callers
// (Protocol) and what Consul takes from no registration (EnvoyExtensions).
type ServiceDefaults struct {
	Kind            string // service-defaults
	Name            string
	Protocol        string                   `json:",omitempty"`
	EnvoyExtensions []droplet.EnvoyExtension `json:",omitempty"`
}

// EnsureDefaults makes an entry where there is none. One that is there is never
// touched. It returns the entry that Consul then has.
func (c *Client) EnsureDefaults(ctx context.Context, entry ServiceDefaults) (ServiceDefaults, error) {
	var made bool
	err := c.call(ctx, asService, http.MethodPut, "/v1/config?cas=0", entry, &made)
	if err != nil || made {
		return entry, err
	}
	var there ServiceDefaults
	err = c.call(ctx, asService, http.MethodGet, "/v1/config/service-defaults/"+url.PathEscape(entry.Name), nil, &there)
	return there, err
}
