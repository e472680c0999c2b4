package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/consul-mesh/mesh-buildpack/src/droplet"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/consul"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/instance"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/wait"
)

// Instances without agents take each other's dead out of the catalog. One of those of
// a service and an app does it for all: the janitor, who holds a key with the session
// that shows that it lives (session.go). The others wait for that one key to go.

// janitorKey is the key of the janitor.
func (v *viaServers) janitorKey() string {
	return droplet.JanitorKey(v.Services[0].Name, v.Inst.App, v.Inst.Process)
}

// watchSiblings sees to it that there is a janitor, and is the janitor where it is
// this instance's turn.
func (v *viaServers) watchSiblings(ctx context.Context) {
	tries := wait.Backoff{First: instance.AgainFirst, Most: instance.ListAgain}
	index := uint64(0)
	for ctx.Err() == nil {
		session, next, err := v.janitor(ctx, index) // which also says who it is
		if err == nil && session == "" {
			session, next, err = v.stand(ctx)
		}
		switch {
		case err != nil:
			index = 0
			_ = tries.Pause(ctx)
			continue
		case session != "" && session == v.ownSession():
			v.clean(ctx, session)
			next = 0
		}
		tries.Reset()
		index = next
	}
}

// janitor is the session of the janitor, empty where there is none, when that is news
// since index.
func (v *viaServers) janitor(ctx context.Context, index uint64) (session string, next uint64, err error) {
	var key []struct {
		Session string
		Value   []byte
	}
	next, err = v.watch(ctx, "/v1/kv/"+v.janitorKey()+"?", index, instance.WatchWait, &key)
	if len(key) > 0 {
		session = key[0].Session
		_ = json.Unmarshal(key[0].Value, &v.predecessor) // it is written so
	}
	return session, next, err
}

// watch is a question that stays open until there is news since index, or for a time.
// A server that is gone without a word is noticed by who renews the session.
func (v *viaServers) watch(ctx context.Context, path string, index uint64, open time.Duration, answer any) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, open+open/8+instance.CallTimeout)
	defer cancel()
	asked, done := v.servers.UntilLost(ctx)
	defer done()
	next, err := v.Consul.Watch(asked, v.Access.ServiceToken(), fmt.Sprintf("%sindex=%d&wait=%dms", path, index, max(1, open.Milliseconds())), answer)
	if next < index { // the servers were restored
		next = 0
	}
	return next, err
}

// stand is for the others to do so too: all see at the same moment that there is no
// janitor. It returns the session of who is the janitor then, if that is known, and the
// index of that news, 0 where there may be later ones.
func (v *viaServers) stand(ctx context.Context) (session string, next uint64, err error) {
	if err := wait.Pause(ctx, electionDelay(rand.Float64())); err != nil {
		return "", 0, err
	}
	if session, next, err = v.janitor(ctx, 0); err != nil || session != "" {
		return session, next, err
	}
	own := v.ownSession()
	if own == "" {
		return "", 0, errEnded
	}
	var held bool
	err = v.put(ctx, v.Access.ServiceToken(), "/v1/kv/"+v.janitorKey()+"?acquire="+url.QueryEscape(own), v.Inst.NodeName(), &held)
	if err != nil || !held {
		return "", 0, err
	}
	return own, 0, nil
}

// electionDelay spreads those who stand, without knowing how many they are: of many
// only a few are early, and of few somebody is in time. It is the timer by which
// multicast receivers keep each other from answering (Nonnenmacher and Biersack,
// "Optimal multicast feedback", 1998), for up to a thousand.
func electionDelay(random float64) time.Duration {
	const spread = 1000
	return time.Duration(float64(instance.ElectionTime) * math.Log1p(random*(spread-1)) / math.Log(spread))
}

func (v *viaServers) ownSession() string {
	v.mutex.Lock()
	defer v.mutex.Unlock()
	return v.session
}

// errSucceeded says that this instance is not the janitor any more.
var errSucceeded = errors.New("another instance is the janitor")

// clean is the work of the janitor, until it is that no longer. Where it cannot look
// for too long, it gives its key back: another may reach the servers.
func (v *viaServers) clean(ctx context.Context, session string) {
	defer v.note("")
	var aside sync.WaitGroup
	defer aside.Wait()
	entries, cancel := context.WithCancel(ctx)
	defer cancel()
	aside.Go(func() { v.keepEntries(entries) })
	tries := wait.Backoff{First: instance.AgainFirst, Most: instance.ListAgain}
	j := newJanitor(v)
	said, looked := false, time.Now()
	for ctx.Err() == nil && v.ownSession() == session {
		err := j.round(ctx)
		switch {
		case err == nil:
			looked = time.Now()
			tries.Reset()
			continue
		case errors.Is(err, errSucceeded):
			return
		case errors.Is(err, consul.ErrHidden):
			if !said {
				v.Log("the other instances of %s cannot be seen, one that dies stays in the catalog: %v", v.Services[0].Name, err)
				said = true
			}
			_ = wait.Pause(ctx, instance.WatchWait)
			continue
		case time.Since(looked) > instance.JanitorPatience:
			v.giveBack(ctx, session)
			_ = wait.Pause(ctx, instance.JanitorPatience) // for others
			return
		}
		_ = tries.Pause(ctx)
	}
}

// giveBack lets another be the janitor.
func (v *viaServers) giveBack(ctx context.Context, session string) {
	ctx, cancel := context.WithTimeout(ctx, instance.CallTimeout)
	defer cancel()
	// Where nobody hears it, the session ends or goes on with the servers.
	_ = v.write(ctx, "/v1/kv/"+v.janitorKey()+"?release="+url.QueryEscape(session), nil)
}

// note is what `mesh status` says of the janitor's work; empty: nothing.
func (v *viaServers) note(text string) {
	v.mutex.Lock()
	defer v.mutex.Unlock()
	v.noted = text
}

// siblings lists the nodes whose keys are there, and the keys of janitors, when there
// is news since index or a time is over.
func (v *viaServers) siblings(ctx context.Context, index uint64, open time.Duration) (living, janitors []string, next uint64, err error) {
	var keys []string
	next, err = v.watch(ctx, "/v1/kv/"+v.keyPrefix()+"?keys&", index, open, &keys)
	for _, key := range keys {
		if node := strings.TrimPrefix(key, v.keyPrefix()); strings.Contains(node, "/") {
			janitors = append(janitors, key)
		} else {
			living = append(living, node)
		}
	}
	slices.Sort(living)
	return living, janitors, next, err
}
