package registry

import (
	"context"

	"github.com/consul-mesh/mesh-buildpack/src/mesh/consul"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/instance"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/wait"
)

// What Consul leaves in the catalog where instances come and go as fast as on
// Cloud Foundry.

// SweepAddress takes dead nodes out of the catalog that had this instance's
// address. Cloud Foundry gives addresses again, and callers would take the new
// instance for the dead one until Consul forgets that. Another foundation may have
// the same range of addresses: its nodes stay as long as they live.
func (n *Node) SweepAddress(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, instance.AsideBudget)
	defer cancel()
	var nodes []consul.CatalogNode
	err := consul.WhilePasses(ctx, func(ctx context.Context) (err error) {
		nodes, err = n.Consul.NodesAt(ctx, n.Inst.Address.String())
		return err
	})
	swept := false
	for _, node := range nodes {
		lives := false
		if node.Node != n.Inst.NodeName() && !n.Inst.HasReused(node.Meta) {
			lives, err = n.Consul.Lives(ctx, node)
		}
		if err != nil {
			break
		}
		if lives || node.Node == n.Inst.NodeName() {
			continue
		}
		n.Log("%s had this address before and is taken out of the catalog", node.Node)
		if err = n.Consul.SweepNode(ctx, node.Node); err != nil {
			break
		}
		swept = true
	}
	if swept {
		_ = wait.Pause(ctx, instance.Forgetting)
	}
	if err != nil {
		n.Log("failed to look for dead nodes with this address, callers may take this instance for one: %v", err)
	}
}
