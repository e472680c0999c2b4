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
// instance for the dead one until Consul forgets that.
func (n *Node) SweepAddress(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, instance.AsideBudget)
	defer cancel()
	var nodes []string
	err := consul.WhilePasses(ctx, func(ctx context.Context) (err error) {
		nodes, err = n.Consul.NodesAt(ctx, n.Inst.Address.String())
		return err
	})
	swept := false
	for _, node := range nodes {
		if node == n.Inst.NodeName() {
			continue
		}
		n.Log("%s had this address before and is taken out of the catalog", node)
		if err = n.Consul.SweepNode(ctx, node); err != nil {
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
