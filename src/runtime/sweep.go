package runtime

import (
	"context"
	"time"
)

// What Consul leaves in the catalog where instances come and go as fast as on
// Cloud Foundry.

// sweepAddress takes dead nodes out of the catalog that had this instance's
// address. Cloud Foundry gives addresses again, and callers would take the new
// instance for the dead one until Consul forgets that.
func (p *proxy) sweepAddress(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, asideBudget)
	defer cancel()
	var nodes []string
	err := whilePasses(ctx, func(ctx context.Context) (err error) {
		nodes, err = p.consul.nodesAt(ctx, p.inst.Address.String())
		return err
	})
	swept := false
	for _, node := range nodes {
		if node == p.inst.NodeName() {
			continue
		}
		p.log("%s had this address before and is taken out of the catalog", node)
		if err = p.consul.sweepNode(ctx, node); err != nil {
			break
		}
		swept = true
	}
	if swept {
		_ = pause(ctx, forgetting)
	}
	if err != nil {
		p.log("failed to look for dead nodes with this address, callers may take this instance for one: %v", err)
	}
}

// asideBudget is for what an instance can be without: servers that do not answer
// do not keep the app waiting.
const asideBudget = 5 * time.Second

// forgetting is how long callers are given to drop an address, with all that
// they hold against it: they hear of it after 200 ms, or a little later, and
// would not notice what is back by then.
const forgetting = time.Second
