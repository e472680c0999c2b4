package registry

import (
	"context"
	"errors"
	"slices"

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

// keepEntries writes the entries of this app's services that are missing. One instance
// does so for all, now and then; a failure is said when it changes.
func (n *Node) keepEntries(ctx context.Context) {
	for _, r := range n.Services {
		if !slices.Contains(withRequests, r.Protocol) || !r.Registered.Load() {
			continue
		}
		asking, cancel := context.WithTimeout(ctx, instance.AsideBudget)
		err := n.Consul.KeepEntry(asking, n.Inst.AppGUID, longRequests(r.Name))
		cancel()
		var other *consul.NotOwnError
		said := ""
		switch {
		case ctx.Err() != nil:
			return
		case errors.As(err, &other):
			if timeout, _ := other.Fields["RequestTimeout"].(string); timeout == "" || timeout == "0s" {
				said = err.Error() + ": callers give requests up after 15 s, unless it has a RequestTimeout"
			}
		case err != nil:
			said = "failed to write the service-resolver entry, callers give requests up after 15 s: " + err.Error()
		}
		if before := r.entriesSaid; before != said && said != "" {
			n.Log("%s: %s", r.ID, said)
		}
		r.entriesSaid = said
	}
}

// keepEntries is for the first instance, where there are agents.
func (v ViaAgent) keepEntries(ctx context.Context) {
	for v.Inst.Index == "0" && ctx.Err() == nil {
		v.Node.keepEntries(ctx)
		_ = wait.Pause(ctx, instance.EntriesLook)
	}
}
