package registry

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/consul-mesh/mesh-buildpack/src/mesh/consul"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/instance"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/wait"
)

// watchSiblings takes instances out of the catalog whose key has gone. It
// begins with those that died while no other lived.
func (v *viaServers) watchSiblings(ctx context.Context) {
	index, said := uint64(0), false
	var before []string // who lived at the last look
	var looked time.Time
	var burying sync.Map // nodes; one without the service takes a while, in which others may die
	var burials sync.WaitGroup
	defer burials.Wait()
	bury := func(b burial, known *sync.Map, living []string) {
		known.Store(b.node, true)
		burials.Go(func() {
			defer known.Delete(b.node)
			v.bury(ctx, b, living)
		})
	}
	var witnessed sync.Map // nodes whose goodbye is looked after
	isKnown := func(node string) bool {
		_, known := burying.Load(node)
		return known
	}
	for ctx.Err() == nil {
		bounded, cancel := context.WithTimeout(ctx, instance.SiblingWait+instance.SiblingWait/8)
		// A server that is gone without a word is noticed by who renews the session.
		asked, done := v.servers.UntilLost(bounded)
		living, next, err := v.siblings(asked, index)
		done()
		cancel()
		var dead []burial
		var left []string
		gone := func(node string) bool { return !slices.Contains(living, node) }
		switch {
		case err == nil && gone(v.Inst.NodeName()):
			err = v.giveSignAgain(ctx)
		case err == nil && (slices.ContainsFunc(before, gone) || time.Since(looked) >= instance.SiblingWait):
			if dead, err = v.dead(ctx, living, isKnown); err == nil {
				left = slices.DeleteFunc(before, func(node string) bool { return !gone(node) })
				before, looked = living, time.Now()
			}
		case err == nil: // where many start at once, each would look at each
			before = living
		}
		if err != nil {
			again := time.Second
			if errors.Is(err, consul.ErrHidden) {
				again = instance.SiblingWait
				if !said {
					v.Log("the other instances of %s cannot be seen, one that dies stays in the catalog: %v", v.Services[0].Name, err)
					said = true
				}
			}
			_ = wait.Pause(ctx, again)
			index = 0
			continue
		}
		index = next
		for _, b := range dead {
			bury(b, &burying, slices.Clone(living))
		}
		for _, node := range left {
			if _, known := witnessed.Load(node); !known && v.turnOf(node, slices.Clone(living)) < instance.Witnesses {
				bury(burial{node, "/v1/catalog/nodes?" + v.ownNodes().Encode(), instance.HoldTime}, &witnessed, slices.Clone(living))
			}
		}
		_ = wait.Pause(ctx, instance.Turn) // where many come or go, they are seen together
	}
}

// siblings lists the nodes whose keys are there, when there is news since
// index.
func (v *viaServers) siblings(ctx context.Context, index uint64) (living []string, next uint64, err error) {
	var keys []string
	path := fmt.Sprintf("/v1/kv/%s?keys&index=%d&wait=%s", v.keyPrefix(), index, instance.SiblingWait)
	next, err = v.Consul.Watch(ctx, v.Access.ServiceToken(), path, &keys)
	for _, key := range keys {
		living = append(living, strings.TrimPrefix(key, v.keyPrefix()))
	}
	return living, next, err
}

// burial is of a node that seems to be dead.
type burial struct {
	node   string
	listed string        // the path that lists it
	least  time.Duration // how long it has to seem so
}

