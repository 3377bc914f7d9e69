package cache

import (
	"sync"
	"time"
)

const (
	// contentCount is how long the sum of what contents take is believed,
	// which others change too.
	contentCount = 10 * time.Second
)

// A contentUse is how much contents take on disk.
type contentUse struct {
	mu      sync.Mutex // held while the disk is looked at, which others wait for
	stored  int64      // bytes on disk, as far as it is known
	coming  int64      // of contents that are being stored
	counted time.Time  // when stored was found out

	fullMu sync.Mutex
	full   time.Time // until then there is no use in trying
}

// reserveContent reports whether a content of size bytes may be stored, as far
// as the share of contents in the budget goes; contents that were not used for
// long make room for it. settleContent must be called for it.
func (c *fileCache) reserveContent(size int64) bool {
	limit, u, now := c.dir.Budget(), &c.contents.use, time.Now()
	if limit == 0 {
		return true
	}
	if size > limit/4 || u.isFull(now) {
		return false
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	need := func() int64 { return u.stored + u.coming + blocks(size) - limit/2 }
	if age := now.Sub(u.counted); age > contentCount || need() > 0 && age > fullTime {
		inv, _ := c.dir.below(keptDir) // what cannot be read takes nothing
		u.stored, u.counted = inv.total, now
		if over := need(); over > 0 {
			u.stored -= c.dir.evictCopies(inv, over+limit/40)
		}
	}
	if need() > 0 {
		return false
	}
	u.coming += blocks(size)
	return true
}

// settleContent says that a content that was reserved has been stored, or never
// will be.
func (c *fileCache) settleContent(size int64, stored bool) {
	if c.dir.Budget() == 0 {
		return
	}
	u := &c.contents.use
	u.mu.Lock()
	defer u.mu.Unlock()
	u.coming -= blocks(size)
	if stored {
		u.stored += blocks(size)
	}
}

// refuse notes that the budget had no room.
func (u *contentUse) refuse() {
	u.fullMu.Lock()
	defer u.fullMu.Unlock()
	u.full = time.Now().Add(fullTime)
}

func (u *contentUse) isFull(now time.Time) bool {
	u.fullMu.Lock()
	defer u.fullMu.Unlock()
	return now.Before(u.full)
}
