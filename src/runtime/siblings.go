package runtime

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/consul-mesh/mesh-buildpack/src/droplet"
)

// No gossip tells when an instance without an agent has died. So each holds a
// key of Consul's key/value store by a session that ends when it is no longer
// renewed, and the other instances of its service wait for keys to go. Renewing
// writes nothing. Servers that were away let every session live on, so nobody
// is taken for dead because of them.
const (
	// sessionTTL is the least that Consul takes. It ends a session up to twice
	// that after it was renewed last.
	sessionTTL = "10s"
	// renewEvery is how often a session is renewed: late enough that a dead
	// instance's ends well before its 20 s, and three times before it ends.
	renewEvery = 5 * time.Second
	// renewAgain is when it is tried again after a failure.
	renewAgain = 2 * time.Second
	// compareEvery is the number of renewals after which an instance looks how the
	// catalog has it.
	compareEvery = 6
	// siblingWait is how long a request for news of the siblings stays open. It
	// bounds how long a server that has vanished without a word is waited for.
	siblingWait = 30 * time.Second
	// turn is how long each of the first instances leaves a dead one to the
	// instances before it; the others wait for all of those turns, and then some.
	turn  = 250 * time.Millisecond
	turns = 4
	// bareFor is how long a node has to be bare: one that is just being registered
	// gets a session at once, or after an answer of the servers that was lost.
	bareFor = 3 * callTimeout
)

// keyPrefix is where the signs of life of one service are.
func (v *viaServers) keyPrefix() string { return droplet.AliveKeys(v.services[0].name) }

// newSession makes a session, which ends when it is no longer renewed.
func (v *viaServers) newSession(ctx context.Context) (string, error) {
	var session struct{ ID string }
	err := v.put(ctx, v.access.serviceToken(), "/v1/session/create", map[string]any{
		"Name": "mesh", "Node": v.inst.NodeName(), "NodeChecks": []string{}, "TTL": sessionTTL, "Behavior": "delete", "LockDelay": "0s",
	}, &session)
	if err != nil {
		return "", fmt.Errorf("failed to make a session: %w", err)
	}
	return session.ID, nil
}

// errEnded says that a session has ended.
var errEnded = errors.New("the session has ended")

// holdKey holds the instance's key with its session.
func (v *viaServers) holdKey(ctx context.Context) error {
	var held bool
	path := "/v1/kv/" + v.keyPrefix() + v.inst.NodeName() + "?acquire=" + url.QueryEscape(v.session)
	err := v.put(ctx, v.access.serviceToken(), path, nil, &held)
	var status *statusError
	switch {
	case errors.As(err, &status) && strings.Contains(status.text, "invalid session"):
		err = errEnded
	case err == nil && !held:
		err = errors.New("its key is held by another session")
	}
	if err != nil {
		return fmt.Errorf("failed to hold the key of this instance: %w", err)
	}
	return nil
}

// stayAlive keeps the session alive, once there is one, and the catalog as this
// instance means it to be.
func (v *viaServers) stayAlive(ctx context.Context) {
	complete := true // the servers have all that was registered
	for round := 1; ; round++ {
		err := v.renew(ctx)
		if err == nil && complete && round%compareEvery == 0 {
			err = v.compare(ctx)
		}
		var lost *lostError
		if errors.As(err, &lost) && complete {
			v.log("%v, it is registered again", err)
			complete = false
		}
		if !complete {
			err = v.registerAll(ctx)
			complete = err == nil
			if err != nil && ctx.Err() == nil {
				v.log("failed to register again: %v", err)
			}
		}
		next := renewEvery
		if err != nil {
			next = renewAgain // servers that are away end no session
		}
		if pause(ctx, next) != nil {
			return
		}
	}
}

// lostError says that the servers have not, or not all, of this instance.
type lostError struct{ error }

