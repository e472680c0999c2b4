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
	nodes, err := p.consul.nodesAt(ctx, p.inst.Address.String())
	for _, node := range nodes {
		if node == p.inst.NodeName() {
			continue
		}
		p.log("%s had this address before and is taken out of the catalog", node)
		if err = p.consul.sweepNode(ctx, node); err != nil {
			break
		}
	}
	if err != nil {
		p.log("failed to look for dead nodes with this address, callers may take this instance for one: %v", err)
	}
}

// firstSync is how long after its first server an agent may still
// synchronise its node for the first times: each of the servers that it
// meets makes it do so after a random part of 3 s, two of them in a row
// (Consul 1.22, agent/ae, in a cluster of up to 128 nodes).
const firstSync = 6200 * time.Millisecond

// sweepNode keeps the node out of the catalog where the instance stops right
// after its start: an agent that is leaving still does its first
// synchronisations, and puts the bare node back for up to a minute. It goes on
// for as long as the agent answers.
func (p *proxy) sweepNode() {
	if time.Since(p.joined) > firstSync {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), stopBudget/2)
	defer cancel()
	for p.consul.sweepNode(ctx, p.inst.NodeName()) == nil {
		<-time.After(sweepPause)
	}
}

// sweepPause is short, because what comes after the last sweep stays.
const sweepPause = 25 * time.Millisecond

// awaitFirstSync waits until the agent has done its first synchronisations,
// unless ctx ends. A process that ends by itself before that would leave what
// sweepNode is for.
func (p *proxy) awaitFirstSync(ctx context.Context) {
	select {
	case <-time.After(time.Until(p.joined.Add(firstSync))):
	case <-ctx.Done():
		p.sweepNode()
	}
}
