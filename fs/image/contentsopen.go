package image

import (
	"sync/atomic"
	"time"
)

// An openContent is a content that is open. It is read without a lock: who
// reads it while it is closed gets an error, and decodes.
type openContent struct {
	file  contentFile
	owner *candidate
	used  atomic.Int64 // contents.clock when it was read last

	// Guarded by contents.mu:
	holders int
	seen    int64 // used, at the last tick
	idle    int   // ticks without a read
	gone    bool  // it is not among contents.open any more
}

// readOpen fills p from the content of a candidate, if that is open.
func (k *contents) readOpen(c *candidate, p []byte, off int64) bool {
	x := c.open.Load()
	if x == nil && c.shelved.Load() {
		x = k.reopen(c)
	}
	return x != nil && k.read(x, p, off)
}

// read fills p from a content. One that cannot be read is given up.
func (k *contents) read(x *openContent, p []byte, off int64) bool {
	if now := k.clock.Load(); x.used.Load() != now {
		x.used.Store(now)
	}
	// An error is the end of the file, or does not matter.
	if n, _ := x.file.ReadAt(p, off); n == len(p) {
		return true
	}
	k.drop(x)
	return false
}

// add takes over the open file with a candidate's content, with a holder if
// hold is true. It returns nil if the tree is closed.
func (k *contents) add(c *candidate, file contentFile, hold bool) *openContent {
	k.mu.Lock()
	x := c.open.Load()
	var unused []contentFile
	if x != nil || k.closed {
		unused = append(unused, file)
	} else {
		x = &openContent{file: file, owner: c}
		k.open = append(k.open, x)
		c.open.Store(x)
		if k.ticks == nil {
			k.ticks = time.AfterFunc(k.tick, k.onTick)
		} else if len(k.open) == 1 {
			k.ticks.Reset(k.tick)
		}
	}
	if x != nil {
		x.used.Store(k.clock.Add(1))
		if hold {
			x.holders++
		}
		unused = append(unused, k.shrink(x)...)
	}
	k.mu.Unlock()
	closeContents(unused)
	return x
}

// closeContents closes files that were only read.
func closeContents(files []contentFile) {
	for _, f := range files {
		f.Close()
	}
}

// hold returns the open content of a candidate, if there is one, with one more
// holder. Each must release it. One that somebody has written to is given up.
func (k *contents) hold(c *candidate) *openContent {
	if x := c.open.Load(); x != nil && !x.file.Unchanged() {
		k.drop(x)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	x := c.open.Load()
	if x == nil || k.closed {
		return nil
	}
	x.used.Store(k.clock.Load())
	x.holders++
	return x
}

// release counts a holder out.
func (k *contents) release(x *openContent) {
	k.mu.Lock()
	var unused []contentFile
	x.holders--
	switch {
	case x.holders > 0:
	case x.gone:
		unused = append(unused, x.file)
	case k.closed:
		unused = append(unused, k.remove(x)...)
	default:
		unused = k.shrink(nil)
	}
	k.mu.Unlock()
	closeContents(unused)
}

// drop gives up a content that cannot be read. It may be looked for again.
func (k *contents) drop(x *openContent) {
	k.mu.Lock()
	unused := k.remove(x)
	k.mu.Unlock()
	closeContents(unused)
}

// remove takes x from the open contents, and returns its file if it is to be
// closed. The caller holds mu.
func (k *contents) remove(x *openContent) []contentFile {
	if x.gone {
		return nil
	}
	x.gone = true
	for i := range k.open {
		if k.open[i] == x {
			last := len(k.open) - 1
			k.open[i], k.open[last] = k.open[last], nil
			k.open = k.open[:last]
			break
		}
	}
	c := x.owner
	c.open.Store(nil)
	c.due.Store(c.decoded.Load() + c.cost/lookShare)
	c.sought.Store(false)
	if x.holders > 0 {
		return nil
	}
	return []contentFile{x.file}
}

// shrink removes those that were read longest ago, but not keep, until there
// are no more open than may be. It returns what is to be closed. The caller
// holds mu.
func (k *contents) shrink(keep *openContent) (unused []contentFile) {
	for len(k.open) > maxOpenContents {
		var oldest *openContent
		for _, x := range k.open {
			if x.holders == 0 && x != keep && (oldest == nil || x.used.Load() < oldest.used.Load()) {
				oldest = x
			}
		}
		if oldest == nil {
			break
		}
		unused = append(unused, k.remove(oldest)...)
		oldest.owner.shelved.Store(true)
	}
	return unused
}

// onTick closes what was not read for a while.
func (k *contents) onTick() {
	k.mu.Lock()
	var unused []contentFile
	for i := len(k.open) - 1; i >= 0 && !k.closed; i-- {
		x := k.open[i]
		if used := x.used.Load(); used != x.seen || x.holders > 0 {
			x.seen, x.idle = used, 0
		} else if x.idle++; x.idle >= idleTicks {
			unused = append(unused, k.remove(x)...)
			x.owner.shelved.Store(true)
		}
	}
	k.clock.Add(1)
	if len(k.open) > 0 && !k.closed {
		k.ticks.Reset(k.tick)
	}
	k.mu.Unlock()
	closeContents(unused)
}

// closeAll closes what nobody holds.
func (k *contents) closeAll() {
	k.mu.Lock()
	var unused []contentFile
	for i := len(k.open) - 1; i >= 0; i-- {
		if k.open[i].holders == 0 {
			unused = append(unused, k.remove(k.open[i])...)
		}
	}
	k.mu.Unlock()
	closeContents(unused)
}