// renew keeps the session alive.
func (v *viaServers) renew(ctx context.Context) error {
	v.mutex.Lock()
	session := v.session
	v.mutex.Unlock()
	if session != "" {
		err := v.write(ctx, "/v1/session/renew/"+url.PathEscape(session), nil)
		var status *statusError
		if !errors.As(err, &status) || status.status != http.StatusNotFound {
			return err
		}
	} else if !slices.ContainsFunc(v.services, func(r *registration) bool { return r.registered.Load() }) {
		return nil // there has been none yet
	}
	v.mutex.Lock()
	defer v.mutex.Unlock()
	if v.session == session {
		v.session, v.alive, v.known = "", false, false
	}
	return &lostError{errors.New("the servers took this instance for dead")}
}

// compare looks twice whether the catalog has this instance as it means it to be,
// as an agent does now and then. A write whose answer was lost may be carried out
// after a newer one: servers without a leader hold it for seconds.
func (v *viaServers) compare(ctx context.Context) error {
	var lost *lostError
	err := v.differs(ctx)
	if !errors.As(err, &lost) {
		return err
	}
	if err := pause(ctx, time.Second); err != nil {
		return err
	}
	if err = v.differs(ctx); errors.As(err, &lost) {
		v.mutex.Lock()
		defer v.mutex.Unlock()
		v.known = false
	}
	return err
}

// differs returns a lostError with the first difference.
func (v *viaServers) differs(ctx context.Context) error {
	v.mutex.Lock()
	known, address := v.known, v.address()
	v.mutex.Unlock()
	if !known {
		return nil // not yet
	}
	var there struct {
		Node     struct{ Address string }
		Services map[string]struct{} // by id
	}
	if err := v.list(ctx, "/v1/catalog/node/"+url.PathEscape(v.inst.NodeName()), &there); err != nil {
		return err
	}
	checks, err := v.health(ctx)
	if err != nil {
		return err
	}
	if there.Node.Address != address {
		return &lostError{fmt.Errorf("the catalog has this instance at %q, not at %s", there.Node.Address, address)}
	}
	for _, r := range v.services {
		if !r.registered.Load() {
			continue
		}
		for _, id := range []string{r.ID, droplet.SidecarID(r.ID)} {
			if _, found := there.Services[id]; !found {
				return &lostError{fmt.Errorf("the catalog does not have %s of this instance", id)}
			}
		}
		for _, want := range v.catalogChecks(r) {
			if status := cmp.Or(checks[want.CheckID].Status, missing); status != want.Status {
				return &lostError{fmt.Errorf("the catalog has the check %s as %s, not as %s", want.CheckID, status, want.Status)}
			}
		}
	}
	return nil
}

// watchSiblings takes instances out of the catalog whose key has gone. It
// begins with those that died while no other lived.
func (v *viaServers) watchSiblings(ctx context.Context) {
	index, said := uint64(0), false
	var burying sync.Map // nodes; a bare one takes a while, in which others may die
	var burials sync.WaitGroup
	defer burials.Wait()
	for ctx.Err() == nil {
		wait, cancel := context.WithTimeout(ctx, siblingWait+siblingWait/8)
		alive, next, err := v.siblings(wait, index)
		cancel()
		var dead map[string]time.Duration
		switch {
		case err == nil && !slices.Contains(alive, v.inst.NodeName()):
			err = v.giveSignAgain(ctx)
		case err == nil:
			dead, err = v.dead(ctx, alive)
		}
		if errors.Is(err, errHidden) && !said {
			v.log("the other instances of %s cannot be seen, one that dies stays in the catalog: %v", v.services[0].name, err)
			said = true
		}
		if err != nil {
			_ = pause(ctx, time.Second)
			index = 0
			continue
		}
		index = next
		for node, least := range dead {
			if _, already := burying.LoadOrStore(node, true); already {
				continue
			}
			burials.Go(func() {
				defer burying.Delete(node)
				v.bury(ctx, node, least, slices.Clone(alive))
			})
		}
	}
}

// siblings lists the nodes whose keys are there, when there is news since
// index.
func (v *viaServers) siblings(ctx context.Context, index uint64) (alive []string, next uint64, err error) {
	var keys []string
	path := fmt.Sprintf("/v1/kv/%s?keys&index=%d&wait=%s", v.keyPrefix(), index, siblingWait)
	next, err = v.consul.watch(ctx, v.access.serviceToken(), path, &keys)
	for _, key := range keys {
		alive = append(alive, strings.TrimPrefix(key, v.keyPrefix()))
	}
	return alive, next, err
}

