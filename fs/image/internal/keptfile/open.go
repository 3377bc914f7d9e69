package keptfile

import (
	"sync/atomic"
	"time"
)

// An openFile is a kept file that is open. It is read without a lock: a reader
// that reads it while it is closed gets an error, and decodes.
type openFile struct {
	file  File
	owner *candidate
	used  atomic.Int64 // Files.clock when it was read last

	// Guarded by Files.mu:
	holders int
	seen    int64 // used, at the last tick
	idle    int   // ticks without a read
	gone    bool  // it is not among Files.open any more
}

// readOpen fills p from the kept file of a candidate, if that is open.
func (k *Files) readOpen(c *candidate, p []byte, off int64) bool {
	x := c.open.Load()
	if x == nil && c.shelved.Load() {
		x = k.reopen(c)
	}
	return x != nil && k.readFrom(x, p, off)
}

// readFrom fills p from a kept file. One that cannot be read is given up.
func (k *Files) readFrom(x *openFile, p []byte, off int64) bool {
	if now := k.clock.Load(); x.used.Load() != now {
		x.used.Store(now)
	}
	// Whatever the error is, the bytes have to be decoded then.
	if n, _ := x.file.ReadAt(p, off); n == len(p) {
		return true
	}
	k.drop(x)
	return false
}

// add takes over the open file of a candidate, with a holder if hold is true. It
// returns nil if the image is closed.
func (k *Files) add(c *candidate, file File, hold bool) *openFile {
	k.mu.Lock()
	x := c.open.Load()
	var unused []File
	if x != nil || k.closed {
		unused = append(unused, file)
	} else {
		x = &openFile{file: file, owner: c}
		k.open = append(k.open, x)
		c.open.Store(x)
		if k.ticks == nil {
			k.ticks = time.AfterFunc(tickTime, k.Tick)
		} else if len(k.open) == 1 {
			k.ticks.Reset(tickTime)
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
	closeFiles(unused)
	return x
}

// closeFiles closes files that were only read.
func closeFiles(files []File) {
	for _, f := range files {
		f.Close()
	}
}

// hold returns the open file of a candidate, if there is one, with one more
// holder, which must release it. A file that has been written to is given up.
func (k *Files) hold(c *candidate) *openFile {
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
func (k *Files) release(x *openFile) {
	k.mu.Lock()
	var unused []File
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
	closeFiles(unused)
}

// drop gives up a file that cannot be read. It may be looked for again.
func (k *Files) drop(x *openFile) {
	k.mu.Lock()
	unused := k.remove(x)
	k.mu.Unlock()
	closeFiles(unused)
}

// remove takes x from the open files, and returns its file if that is to be
// closed. The caller holds mu.
func (k *Files) remove(x *openFile) []File {
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
	return []File{x.file}
}

// shrink removes the files that were read longest ago, but not keep, until no more
// than MaxOpen are open. It returns the files to be closed. The caller holds mu.
func (k *Files) shrink(keep *openFile) (unused []File) {
	for len(k.open) > MaxOpen {
		var oldest *openFile
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

// Tick closes the files that were not read for a while. It is called each tickTime
// while a file is open.
func (k *Files) Tick() {
	k.mu.Lock()
	var unused []File
	for i := len(k.open) - 1; i >= 0 && !k.closed; i-- {
		x := k.open[i]
		if used := x.used.Load(); used != x.seen || x.holders > 0 {
			x.seen, x.idle = used, 0
		} else if x.idle++; x.idle >= IdleTicks {
			unused = append(unused, k.remove(x)...)
			x.owner.shelved.Store(true)
		}
	}
	k.clock.Add(1)
	if len(k.open) > 0 && !k.closed {
		k.ticks.Reset(tickTime)
	}
	k.mu.Unlock()
	closeFiles(unused)
}

// closeAll closes the files that are not held.
func (k *Files) closeAll() {
	k.mu.Lock()
	var unused []File
	for i := len(k.open) - 1; i >= 0; i-- {
		if k.open[i].holders == 0 {
			unused = append(unused, k.remove(k.open[i])...)
		}
	}
	k.mu.Unlock()
	closeFiles(unused)
}
