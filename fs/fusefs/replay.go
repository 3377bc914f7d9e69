//go:build linux

package fusefs

import (
	"encoding/binary"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/fs/fusefs/internal/journal"
)

// What the death of a server says against the requests that it had begun to answer. SIGKILL
// may be anybody's, and then all of them are innocent: they share the blame. A culprit is
// there each time, and often alone, as the others are done meanwhile.
const (
	blameKill  = 60
	blameCrash = 180
	// sharers is among how many the blame for a SIGKILL is divided at most.
	sharers = 10
	// suspect is from where on requests are answered one after the other, each apart after
	// the one before.
	suspect = blameKill + 1
	apart   = 100 * time.Millisecond
	// condemned is from where on they are not answered any more.
	condemned = 6 * blameKill
	// maxRefused is how many of those are remembered.
	maxRefused = 64
)

// replays are requests that another server was to answer, and that are not answered yet.
type replays struct {
	mu      sync.Mutex
	waiting map[uint64]bool // by unique number, until they are begun
}

// interrupted reports whether a request waits to be begun. It counts as interrupted then.
func (r *replays) interrupted(id uint64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, waits := r.waiting[id]
	if waits {
		r.waiting[id] = true
	}
	return waits
}

func (r *replays) add(id uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.waiting == nil {
		r.waiting = map[uint64]bool{}
	}
	r.waiting[id] = false
}

// begin returns whether a request was interrupted while it waited.
func (r *replays) begin(id uint64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	was := r.waiting[id]
	delete(r.waiting, id)
	return was
}

// blame returns what the death of a server by a signal, as [Prepared.Start] has it, says
// against each of the requests that it had begun.
func blame(died, begun int) uint32 {
	switch died {
	case Replaced:
		return 0
	case -1, int(unix.SIGKILL), int(unix.SIGTERM):
		return uint32(blameKill / min(max(begun, 1), sharers))
	}
	return blameCrash
}

// takeOver answers what the last server has left, which ended by a signal as
// [Prepared.Start] has it. It returns at once.
func (c *deviceConn) takeOver(died int) {
	pending := c.journal.Pending()
	begun := 0
	for _, p := range pending {
		if p.Begun() {
			begun++
		}
	}
	weight := blame(died, begun)
	type suspected struct {
		page  journal.Page
		tries uint32
	}
	var later []suspected
	for _, p := range pending {
		tries := p.Blame(weight)
		switch {
		case tries >= condemned:
			c.condemn(p)
		case tries >= suspect:
			c.again.add(p.Unique())
			later = append(later, suspected{p, tries})
			continue
		}
		c.again.add(p.Unique())
		c.loops.Go(func() { c.replay(p) })
	}
	if len(later) == 0 {
		return
	}
	slices.SortFunc(later, func(a, b suspected) int { return int(a.tries) - int(b.tries) })
	c.loops.Go(func() {
		for i, s := range later {
			if i > 0 {
				select {
				case <-c.done:
				case <-time.After(apart):
				}
			}
			c.loops.Go(func() { c.replay(s.page) })
		}
	})
}

// replay answers a request that another server has read.
func (c *deviceConn) replay(p journal.Page) {
	request := p.Request()[:p.Length():p.Length()]
	id := unique(request)
	switch opcode(request) {
	case opInit, opInterrupt: // those of which it is said that they are interrupted are
		c.again.begin(id)
	default:
		c.raw.replayed.Store(id, nil)
		over := make(chan struct{})
		if c.again.begin(id) || c.seen(request) {
			c.loops.Go(func() { c.interruptUntil(id, over) })
		}
		c.answer(p, request)
		close(over)
		c.raw.replayed.Delete(id)
	}
	p.Done()
	c.journal.Give(p)
}

// seen reports whether the caller of a request can be looked at, or is known to be no more:
// an interrupt of one who cannot ends the request.
func (c *deviceConn) seen(request []byte) bool {
	thread := binary.NativeEndian.Uint32(request[pidOffset:])
	t := c.raw.threads
	return t.see(thread) && (t.signalsOf(thread).seen || t.gone(int(thread)))
}

// interruptUntil interrupts a request as soon as it has come as far.
func (c *deviceConn) interruptUntil(id uint64, over <-chan struct{}) {
	for pause := 100 * time.Microsecond; !c.interrupt(id); pause = min(2*pause, 100*time.Millisecond) {
		select {
		case <-over:
			return
		case <-time.After(pause):
		}
	}
}

// condemn has a request, and all of its kind, fail.
func (c *deviceConn) condemn(p journal.Page) {
	r := refusedOf(p.Request())
	err := c.opts.Kept.update(func(s *keptState) {
		if !slices.Contains(s.Refused, r) {
			s.Refused = append(slices.Clone(s.Refused), r)
		}
		s.Refused = s.Refused[max(0, len(s.Refused)-maxRefused):]
	})
	if err != nil {
		c.opts.logf("%v", err)
	}
	c.refuse(append(c.opts.Kept.now().Refused, r))
	path := ""
	if c.raw.tree != nil {
		path = pathOf(c.raw.tree, r.Node)
	}
	c.opts.logf("%q: servers have died of a request for it (opcode %d): it fails from now on", path, r.Op)
}

// refuse has requests fail.
func (c *deviceConn) refuse(all []refusedRequest) {
	if len(all) == 0 {
		return
	}
	set := map[refusedRequest]bool{}
	if old := c.refused.Load(); old != nil {
		maps.Copy(set, *old)
	}
	for _, r := range all {
		set[r] = true
	}
	c.refused.Store(&set)
}

func (c *deviceConn) isRefused(request []byte) bool {
	set := c.refused.Load()
	return set != nil && (*set)[refusedOf(request)]
}

// A refusedRequest is one that servers died of: its opcode, and the inode that it is about.
type refusedRequest struct {
	Op   uint32 `json:"op"`
	Node uint64 `json:"node"`
}

func refusedOf(request []byte) refusedRequest {
	return refusedRequest{opcode(request), binary.NativeEndian.Uint64(request[nodeOffset:])}
}
