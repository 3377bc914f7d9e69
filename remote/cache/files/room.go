package files

import (
	"sync"
	"time"

	"github.com/imgfs/imgfs/remote/cache/internal/directory"
)

const (
	// contentCount is how long the sum of what contents take is believed,
	// which others change too.
	believeFor = 10 * time.Second
)

// A contentUse is how much contents take on disk.
type share struct {
	mu      sync.Mutex // held while the disk is looked at, which others wait for
	stored  int64      // bytes on disk, as far as it is known
	coming  int64      // of contents that are being stored
	counted time.Time  // when stored was found out

	full directory.Clock // there is no room for a kept file
}

// reserveContent reports whether a content of size bytes may be stored, as far
// as the share of contents in the budget goes; contents that were not used for
// long make room for it. settleContent must be called for it.
func (c *Cache) reserve(size int64) bool {
	limit, u, now := c.dir.Budget(), &c.known.share, time.Now()
	if limit == 0 {
		return true
	}
	if size > limit/4 || u.full.Within(directory.FullTime) {
		return false
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	need := func() int64 { return u.stored + u.coming + directory.Blocks(size) - limit/2 }
	if age := now.Sub(u.counted); age > believeFor || need() > 0 && age > directory.FullTime {
		inv, _ := c.dir.Below(directory.Kept) // what cannot be read takes nothing
		u.stored, u.counted = inv.Total, now
		if over := need(); over > 0 {
			u.stored -= c.dir.EvictCopies(inv, over+limit/40)
		}
	}
	if need() > 0 {
		return false
	}
	u.coming += directory.Blocks(size)
	return true
}

// settleContent says that a content that was reserved has been stored, or never
// will be.
func (c *Cache) settle(size int64, stored bool) {
	if c.dir.Budget() == 0 {
		return
	}
	u := &c.known.share
	u.mu.Lock()
	defer u.mu.Unlock()
	u.coming -= directory.Blocks(size)
	if stored {
		u.stored += directory.Blocks(size)
	}
}
