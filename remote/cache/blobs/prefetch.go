package blobs

import "context"

// Prefetch begins to bring what is missing of the chunks that n bytes from off
// lie in, for a reader that will come: it then waits for what is under way
// already. Prefetch returns at once. What does not fit into the memory that is
// set aside for this, 16 MiB for the whole Cache, is left out, and so is what
// the line would need more than a few seconds for; one chunk is always allowed. If it
// fails, nobody is told: the reader tries again.
//
// Where the disk takes nothing a little is kept in memory. Of a blob that is
// local nothing is brought.
func (b *Blob) Prefetch(off, n int64) {
	s := b.s
	if off < 0 || n <= 0 || off >= s.Size || s.local || s.refuted() != nil {
		return
	}
	first, end := s.Span(off, off+min(n, s.Size-off))
	line := s.c.sched.line.stats()
	most, perRequest := line.ahead(maxAhead), s.perRequest()
	if !s.c.takes() {
		most = min(most, maxAheadMemory)
	}
	words := s.words(first, end)
	s.mu.Lock()
	defer s.mu.Unlock()
	lacks := func(k int64) bool {
		return s.flights[k] == nil && words[k-first] == 0 && !s.c.sched.recent.has(s, k)
	}
	for k := first; k < end && !s.closed; {
		if !lacks(k) {
			k++
			continue
		}
		stop, bound := k+1, s.run(k, end, perRequest)
		for stop < bound && lacks(stop) {
			stop++
		}
		stop = s.c.sched.reserve(&s.cutting, k, stop, most, line.aheadRequests())
		if stop == k {
			return
		}
		// No reader has come yet: nobody's context decides how long this goes on.
		f := s.start(context.Background(), b, k, stop, forLater)
		f.waiters++ // so that it does not end with a reader that leaves
		k = stop
	}
}
