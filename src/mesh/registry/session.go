package registry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/consul-mesh/mesh-buildpack/src/droplet"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/consul"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/instance"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/wait"
)

// keyPrefix is where the signs of life of one service are.
func (v *viaServers) keyPrefix() string { return droplet.AliveKeys(v.Services[0].Name) }

// giveSign gives a sign of life, once. v.writing is held.
func (v *viaServers) giveSign(ctx context.Context) (err error) {
	v.mutex.Lock()
	session, alive := v.session, v.hasKey
	v.mutex.Unlock()
	if alive {
		return nil
	}
	if session == "" {
		if session, err = v.newSession(ctx); err != nil {
			return err
		}
		v.mutex.Lock()
		v.session = session
		v.noteRenewed()
		v.mutex.Unlock()
	}
	if v.isTask() {
		return nil // nobody waits for a key of its
	}
	// A session that could not be seen to hold the key may do so.
	err = v.holdKey(ctx, session)
	v.mutex.Lock()
	defer v.mutex.Unlock()
	if v.session != session {
		return errEnded // which who renews it has seen meanwhile
	}
	if errors.Is(err, errEnded) {
		v.session = ""
	}
	v.hasKey = err == nil
	return err
}

// keepKey holds the key again where somebody has deleted it.
func (v *viaServers) keepKey(ctx context.Context) error {
	if v.isTask() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, instance.CallTimeout)
	defer cancel()
	var key []struct{}
	_, err := v.Consul.Watch(ctx, v.Access.ServiceToken(), "/v1/kv/"+v.keyPrefix()+v.Inst.NodeName(), &key)
	if err != nil || len(key) > 0 {
		return err
	}
	return v.giveSignAgain(ctx)
}

// giveSignAgain is for an instance whose key somebody has deleted: its session
// does not end by that. Others would take it for dead.
func (v *viaServers) giveSignAgain(ctx context.Context) error {
	v.mutex.Lock()
	session := v.session
	v.hasKey = false
	v.mutex.Unlock()
	if session == "" {
		return errEnded // stayAlive registers all of it again
	}
	err := v.writing.do(ctx, func() error { return v.giveSign(ctx) })
	if err == nil {
		v.Log("the key of this instance was gone from the servers, and is there again")
	}
	return err
}

// newSession makes a session, which ends when it is no longer renewed.
func (v *viaServers) newSession(ctx context.Context) (string, error) {
	var session struct{ ID string }
	err := v.put(ctx, v.Access.ServiceToken(), "/v1/session/create", map[string]any{
		"Name": "mesh", "Node": v.Inst.NodeName(), "NodeChecks": []string{}, "TTL": instance.SessionTTL, "Behavior": "delete", "LockDelay": "0s",
	}, &session)
	if err != nil {
		return "", fmt.Errorf("failed to make a session: %w", err)
	}
	return session.ID, nil
}

// errEnded says that a session has ended.
var errEnded = errors.New("the session has ended")

