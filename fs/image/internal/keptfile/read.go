package keptfile

import (
	"context"
	"math"
)

// before is called before a read of a candidate whose bytes are not in memory. If
// some of them would have to be fetched, it looks for the kept file first, and
// returns it if it is there.
func (k *Files) before(ctx context.Context, c *candidate, off, n int64) *openFile {
	if c.sought.Load() {
		return c.open.Load() // which may have been opened just now
	}
	begin, _ := c.n.Extent()
	if ok, err := c.layer.Present(begin+off, begin+off+n, 0); ok || err != nil {
		return nil
	}
	k.mu.Lock()
	todo := c.job
	mine := todo == nil && !c.sought.Load()
	if mine {
		todo = &job{c: c, inRead: true, done: make(chan struct{})}
		c.job = todo
	}
	k.mu.Unlock()
	switch {
	case mine:
		k.seek(c)
		c.sought.Store(true) // before those that come see no job
		k.finish(todo)
	case todo != nil && todo.inRead:
		select {
		case <-todo.done:
		case <-ctx.Done():
		}
	}
	return c.open.Load()
}

// seek looks for the kept file of a candidate, and checks it now if that does not
// take long.
func (k *Files) seek(c *candidate) {
	if !k.dir.Any() {
		return // and the digests are not needed
	}
	if c.size() > checkInRead {
		c.due.Store(0) // after this read
		return
	}
	// The reader's context does not end it: others wait too, and it is short.
	if file, err := k.find(k.ctx, c); err == nil && file != nil {
		k.add(c, file, false)
	}
}

// reopen opens a kept file that was closed to have fewer open.
func (k *Files) reopen(c *candidate) *openFile {
	if !c.shelved.CompareAndSwap(true, false) {
		return c.open.Load()
	}
	d, err := k.digest(c)
	if err != nil {
		return nil
	}
	file, err := k.dir.OpenChecked(d, c.size())
	if err != nil {
		return nil
	}
	return k.add(c, file, false)
}

// after is called after a read of a candidate that decoded something.
func (k *Files) after(c *candidate) {
	due, decoded := c.due.Load(), c.decoded.Load()
	if decoded < due || c.open.Load() != nil || !c.due.CompareAndSwap(due, math.MaxInt64) {
		return
	}
	switch job := k.enqueue(c, decoded >= c.makeAt()); {
	case job == nil:
		c.due.Store(decoded + c.cost)
	case job.inRead:
		c.due.Store(due)
	}
}

// rescue looks for the kept file of a candidate that could not be read in another
// way, and waits for it to be checked.
func (k *Files) rescue(ctx context.Context, c *candidate) *openFile {
	d, err := k.digest(c)
	if err != nil || !k.dir.Has(d, c.size()) {
		return nil
	}
	job := k.enqueue(c, false)
	if job == nil {
		return nil
	}
	select {
	case <-job.done:
	case <-ctx.Done():
	}
	return c.open.Load()
}

// openNow opens the kept file of a candidate for a holder, if that does not take
// long. If it does, the file is checked for later, or made if it is time for that.
func (k *Files) openNow(c *candidate, exec bool) *openFile {
	d, err := k.digest(c)
	if err != nil {
		return nil
	}
	size := c.size()
	if !k.dir.Has(d, size) {
		if k.wished(c, exec) {
			k.enqueue(c, true)
		}
		return nil
	}
	file, err := k.dir.OpenChecked(d, size)
	if err != nil && size <= CheckAtOpen {
		file, err = k.dir.Open(k.ctx, d, size)
	}
	if err == nil && file.Unchanged() {
		return k.add(c, file, true)
	}
	if err == nil {
		file.Close() // it is checked again
	}
	k.enqueue(c, false)
	return nil
}

// wished counts an open of a candidate that is not kept, and reports whether it is
// to be made: a program is, when it is started for the second time. Its pages are
// mapped when it starts, and read in no order.
func (k *Files) wished(c *candidate, exec bool) bool {
	if !exec {
		return false
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	c.execs++
	return c.execs >= 2 && c.read.Load()
}
