package registry

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/consul-mesh/mesh-buildpack/src/mesh/consul"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/instance"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/wait"
)

// withRequests are the protocols whose requests Consul routes.
var withRequests = []string{"http", "http2", "grpc"}

// longRequests is the service-resolver that lets callers wait for an answer for a day:
// without one their Envoys give a request up after 15 s, in which a download or a
// stream of events is not over. (Consul takes nothing below zero there, and 0 is 15 s.)
func longRequests(service string) consul.Entry {
	return consul.Entry{Kind: "service-resolver", Name: service, Fields: map[string]any{"RequestTimeout": "24h0m0s"}}
}

// keepEntries has the entries of this app's services be there until ctx ends. One
// instance does so for all: with agents the first, without them the janitor.
func (n *Node) keepEntries(ctx context.Context) {
	var group sync.WaitGroup
	for _, r := range n.Services {
		if slices.Contains(withRequests, r.Protocol) {
			group.Go(func() { n.keepEntry(ctx, r, longRequests(r.Name)) })
		}
	}
	group.Wait()
}

// keepEntry writes an entry where it is missing, from when the service was first in
// rotation: a deployment that does not get there changes no traffic. A failure is said
// when it changes.
func (n *Node) keepEntry(ctx context.Context, r *Registration, entry consul.Entry) {
	for !r.shown.Load() && wait.Pause(ctx, instance.Beat) == nil {
	}
	tries := wait.Backoff{First: instance.AgainFirst, Most: instance.ListAgain}
	for ctx.Err() == nil {
		asking, cancel := context.WithTimeout(ctx, instance.AsideBudget)
		err := n.Consul.KeepEntry(asking, n.Inst.AppGUID, entry)
		cancel()
		if ctx.Err() != nil {
			return
		}
		said := failure(err)
		if said != r.entriesSaid && said != "" {
			n.Log("%s: %s", r.ID, said)
		}
		r.entriesSaid = said
		var other *consul.NotOwnError
		next := instance.EntriesLook
		if err != nil && !errors.As(err, &other) && consul.Passes(err) {
			next = tries.Next()
		} else {
			tries.Reset()
		}
		_ = wait.Pause(ctx, next)
	}
}

// failure says what longRequests not being there means, empty where that is nothing.
func failure(err error) string {
	var other *consul.NotOwnError
	switch {
	case errors.As(err, &other):
		if timeout, _ := other.Fields["RequestTimeout"].(string); timeout == "" || timeout == "0s" {
			return err.Error() + ": callers give requests up after 15 s, unless it has a RequestTimeout"
		}
	case err != nil:
		return "failed to write the service-resolver entry, callers give requests up after 15 s: " + err.Error()
	}
	return ""
}
