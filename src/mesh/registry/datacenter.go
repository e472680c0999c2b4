package registry

import (
	"context"
	"net/url"
)

// datacenter is that of the servers, empty where they do not say.
func (v *viaServers) datacenter(ctx context.Context) string {
	var there struct{ Node struct{ Datacenter string } }
	if err := v.list(ctx, "/v1/catalog/node/"+url.PathEscape(v.Inst.NodeName()), &there); err != nil {
		v.Log("metrics go without the label consul.source.datacenter: %v", err)
	}
	return there.Node.Datacenter
}
