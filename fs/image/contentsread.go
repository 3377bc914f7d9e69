package image

import (
	"context"
	"math"
)

// before is called before bytes of a candidate are read that are not in memory.
// If some of them would have to be fetched, the content is looked for first,
// and returned if it is there.
func (k *contents) before(ctx context.Context, c *candidate, off, n int64) *openContent {
	if c.sought.Load() {
		return c.open.Load() // which may have been opened just now
	}
	begin, _ := c.n.Extent()
	l := c.layer.state.Load()
	_, from, to, err := l.reader.Source(begin+off, begin+off+n)
	if err != nil || l.blob.Present(from, to-from) {
		return nil
	}
	k.mu.Lock()
	job := c.job
	mine := job == nil && !c.sought.Load()
	if mine {
		job = &contentJob{c: c, inRead: true, done: make(chan struct{})}
		c.job = job
	}
	k.mu.Unlock()
	switch {
	case mine:
		k.seek(c)
		c.sought.Store(true) // before those that come see no job
		k.finish(job)
	case job != nil && job.inRead:
		select {
		case <-job.done:
		case <-ctx.Done():
		}
	}
	return c.open.Load()
}

// seek looks for the content of a candidate, which is checked now if that does
// not take long.
func (k *contents) seek(c *candidate) {
	if !k.dir.HasContents() {
		return // and the digests are not needed
	}
	if c.size() > checkInRead {
		c.due.Store(0) // after this read
		return
	}
	// Not with the reader's context: others wait too, and it is not long.
	if file, err := k.find(k.ctx, c); err == nil && file != nil {
		k.add(c, file, false)
	}
}

// reopen opens a content that was closed to have fewer open.
func (k *contents) reopen(c *candidate) *openContent {
	if !c.shelved.CompareAndSwap(true, false) {
		return c.open.Load()
	}
	d, err := k.digest(c)
	if err != nil {
		return nil
	}
	file, err := k.dir.OpenCheckedContent(d, c.size())
	if err != nil {
		return nil
	}
	return k.add(c, file, false)
}

// after is called after a read of a candidate that decoded something.
func (k *contents) after(c *candidate) {
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

// rescue looks for the content of a candidate that could not be read in another
// way, and waits for it to be checked.
func (k *contents) rescue(ctx context.Context, c *candidate) *openContent {
	d, err := k.digest(c)
	if err != nil || !k.dir.HasContent(d, c.size()) {
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

// openNow opens the content of a candidate for a holder, if that does not take
// long. If not it is checked, or made if this is the time for it, for later.
func (k *contents) openNow(c *candidate, exec bool) *openContent {
	d, err := k.digest(c)
	if err != nil {
		return nil
	}
	size := c.size()
	if !k.dir.HasContent(d, size) {
		if k.wished(c, exec) {
			k.enqueue(c, true)
		}
		return nil
	}
	file, err := k.dir.OpenCheckedContent(d, size)
	if err != nil && size <= checkAtOpen {
		file, err = k.dir.OpenContent(k.ctx, d, size)
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

// wished counts an open of a candidate whose content is not there, and reports
// whether it is to be made: a program is when it is started for the second
// time, since its pages are mapped, and read in no order, when it starts.
func (k *contents) wished(c *candidate, exec bool) bool {
	if !exec {
		return false
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	c.execs++
	f := k.img.counts.files.get(fileID(c.n))
	return c.execs >= 2 && f.asked.Load() > 0
}