// dead lists the nodes that have the service and no sign of life, and those of
// this app's process that have neither sign nor session, without those that are
// known.
func (v *viaServers) dead(ctx context.Context, living []string, known func(node string) bool) (dead []burial, err error) {
	least := v.mercy()
	everyones := url.Values{"node-meta": {metaAgentless + ":true"}}
	own := v.ownNodes()
	ofService := "/v1/catalog/service/" + url.PathEscape(v.Services[0].Name) + "?"
	listed := ofService + everyones.Encode()
	withService, err := v.lifeless(ctx, listed, living)
	if errors.Is(err, consul.ErrHidden) { // another app has the service too, whose nodes this one may not see
		listed = ofService + own.Encode()
		withService, err = v.lifeless(ctx, listed, living)
	}
	if err != nil {
		return nil, err
	}
	for _, node := range withService {
		if !known(node) && v.ended(ctx, node) {
			dead = append(dead, burial{node, listed, least})
		}
	}
	listed = "/v1/catalog/nodes?" + own.Encode()
	nodes, err := v.lifeless(ctx, listed, living)
	for _, node := range nodes {
		if !slices.Contains(withService, node) && !known(node) && v.ended(ctx, node) {
			dead = append(dead, burial{node, listed, max(instance.BareFor, least)})
		}
	}
	return dead, err
}

// ownNodes asks for the nodes of this app's process.
func (v *viaServers) ownNodes() url.Values {
	return url.Values{"node-meta": {metaAgentless + ":true", instance.MetaApp + ":" + v.Inst.App, instance.MetaProcess + ":" + v.Inst.Process}}
}

// lifeless lists the nodes at a path of the catalog that have no key.
func (v *viaServers) lifeless(ctx context.Context, path string, living []string) (nodes []string, err error) {
	var entries []struct{ Node string }
	err = v.list(ctx, path, &entries)
	for _, entry := range entries {
		if !slices.Contains(living, entry.Node) {
			nodes = append(nodes, entry.Node)
		}
	}
	return nodes, err
}

// ended says that a node has no session. One that has may hold its key elsewhere,
// such as another version of the app, whose first service is another. Where the
// answer is not whole it has not ended.
func (v *viaServers) ended(ctx context.Context, node string) bool {
	var sessions []struct{}
	err := v.list(ctx, "/v1/session/node/"+url.PathEscape(node), &sessions)
	return err == nil && len(sessions) == 0
}

// bury takes a dead node out of the catalog that is still so after a time,
// unless another instance has done so when it is this one's turn.
func (v *viaServers) bury(ctx context.Context, b burial, living []string) {
	delay := time.Duration(v.turnOf(b.node, living)) * instance.Turn
	if delay > instance.Turns*instance.Turn || delay < 0 {
		delay = instance.Turns*instance.Turn + rand.N(4*instance.Turns*instance.Turn)
	}
	if wait.Pause(ctx, b.least+delay) != nil || !v.stillDead(ctx, b) {
		return
	}
	if err := v.removeNode(ctx, b.node); err != nil {
		v.Log("failed to take the dead instance %s out of the catalog: %v", b.node, err)
		return
	}
	v.Log("the instance %s has died and is taken out of the catalog", b.node)
}

// stillDead looks once more, at one node alone: many may die at once. A list of
// the living without this instance is not one to judge others by.
func (v *viaServers) stillDead(ctx context.Context, b burial) bool {
	look, cancel := context.WithTimeout(ctx, instance.CallTimeout)
	defer cancel()
	living, _, err := v.siblings(look, 0)
	if err != nil || !slices.Contains(living, v.Inst.NodeName()) {
		return false
	}
	there, err := v.lifeless(ctx, b.listed+"&filter="+url.QueryEscape(fmt.Sprintf("Node == %q", b.node)), living)
	return err == nil && slices.Contains(there, b.node) && v.ended(ctx, b.node)
}

// turnOf is after how many of the living, which it sorts, this instance is to bury a
// node; -1 where it is not among them.
func (v *viaServers) turnOf(dead string, living []string) int {
	slices.SortFunc(living, func(one, other string) int { return int(order(one, dead)) - int(order(other, dead)) })
	return slices.Index(living, v.Inst.NodeName())
}

// order gives each dead node another order of those that could bury it.
func order(living, dead string) uint16 {
	hash := fnv.New32a()
	hash.Write([]byte(living + dead))
	return uint16(hash.Sum32())
}