// giveSignAgain is for an instance whose key somebody has deleted: its session
// does not end by that. Others would take it for dead.
func (v *viaServers) giveSignAgain(ctx context.Context) error {
	v.mutex.Lock()
	session := v.session
	v.alive = false
	v.mutex.Unlock()
	if session == "" {
		return errEnded // stayAlive registers all of it again
	}
	err := v.giveSign(ctx)
	if err == nil {
		v.log("the key of this instance was gone from the servers, and is there again")
	}
	return err
}

// dead lists the nodes that have the service and no sign of life, and those of
// this app's process that are bare, each with how long it has to be so. A list
// of the living without this instance is not one to judge others by.
func (v *viaServers) dead(ctx context.Context, alive []string) (map[string]time.Duration, error) {
	if !slices.Contains(alive, v.inst.NodeName()) {
		return nil, nil
	}
	dead := map[string]time.Duration{}
	meta := url.Values{"node-meta": {metaAgentless + ":true"}}
	nodes, err := v.lifeless(ctx, "/v1/catalog/service/"+url.PathEscape(v.services[0].name)+"?"+meta.Encode(), alive)
	if err != nil {
		return nil, err
	}
	for _, node := range nodes {
		dead[node] = 0
	}
	meta["node-meta"] = append(meta["node-meta"], metaApp+":"+v.inst.App, metaProcess+":"+v.inst.Process)
	nodes, err = v.lifeless(ctx, "/v1/catalog/nodes?"+meta.Encode(), alive)
	for _, node := range nodes {
		if _, known := dead[node]; !known && v.bare(ctx, node) {
			dead[node] = bareFor
		}
	}
	return dead, err
}

// lifeless lists the nodes at a path of the catalog that have no key.
func (v *viaServers) lifeless(ctx context.Context, path string, alive []string) (nodes []string, err error) {
	var entries []struct{ Node string }
	err = v.list(ctx, path, &entries)
	for _, entry := range entries {
		if !slices.Contains(alive, entry.Node) {
			nodes = append(nodes, entry.Node)
		}
	}
	return nodes, err
}

// bare says that a node has no service, but perhaps sidecars, and no session: its
// instance was killed before it had, or after it had given them back. Where the
// answer is not whole it is not bare. (One with another service may hold its key
// elsewhere: an earlier version of the app.)
func (v *viaServers) bare(ctx context.Context, node string) bool {
	var there struct{ Services []struct{ Kind string } }
	var sessions []struct{}
	name := url.PathEscape(node)
	err := errors.Join(v.list(ctx, "/v1/catalog/node-services/"+name, &there), v.list(ctx, "/v1/session/node/"+name, &sessions))
	for _, service := range there.Services {
		if service.Kind != sidecarKind {
			return false
		}
	}
	return err == nil && len(sessions) == 0
}

// bury takes a dead node out of the catalog that is still so after a time,
// unless another instance has done so when it is this one's turn.
func (v *viaServers) bury(ctx context.Context, node string, least time.Duration, alive []string) {
	slices.SortFunc(alive, func(a, b string) int { return int(order(a, node)) - int(order(b, node)) })
	wait := time.Duration(slices.Index(alive, v.inst.NodeName())) * turn
	if wait > turns*turn || wait < 0 {
		wait = turns*turn + rand.N(4*turns*turn)
	}
	if pause(ctx, least+wait) != nil {
		return
	}
	look, cancel := context.WithTimeout(ctx, callTimeout)
	now, _, err := v.siblings(look, 0)
	cancel()
	if err != nil {
		return
	}
	still, err := v.dead(ctx, now)
	if _, dead := still[node]; err != nil || !dead {
		return
	}
	if err := v.removeNode(ctx, node); err != nil {
		v.log("failed to take the dead instance %s out of the catalog: %v", node, err)
		return
	}
	v.log("the instance %s has died and is taken out of the catalog", node)
}

// order gives each dead node another order of those that could bury it.
func order(alive, dead string) uint16 {
	hash := fnv.New32a()
	hash.Write([]byte(alive + dead))
	return uint16(hash.Sum32())
}
