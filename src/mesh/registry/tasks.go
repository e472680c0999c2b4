package registry

import (
	"context"
	"math/rand/v2"
	"net/url"
	"time"

	"github.com/consul-mesh/mesh-buildpack/src/droplet"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/consul"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/envoy"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/instance"
)

// A task is a node with a sidecar and no service: callers' Envoys find nobody there, and
// intentions know its name. The sidecar comes after the session, so a node that has a
// sidecar and no session is dead.

// isTask says that this is a task of the app.
func (n *Node) isTask() bool { return n.Config.Task != nil }

// leaveBudget is how long the last word to the servers may take.
func (n *Node) leaveBudget() time.Duration {
	if n.isTask() {
		return instance.TaskLeaveBudget
	}
	return instance.LeaveBudget
}

// enterTask makes a task known. v.writing is held.
func (v *viaServers) enterTask(ctx context.Context, r *Registration) error {
	if err := v.giveSign(ctx); err != nil {
		return err
	}
	if !r.Registered.Load() {
		v.XDS.Begin(droplet.SidecarID(r.ID), envoy.Introduction(r.EnvoySidecar(), v.Inst.NodeName()))
	}
	_, sidecar := v.catalog(r)
	return v.enterService(ctx, v.entry(r, sidecar))
}

// sweepTasks takes out of the catalog what tasks of this app have left that were killed:
// no instance of the app may run, and another task is the first to see it. Each looks at
// some, for where many run at once all of them do.
func (v *viaServers) sweepTasks(ctx context.Context) {
	var nodes []struct{ Node string }
	own := url.Values{"node-meta": {consul.MetaAgentless + ":true", instance.MetaApp + ":" + v.Inst.App, instance.MetaTask + ":" + v.Services[0].Name}}
	if err := v.list(ctx, "/v1/catalog/nodes?"+own.Encode(), &nodes); err != nil {
		return // the next one looks too
	}
	rand.Shuffle(len(nodes), func(i, j int) { nodes[i], nodes[j] = nodes[j], nodes[i] })
	looked := 0
	for _, node := range nodes {
		if node.Node == v.Inst.NodeName() {
			continue
		}
		if looked++; looked > instance.TasksLook {
			return
		}
		if ended, err := v.Consul.Ended(ctx, node.Node); err != nil || !ended {
			continue
		}
		if v.hasSidecar(ctx, node.Node) && v.removeNode(ctx, node.Node) == nil {
			v.Log("the task %s has died and is taken out of the catalog", node.Node)
		}
	}
}

// hasSidecar says that a node of a task was registered to the end.
func (v *viaServers) hasSidecar(ctx context.Context, node string) bool {
	var there struct{ Services map[string]struct{} }
	err := v.list(ctx, "/v1/catalog/node/"+url.PathEscape(node), &there)
	return err == nil && len(there.Services) > 0
}
