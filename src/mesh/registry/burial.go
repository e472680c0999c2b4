package registry

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/consul-mesh/mesh-buildpack/src/mesh/consul"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/instance"
)

// janitor is what the janitor has seen (docs/architecture.md, "The dead"). It decides
// by what the catalog lists and by the keys that are there; before a node is taken
// out, it is asked for a session, which shows that it lives whatever its key says.
type janitor struct {
	*viaServers
	index     uint64
	living    []string             // nodes whose keys are there
	looked    time.Time            // at everything
	gone      map[string]bool      // nodes whose keys have gone since the last look
	firstGone time.Time            // the first of these, or the janitor before
	lastGone  time.Time            // the last of these
	left      map[string]time.Time // those that have said goodbye, and when
	suspected map[string]time.Time // those that may just be coming, and since when
	buried    []time.Time          // when somebody was, lately
	brake     time.Time            // before which nobody is; zero without
}

func newJanitor(v *viaServers) *janitor {
	now := time.Now()
	j := &janitor{
		viaServers: v, gone: map[string]bool{}, firstGone: now, lastGone: now,
		left: map[string]time.Time{}, suspected: map[string]time.Time{},
	}
	if before := v.predecessor; before != "" && before != v.Inst.NodeName() { // nobody else has seen it leave
		j.left[before] = now
	}
	return j
}

// round waits until there is something to look at, and looks.
func (j *janitor) round(ctx context.Context) error {
	living, janitors, next, err := j.siblings(ctx, j.index, j.dueIn())
	if err != nil {
		j.index = 0
		return err
	}
	switch {
	case !slices.Contains(janitors, j.janitorKey()):
		return errSucceeded
	case !slices.Contains(living, j.Inst.NodeName()):
		return j.giveSignAgain(ctx)
	}
	j.index = next
	j.compareKeys(living)
	if j.dueIn() > 0 {
		return nil
	}
	if err := j.look(ctx); err != nil {
		j.looked = time.Time{} // then at everything
		return err
	}
	return nil
}

// compareKeys notes whose keys have gone.
func (j *janitor) compareKeys(living []string) {
	now := time.Now()
	for _, node := range j.living {
		if _, found := slices.BinarySearch(living, node); found {
			continue
		}
		if len(j.gone) == 0 {
			j.firstGone = now
		}
		j.gone[node], j.lastGone = true, now
	}
	j.living = living
}

// dueIn is when somebody has to be looked at. Where many go at once, it is when none
// has for a while: how many they are decides whether they are taken for dead.
func (j *janitor) dueIn() time.Duration {
	due := j.looked.Add(instance.WatchWait)
	sooner := func(t time.Time) {
		if t.Before(due) {
			due = t
		}
	}
	for _, at := range j.left {
		sooner(at.Add(instance.HoldTime))
	}
	for _, since := range j.suspected {
		sooner(since.Add(instance.BareFor))
	}
	if len(j.gone) > 0 || j.looked.IsZero() { // for which all else waits
		quiet := j.lastGone.Add(instance.Together)
		if len(j.gone)+len(j.living) > instance.BrakeLeast { // fewer are never too many
			quiet = j.lastGone.Add(instance.Quiet)
		}
		if due = j.firstGone.Add(instance.QuietMost); quiet.Before(due) {
			due = quiet
		}
	}
	if !j.brake.IsZero() {
		due = j.brake
	}
	return max(0, time.Until(due))
}

// look decides who is dead, and takes them out. After a key has gone it looks at
// those that are listed with the service, and otherwise at all nodes of the app.
func (j *janitor) look(ctx context.Context) error {
	begun, all := time.Now(), len(j.gone) == 0 || time.Since(j.looked) >= instance.WatchWait || !j.brake.IsZero()
	listed, err := j.listed(ctx)
	if err != nil {
		return err
	}
	var dead []string
	suspected := map[string]bool{}
	for node, own := range listed {
		if own {
			dead = append(dead, node)
		} else {
			suspected[node] = true
		}
	}
	if all {
		nodes, err := j.lifeless(ctx, "/v1/catalog/nodes?"+j.ownNodes().Encode())
		if err != nil {
			return err
		}
		for node := range nodes {
			if _, isListed := listed[node]; !isListed {
				suspected[node] = true
			}
		}
		dead = append(dead, j.convicted(suspected, begun)...)
	}
	for node := range j.gone {
		if _, isListed := listed[node]; !isListed && !slices.Contains(dead, node) {
			j.left[node] = begun
		}
	}
	if all {
		j.looked = begun
	}
	clear(j.gone)
	if len(dead) == 0 {
		j.release()
		return nil
	}
	if j.holds(dead) {
		return nil
	}
	slices.Sort(dead)
	return j.bury(ctx, dead)
}