// holdKey holds the instance's key with its session.
func (v *viaServers) holdKey(ctx context.Context, session string) error {
	var held bool
	path := "/v1/kv/" + v.keyPrefix() + v.Inst.NodeName() + "?acquire=" + url.QueryEscape(session)
	err := v.put(ctx, v.Access.ServiceToken(), path, nil, &held)
	var status *consul.StatusError
	switch {
	case errors.As(err, &status) && strings.Contains(status.Text, "invalid session"):
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
	complete, away := true, false // the servers have all that was registered, could not be asked
	again := wait.Backoff{First: instance.AgainFirst, Most: instance.RenewAgain}
	look := nextLook()
	var reached contact
	for {
		err := v.renewSession(ctx)
		if ctx.Err() == nil {
			reached.note(v.Log, err)
		}
		if err == nil && away {
			// They may have been told otherwise, or have lost something, meanwhile.
			look = time.Now().Add(rand.N(instance.ListAgain - instance.RenewEvery))
		}
		away = err != nil
		if err == nil && complete && (!time.Now().Before(look) || v.doubt.isDue()) {
			if err = v.compare(ctx); err == nil {
				look = nextLook()
				err = v.keepKey(ctx)
			}
		}
		var lost *lostError
		if errors.As(err, &lost) && complete {
			v.Log("%v, it is registered again", err)
			complete = false
		}
		if !complete {
			err = v.registerAll(ctx)
			complete = err == nil
			if err != nil && ctx.Err() == nil {
				v.Log("failed to register again: %v", err)
			}
		}
		next := min(instance.RenewEvery, max(v.doubt.dueIn(), instance.Beat))
		if err != nil {
			next = again.Next() // servers that are away end no session
		} else {
			again.Reset()
		}
		if wait.Pause(ctx, next) != nil {
			return
		}
	}
}

// nextLook is when how the catalog has this instance is compared again.
func nextLook() time.Time {
	return time.Now().Add(instance.CompareEvery + rand.N(instance.CompareEvery/4))
}

// noteRenewed notes when the session was made or renewed. v.mutex is held.
func (v *viaServers) noteRenewed() {
	if v.isOverdue() {
		v.back = time.Now()
	}
	v.renewed = time.Now()
}

// isOverdue says that the session should have been renewed. v.mutex is held.
func (v *viaServers) isOverdue() bool {
	return !v.renewed.IsZero() && time.Since(v.renewed) > instance.Overdue
}

// mercy is how long nobody is to be taken for dead: what keeps this instance from
// renewing its session, or has just done so, may keep others from it too.
func (v *viaServers) mercy() time.Duration {
	v.mutex.Lock()
	defer v.mutex.Unlock()
	if v.isOverdue() {
		return instance.Brake
	}
	return max(0, instance.Brake-time.Since(v.back))
}

// lostError says that the servers have not, or not all, of this instance.
type lostError struct{ error }

// renewSession keeps the session alive.
func (v *viaServers) renewSession(ctx context.Context) error {
	v.mutex.Lock()
	session := v.session
	v.mutex.Unlock()
	if session != "" {
		renewing, cancel := context.WithTimeout(ctx, instance.CallTimeout) // said twice does no harm
		err := v.write(renewing, "/v1/session/renew/"+url.PathEscape(session), nil)
		cancel()
		if err == nil {
			v.mutex.Lock()
			defer v.mutex.Unlock()
			v.noteRenewed()
			return nil
		}
		var status *consul.StatusError
		if !errors.As(err, &status) || status.Status != http.StatusNotFound {
			return err
		}
	} else if !slices.ContainsFunc(v.Services, func(r *Registration) bool { return r.Registered.Load() }) {
		return nil // there has been none yet
	}
	v.mutex.Lock()
	defer v.mutex.Unlock()
	if v.session == session || v.session == "" { // somebody else may have seen it
		v.session, v.hasKey, v.known = "", false, false
	}
	return &lostError{errors.New("the servers took this instance for dead")}
}

// settle returns nil where no write about this instance is in doubt, or the catalog
// is seen to have it as it means to be in spite of that.
func (v *viaServers) settle(ctx context.Context) error {
	if !v.doubt.lasts() {
		return nil
	}
	err := v.compare(ctx)
	var lost *lostError
	if errors.As(err, &lost) {
		v.Log("%v, it is registered again", err)
		if err = v.registerAll(ctx); err == nil {
			err = v.compare(ctx)
		}
	}
	if errors.Is(err, consul.ErrHidden) {
		return nil // nobody can tell
	}
	return err
}

// compare looks twice whether the catalog has this instance as it means it to be,
// as an agent does now and then.
func (v *viaServers) compare(ctx context.Context) error {
	begun, consistency := time.Now(), ""
	if v.doubt.lasts() {
		consistency = "?consistent" // also of a leader that does not know yet that it is none
	}
	var lost *lostError
	err := v.differs(ctx, consistency)
	if errors.As(err, &lost) {
		if err := wait.Pause(ctx, time.Second); err != nil {
			return err
		}
		err = v.differs(ctx, consistency)
	}
	switch {
	case errors.As(err, &lost):
		v.mutex.Lock()
		v.known = false
		v.mutex.Unlock()
	case err == nil, errors.Is(err, consul.ErrHidden): // then nobody can tell
		v.doubt.settled(begun)
	}
	return err
}

// errNotYet says that there is nothing to compare with yet.
var errNotYet = errors.New("what the catalog has cannot be told yet: it is being written")

// differs returns a lostError with the first difference, and errNotYet while something
// is written.
func (v *viaServers) differs(ctx context.Context, consistency string) error {
	if !slices.ContainsFunc(v.Services, func(r *Registration) bool { return r.Registered.Load() }) {
		return errNotYet
	}
	v.mutex.Lock()
	known := v.known
	v.mutex.Unlock()
	if !known {
		return &lostError{errors.New("the servers have not taken the last word about this instance")}
	}
	turns := v.writing.turns.Load()
	address := v.ownAddress()
	var there struct {
		Node     struct{ Address string }
		Services map[string]struct{ Port int } // by id
	}
	if err := v.list(ctx, "/v1/catalog/node/"+url.PathEscape(v.Inst.NodeName())+consistency, &there); err != nil {
		return err
	}
	checks, err := v.health(ctx, consistency)
	if err != nil {
		return err
	}
	if turns%2 == 1 || turns != v.writing.turns.Load() {
		return errNotYet
	}
	if there.Node.Address != address {
		return &lostError{fmt.Errorf("the catalog has this instance at %q, not at %s", there.Node.Address, address)}
	}
	for _, r := range v.Services {
		if !r.Registered.Load() {
			continue
		}
		for _, id := range []string{r.ID, droplet.SidecarID(r.ID)} {
			if v.isTask() && id == r.ID {
				continue
			}
			service, found := there.Services[id]
			switch {
			case !found:
				return &lostError{fmt.Errorf("the catalog does not have %s of this instance", id)}
			case r.shown.Load() && service.Port == notYet && id != r.ID:
				return &lostError{fmt.Errorf("the catalog has %s at the port %d, where nobody listens", id, notYet)}
			}
		}
		for _, want := range v.catalogChecks(r) {
			if status := cmp.Or(checks[want.CheckID].Status, consul.Missing); status != want.Status {
				return &lostError{fmt.Errorf("the catalog has the check %s as %s, not as %s", want.CheckID, status, want.Status)}
			}
		}
	}
	return nil
}
