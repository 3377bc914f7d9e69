package reader

import (
	"context"
	"runtime"
)

const (
	// maxAhead is how many streams may have something decoded ahead of them,
	// over all readers that share a cache. Together they fill half of it.
	maxAhead = 4
	// aheadPatience is how many reads of other streams a stream keeps its
	// place for without a read of its own.
	aheadPatience = 64
	// aheadPart is the smallest part of a span that is worth a job, unless
	// no more is wanted.
	aheadPart = 512 << 10
)

// An aheadSlot is a stream that something may be decoded ahead of.
type aheadSlot struct {
	s      *stream
	used   int64 // when, in reads that wanted a slot
	ctx    context.Context
	cancel context.CancelFunc
}

// decodeAhead begins to decode the spans that the reader of s will come to. The caller
// holds r.ahead.mu.
func (r *Reader) decodeAhead(ctx func() context.Context, s *stream, m blobMap) {
	c := r.opts.Cache
	window := s.window()
	if m.l == nil || window == 0 {
		return
	}
	s.decoded = max(s.decoded, s.next)
	if s.decoded >= min(s.limit(r.Size()), s.next+c.limit/(2*maxAhead)) {
		return
	}
	slot := c.admit(s)
	if slot == nil {
		return
	}
	for c.beginJob() {
		left := s.end - s.decoded
		i, need, ok := r.nextAhead(s, m)
		if !ok {
			c.endJob()
			return
		}
		r.ahead.jobs.Add(1)
		go r.runAhead(meteredAhead(ctx(), left), slot, m, i, need)
	}
}

// nextAhead takes the next part to decode ahead of s: span i up to need bytes
// of it. The caller holds r.ahead.mu.
func (r *Reader) nextAhead(s *stream, m blobMap) (i int, need int64, ok bool) {
	limit := s.limit(r.Size())
	to := min(limit, s.next+r.opts.Cache.limit/(2*maxAhead), m.out(m.in(s.next)+s.window()))
	for s.decoded = max(s.decoded, s.next); s.decoded < to; {
		from := s.decoded
		i := m.l.Find(from)
		start, _ := m.l.Start(i)
		end, _ := m.l.End(i)
		stop := min(end, to)
		size := end - start
		switch {
		case size > maxSpanMemory: // decoded into a file, to its end
			s.decoded = end
			continue
		case size > r.opts.Cache.limit/maxAhead, stop < end && stop < limit && stop-from < aheadPart:
			return 0, 0, false
		}
		s.decoded = stop
		return i, stop - start, true
	}
	return 0, 0, false
}

// runAhead decodes a part of a span, and then the parts that follow, as long as there
// are idle processors.
func (r *Reader) runAhead(ctx context.Context, slot *aheadSlot, m blobMap, i int, need int64) {
	defer r.ahead.jobs.Done()
	c := r.opts.Cache
	// Reads of the blob have the values of the read that caused them, and end
	// with the stream.
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(slot.ctx, cancel)()
	for ok := true; ok; {
		s := c.get(spanKey{r, i}, func() *span { return r.newSpan(m.l, i) })
		if s.decodeAhead(ctx, need) != nil {
			break // a reader that comes here tries itself, and tells
		}
		r.ahead.mu.Lock()
		// The stream may be another one by now: then slot has ended.
		if ok = !r.ahead.closed && slot.ctx.Err() == nil && c.mayGoOn(); ok {
			i, need, ok = r.nextAhead(slot.s, m)
		}
		r.ahead.mu.Unlock()
	}
	c.endJob()
}

// stopAhead ends decoding ahead and waits for it.
func (r *Reader) stopAhead() {
	a := &r.ahead
	a.mu.Lock()
	a.closed = true
	for _, s := range a.streams {
		r.opts.Cache.forget(s)
	}
	a.streams = nil
	a.mu.Unlock()
	a.jobs.Wait()
}

// admit gives s a slot, or returns nil if other streams need theirs.
func (c *SpanCache) admit(s *stream) *aheadSlot {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reads++
	oldest := -1
	for i, slot := range c.ahead {
		if slot.s == s {
			slot.used = c.reads
			return slot
		}
		if oldest < 0 || slot.used < c.ahead[oldest].used {
			oldest = i
		}
	}
	if len(c.ahead) < maxAhead {
		c.ahead = append(c.ahead, nil)
		oldest = len(c.ahead) - 1
	} else if c.reads-c.ahead[oldest].used < aheadPatience {
		return nil
	} else {
		c.ahead[oldest].cancel()
	}
	slot := &aheadSlot{s: s, used: c.reads}
	slot.ctx, slot.cancel = context.WithCancel(context.Background())
	c.ahead[oldest] = slot
	return slot
}

// forget takes the slot of s away, if it has one, and stops decoding ahead of s.
func (c *SpanCache) forget(s *stream) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, slot := range c.ahead {
		if slot.s == s {
			slot.cancel()
			c.ahead[i] = c.ahead[len(c.ahead)-1]
			c.ahead = c.ahead[:len(c.ahead)-1]
			return
		}
	}
}

// beginJob reports whether there are fewer decoding goroutines than processors, and if
// so reserves a processor until endJob.
func (c *SpanCache) beginJob() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.reserve()
}

// reserve is beginJob for a caller that holds mu.
func (c *SpanCache) reserve() bool {
	procs := runtime.GOMAXPROCS(0)
	if procs < 2 || c.jobs >= procs || c.decoding >= procs {
		return false
	}
	c.jobs++
	return true
}

// mayGoOn reports whether a job that has done its part may do another.
func (c *SpanCache) mayGoOn() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.decoding < runtime.GOMAXPROCS(0)
}

func (c *SpanCache) endJob() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.jobs--
	c.tell()
}

// countDecoding counts the goroutines that decode spans.
func (c *SpanCache) countDecoding(by int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.decoding += by
	if by < 0 {
		c.tell()
	}
}