// convicted are those of the suspected who have been so for long enough: an instance
// that is just coming has a session by then. Whoever has said goodbye, and is there
// again by a write of his that came late, is not coming.
func (j *janitor) convicted(suspected map[string]bool, now time.Time) (dead []string) {
	for node := range j.suspected {
		if !suspected[node] {
			delete(j.suspected, node)
		}
	}
	for node := range suspected {
		if _, known := j.suspected[node]; !known {
			j.suspected[node] = now
		}
		at, hasLeft := j.left[node]
		if now.Sub(j.suspected[node]) >= instance.BareFor || hasLeft && now.Sub(at) >= instance.HoldTime {
			dead = append(dead, node)
		}
	}
	for node, at := range j.left {
		if now.Sub(at) >= instance.HoldTime {
			delete(j.left, node)
		}
	}
	return dead
}

// holds is the brake: where most of a service seem to have died, or this instance has
// just been cut off itself, it is more likely that the network between them and the
// servers has failed, and their callers still reach them.
func (j *janitor) holds(dead []string) bool {
	now := time.Now()
	j.buried = slices.DeleteFunc(j.buried, func(at time.Time) bool { return now.Sub(at) > instance.Brake })
	if !j.brake.IsZero() {
		return now.Before(j.brake)
	}
	overdue, mercy, why := len(dead)+len(j.buried), j.mercy(), ""
	switch {
	case overdue >= instance.BrakeLeast && overdue > len(j.living):
		mercy = instance.Brake
		why = fmt.Sprintf("%d of %d instances of %s seem dead at once", overdue, overdue+len(j.living), j.Services[0].Name)
	case mercy > 0:
		why = fmt.Sprintf("%d instances of %s seem dead, and this one could not reach the servers a moment ago", len(dead), j.Services[0].Name)
	default:
		return false
	}
	j.brake = now.Add(mercy)
	j.Log("%s: none of them is taken out of the catalog for %.0f s", why, mercy.Seconds())
	j.note(fmt.Sprintf("%s: none of them is taken out of the catalog before %s", why, j.brake.UTC().Format(time.TimeOnly)))
	return true
}

// release lets go of the brake.
func (j *janitor) release() {
	j.brake = time.Time{}
	j.note("")
}

// bury takes the dead out of the catalog.
func (j *janitor) bury(ctx context.Context, dead []string) error {
	session := j.ownSession()
	var group errgroup.Group
	group.SetLimit(instance.BurialsAtOnce)
	buried := make([]bool, len(dead))
	for i, node := range dead {
		group.Go(func() error {
			if j.ownSession() != session {
				return errSucceeded
			}
			asking, cancel := context.WithTimeout(ctx, instance.CallTimeout)
			defer cancel()
			// One that has a session may hold its key elsewhere, such as another version
			// of the app, whose first service is another.
			ended, err := j.Consul.Ended(asking, node)
			if err != nil || !ended {
				return err
			}
			if err := j.removeNode(ctx, node); err != nil {
				j.Log("failed to take the dead instance %s out of the catalog: %v", node, err)
				return err
			}
			buried[i] = true
			j.Log("the instance %s has died and is taken out of the catalog", node)
			return nil
		})
	}
	err := group.Wait()
	now := time.Now()
	for i, node := range dead {
		_, wasSuspected := j.suspected[node]
		switch {
		case buried[i]:
			delete(j.suspected, node)
			j.buried = append(j.buried, now)
		case wasSuspected: // and lives
			j.suspected[node] = now
		}
	}
	if err != nil {
		return err
	}
	if !j.brake.IsZero() { // these were too many, and have been waited for
		j.buried = nil
	}
	j.release()
	return nil
}

// listed are the nodes that have the service and no key, and which of them are this
// app's own. Those of another app are its own janitor's, as long as it has one.
func (j *janitor) listed(ctx context.Context) (map[string]bool, error) {
	ofService := "/v1/catalog/service/" + url.PathEscape(j.Services[0].Name) + "?"
	listed, err := j.lifeless(ctx, ofService+url.Values{"node-meta": {consul.MetaAgentless + ":true"}}.Encode())
	if errors.Is(err, consul.ErrHidden) { // another app has the service too, whose nodes this one may not see
		listed, err = j.lifeless(ctx, ofService+j.ownNodes().Encode())
	}
	return listed, err
}

// ownNodes asks for the nodes of this app's process.
func (v *viaServers) ownNodes() url.Values {
	return url.Values{"node-meta": {consul.MetaAgentless + ":true", instance.MetaApp + ":" + v.Inst.App, instance.MetaProcess + ":" + v.Inst.Process}}
}

// lifeless lists the nodes at a path of the catalog that have no key, and whether they
// are this app's process'.
func (j *janitor) lifeless(ctx context.Context, path string) (map[string]bool, error) {
	var entries []struct {
		Node           string
		NodeMeta, Meta map[string]string // of a service's entry, and a node's
	}
	err := j.list(ctx, path, &entries)
	nodes := map[string]bool{}
	for _, entry := range entries {
		if _, lives := slices.BinarySearch(j.living, entry.Node); lives {
			continue
		}
		of := func(key string) string { return entry.NodeMeta[key] + entry.Meta[key] }
		nodes[entry.Node] = of(instance.MetaApp) == j.Inst.App && of(instance.MetaProcess) == j.Inst.Process
	}
	return nodes, err
}
