package serve

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/imgfs/imgfs/fs/fusefs"
)

// Healths are all that the health of a mount can be for Totals.
var healths = []string{HealthOK, HealthDown, HealthWaiting, HealthHung, HealthDead, HealthHidden, HealthUnknown}

// Counted are counters of mounts, added up.
type Counted struct {
	Asked    int64 // bytes of files that readers asked for
	Fetched  int64 // bytes that came for them
	Indexed  int64 // bytes that came to index layers
	Meta     int64 // bytes of manifests and configs that came
	Hits     int64 // bytes of layers that came from the cache
	Requests int64
	Reads    int64
	Waits    int64 // reads that had to wait
	Errors   int64 // reads that failed
	Bad      int64 // chunks that were wrong
}

// fields returns all counters, in one order.
func (c *Counted) fields() []*int64 {
	return []*int64{&c.Asked, &c.Fetched, &c.Indexed, &c.Meta, &c.Hits, &c.Requests, &c.Reads, &c.Waits, &c.Errors, &c.Bad}
}

// grow adds what counters have grown by from one time to another. The server of a mount that
// another one takes over from begins anew.
func (c *Counted) grow(was, now Counted) {
	sum, old := c.fields(), was.fields()
	for i, n := range now.fields() {
		if *n >= *old[i] {
			*sum[i] += *n - *old[i]
		} else {
			*sum[i] += *n
		}
	}
}

func countedOf(s *Stats) Counted {
	n := s.Total
	return Counted{n.Asked, n.Fetched, n.Indexed, n.Meta, n.Hits, n.Requests, n.Reads, n.Waits, n.Errors, n.Bad}
}

// Totals add up the counters of the mounts below a directory, from when it was made on: they
// only grow, though mounts come and go. What a mount has counted after it was last asked is
// lost with it. It is safe for concurrent use.
type Totals struct {
	dir string

	mu     sync.Mutex
	older  map[mountKey]bool // those that were there before, and are
	round  *round            // that is under way; nil: none is
	sum    Counted
	last   map[mountKey]Counted
	asking map[mountKey]bool // those that have not answered yet
}

// A mountKey tells mounts apart for as long as they are there.
type mountKey struct{ dir, device string }

// A round asks all mounts once.
type round struct {
	done   chan struct{} // closed when the following are set
	sum    Counted
	health map[string]int
}

// NewTotals returns totals of the mounts below a directory, an absolute path without
// symlinks. Those that are there already count from when they are first asked.
func NewTotals(dir string) *Totals {
	t := &Totals{dir: dir, older: make(map[mountKey]bool), last: make(map[mountKey]Counted), asking: make(map[mountKey]bool)}
	for _, p := range t.points() {
		t.older[keyOf(p)] = true
	}
	return t
}

// points returns the mounts below the directory.
func (t *Totals) points() []fusefs.MountPoint {
	points, err := fusefs.Mounts()
	if err != nil {
		return nil // there is no table of mounts
	}
	return slices.DeleteFunc(points, func(p fusefs.MountPoint) bool { return p.Part != "/" || !strings.HasPrefix(p.Dir, t.dir+"/") })
}

func keyOf(p fusefs.MountPoint) mountKey { return mountKey{p.Dir, p.Device} }

// Ask asks all mounts, and none longer than two seconds: it returns the totals, and how many
// mounts there are by their health. Those who ask while others wait get the same answer. A
// mount that does not answer is not asked again before it has. When ctx ends first the answer
// is the one that is known.
func (t *Totals) Ask(ctx context.Context) (Counted, map[string]int) {
	t.mu.Lock()
	r := t.round
	if r == nil {
		r = &round{done: make(chan struct{})}
		t.round = r
		go t.ask(r)
	}
	t.mu.Unlock()
	select {
	case <-r.done:
		return r.sum, r.health
	case <-ctx.Done():
		t.mu.Lock()
		defer t.mu.Unlock()
		return t.sum, nil
	}
}

// An answer is what a mount says, or why it says nothing.
type answer struct {
	key   mountKey
	stats Stats
	err   error
}

// ask asks all mounts once.
func (t *Totals) ask(r *round) {
	points := t.points()
	answers := make(chan answer, len(points))
	asked := t.begin(points, answers)
	late := time.NewTimer(answerLimit)
	defer late.Stop()
	var all []answer
	for expired := false; len(all) < asked && !expired; {
		select {
		case a := <-answers:
			all = append(all, a)
		case <-late.C:
			expired = true
		}
	}

	t.mu.Lock()
	defer t.mu.Unlock()
	r.health = make(map[string]int, len(healths))
	for _, h := range healths {
		r.health[h] = 0
	}
	r.health[HealthHung] = len(points) - len(all)
	for _, a := range all {
		r.health[t.count(a)]++
	}
	t.forget(points)
	r.sum = t.sum
	t.round = nil
	close(r.done)
}

// begin asks those mounts that are not being asked still, and returns how many that are.
func (t *Totals) begin(points []fusefs.MountPoint, answers chan<- answer) (asked int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range points {
		key := keyOf(p)
		if t.asking[key] {
			continue
		}
		t.asking[key] = true
		asked++
		go func() {
			// No signal ends the wait of one that hangs: only its own end does.
			s, err := askStats(context.Background(), p)
			t.mu.Lock()
			delete(t.asking, key)
			t.mu.Unlock()
			answers <- answer{key, s, err}
		}()
	}
	return asked
}

// count takes over what a mount says, and returns its health. mu is held.
func (t *Totals) count(a answer) (health string) {
	if a.err != nil {
		return healthOf(a.err)
	}
	now := countedOf(&a.stats)
	was, known := t.last[a.key]
	if !known && t.older[a.key] {
		was = now
	}
	t.sum.grow(was, now)
	t.last[a.key] = now
	switch {
	case a.stats.Opening:
		return HealthWaiting
	case slices.ContainsFunc(a.stats.Servers, func(h ServerState) bool { return h.Down }):
		return HealthDown
	}
	return HealthOK
}

// forget forgets the counters of mounts that are gone. mu is held.
func (t *Totals) forget(points []fusefs.MountPoint) {
	there := make(map[mountKey]bool, len(points))
	for _, p := range points {
		there[keyOf(p)] = true
	}
	gone := func(key mountKey) bool { return !there[key] }
	maps.DeleteFunc(t.last, func(key mountKey, _ Counted) bool { return gone(key) })
	maps.DeleteFunc(t.older, func(key mountKey, _ bool) bool { return gone(key) })
}
