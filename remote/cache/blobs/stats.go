package blobs

import (
	"context"
	"sync/atomic"

	"github.com/imgfs/imgfs/remote/cache/internal/blobfile"
)

// Stats are the counters of one Blob's content since the Cache was opened.
type Stats struct {
	Requests int64 // at the source
	Fetched  int64 // bytes that came from it: see remote.Counted
	// Wasted is the bytes of chunks that were fetched and of which nobody has
	// read anything since, and those that were thrown away.
	Wasted  int64
	Asked   int64 // bytes that ReadAt was asked for
	Hits    int64 // bytes of these that were on disk, or in memory
	Bad     int64 // chunks that were wrong, from wherever
	Errors  int64 // reads that failed, but for ended contexts
	Present int64 // bytes on disk, as far as this Cache knows
}

type blobCounters struct {
	requests, fetched, wasted, asked, hits, bad, errors atomic.Int64
	// unread has a bit for each chunk that was fetched and not read since, expected for
	// each that Expect has fetched.
	unread, expected []atomic.Uint32
}

// Stats returns the counters of the blob. Blobs that share what they fetch
// share them.
func (b *Blob) Stats() Stats {
	n := &b.s.count
	return Stats{
		Requests: n.requests.Load(),
		Fetched:  n.fetched.Load(),
		Wasted:   max(0, n.wasted.Load()), // requests under way can make it less
		Asked:    n.asked.Load(),
		Hits:     n.hits.Load(),
		Bad:      n.bad.Load(),
		Errors:   n.errors.Load(),
		Present:  b.s.presentBytes(),
	}
}

// hit counts bytes that a reader got without the source.
func (s *blobState) hit(n int64) {
	s.count.hits.Add(n)
	s.c.count.hitBytes.Add(n)
}

// fetchedUnread notes that the chunks from first to end came from the source.
func (s *blobState) fetchedUnread(first, end int64) {
	for k := first; k < end; k++ {
		if bit := uint32(1) << (k % 32); s.count.unread[k/32].Or(bit)&bit == 0 {
			at, stop := s.Bounds(k)
			s.count.wasted.Add(stop - at)
		}
	}
}

// used notes that a reader got something of each chunk from first to end, and
// charges it for those that nobody else has had since they were fetched.
func (s *blobState) used(ctx context.Context, first, end int64) {
	for k := first; k < end; k++ {
		word, bit := &s.count.unread[k/32], uint32(1)<<(k%32)
		if word.Load()&bit != 0 && word.And(^bit)&bit != 0 {
			at, stop := s.Bounds(k)
			s.count.wasted.Add(at - stop)
			s.metExpectation(k)
			meter(ctx, stop-at)
		}
	}
}

// presentBytes returns how much of the blob is on disk.
func (s *blobState) presentBytes() int64 {
	f := s.openFileTo(false)
	if f == nil {
		return 0
	}
	var n blobfile.Count
	for k := range s.absent(f, 0, false) {
		n.Add(s.Layout, k)
	}
	return n.Bytes
}

// absent returns a sequence of the chunks from first on that are not in the
// file; of those that are if absent is false.
func (s *blobState) absent(f *blobFile, first int64, absent bool) func(yield func(k int64) bool) {
	const batch = 4096
	return func(yield func(k int64) bool) {
		for ; first < s.Layout.Chunks(); first += batch {
			for i, w := range f.present(first, min(first+batch, s.Layout.Chunks())) {
				if (w == 0) == absent && !yield(first+int64(i)) {
					return
				}
			}
		}
	}
}

// A Meter is told what reads take. It is called by any goroutine.
type Meter interface {
	// Fetched is told of the n bytes of chunks that were fetched for a read,
	// or ahead of it, and that it is the first to have something of.
	Fetched(n int64)
}

// MeterKey is the key of the Meter in the context of a read.
type MeterKey struct{}

// meter tells the meter of ctx of n bytes.
func meter(ctx context.Context, n int64) {
	if m, ok := ctx.Value(MeterKey{}).(Meter); ok {
		m.Fetched(n)
	}
}
