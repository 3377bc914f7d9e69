package files

import (
	"sync"
	"time"

	"github.com/imgfs/imgfs/remote/cache/internal/directory"
)

const (
	// believeFor is how long the sum of what kept files take is believed,
	// which others change too.
	believeFor = 10 * time.Second
)

// A share is how much kept files take on disk.
type share struct {
	mu      sync.Mutex // held while the disk is looked at, which others wait for
	stored  int64      // bytes on disk, as far as it is known
	coming  int64      // of kept files that are being stored
	counted time.Time  // when stored was found out

	full directory.Clock // there is no room for a kept file
}

// reserve reports whether a kept file of size bytes may be stored, as far
// as the share of kept files in the budget goes; kept files that were not used for
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

// settle says that a kept file that was reserved has been stored, or never
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
