package directory

import (
	"sync/atomic"
	"time"
)

// A Clock tells how long ago the directory did not take something, so that nobody
// tries again too soon. The zero Clock is that of what was never refused. It is
// safe for concurrent use.
//
// There are three, as a refusal of one kind says nothing of the others: a disk
// that refuses a write (Dir.Disk) takes nothing; a budget without room for a chunk
// (Dir.NoRoom) may have some for a recording, which may remove more; and where there
// is no room for a kept file (package files) there may be some for a chunk, since
// a kept file is a copy and removes only what is idle.
type Clock struct {
	refused atomic.Int64 // Unix nanoseconds; 0: never
}

// Refuse notes a refusal now.
func (c *Clock) Refuse() { c.refused.Store(time.Now().UnixNano()) }

// Within reports whether there was a refusal within the last d.
func (c *Clock) Within(d time.Duration) bool {
	at := c.refused.Load()
	return at != 0 && time.Now().UnixNano()-at < int64(d)
}

// Forget makes the clock forget the last refusal.
func (c *Clock) Forget() { c.refused.Store(0) }
