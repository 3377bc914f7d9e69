package reader

import (
	"context"
	"math"
	"sort"
	"sync"

	"github.com/imgfs/imgfs/layerindex"
)

// A Prefetcher is a Blob that can bring bytes before they are read. A Reader
// calls it ahead of sequential readers.
type Prefetcher interface {
	// Prefetch begins to fetch n bytes of the blob from off, which will be
	// read soon. It returns at once, and may do less than it was asked for.
	Prefetch(off, n int64)
}

const (
	// maxStreams is how many sequential readers of a layer are told apart.
	maxStreams = 16
	// streamGap is how much of the tar a sequential reader may leave out at
	// a time: headers, and files that are not wanted.
	streamGap = 64 << 10
	// The kernel cuts what it reads ahead into requests that come in any
	// order: those of at least reorderSize may be off by reorderReach.
	reorderSize  = 32 << 10
	reorderReach = 1 << 20

	// A stream is worth reading ahead for once streamStart bytes of the blob
	// were read in order.
	streamStart = 64 << 10
	minWindow   = 256 << 10 // in bytes of the blob
	maxWindow   = 8 << 20
	// maxAsk bounds one call of Prefetch.
	maxAsk = 1 << 20
	// scanFiles is how many files have to be read one behind the other before
	// the next ones are expected to be read too.
	scanFiles = 4
	// fileHeader is about what stands between two files that follow each
	// other in a tar: padding, and a header with its extension.
	fileHeader = 4 << 10
)

// A stream is one sequential reader of a layer, recognized by the places that it
// reads. Its fields are guarded by readahead.mu.
type stream struct {
	next  int64 // in the tar: the end of what was read
	end   int64 // in the tar: the end of the file that is being read
	hits  int   // reads that went on just where one before had ended
	files int   // files that were begun behind another
	// run is how many bytes of the blob were read in order, less the skipped
	// ones. The window is at most twice that: if the reader stops, the bytes
	// fetched in vain are in proportion to those that it has read.
	run, skipped int64
	ahead        int64 // in the blob: asked for up to here
	decoded      int64 // in the tar: decoded ahead, or begun to be, up to here
}

// window returns how many bytes of the blob are brought ahead of the reader,
// 0 while it reads in no order or has hardly begun.
func (s *stream) window() int64 {
	if s.hits == 0 || s.run < streamStart {
		return 0
	}
	return min(max(2*s.run, minWindow), maxWindow)
}

// A readahead knows the sequential readers of one layer.
type readahead struct {
	mu      sync.Mutex
	streams []*stream // the one that was used last is at the end
	closed  bool
	jobs    sync.WaitGroup // that decode ahead
}

// A fileRead is a read of the tar from off to end, in a file that ends at
// fileEnd.
type fileRead struct{ off, end, fileEnd int64 }

// advance finds the stream that a read goes on with, or begins one, and takes
// the read down. dropped says that s had been another stream, which had to make
// room. The caller holds mu.
func (a *readahead) advance(m blobMap, read fileRead) (s *stream, dropped bool) {
	best, far := -1, int64(math.MaxInt64)
	for i, s := range a.streams {
		if d, ok := s.distance(m, read); ok && d <= far {
			best, far = i, d
		}
	}
	if best < 0 {
		if len(a.streams) == maxStreams {
			dropped = true
			best = 0
		} else {
			best = len(a.streams)
			a.streams = append(a.streams, &stream{})
		}
		*a.streams[best] = stream{next: read.end, end: read.fileEnd, run: m.in(read.end) - m.in(read.off)}
	} else {
		a.streams[best].take(m, read)
	}
	s = a.streams[best]
	copy(a.streams[best:], a.streams[best+1:])
	a.streams[len(a.streams)-1] = s
	return s, dropped
}

// distance tells whether a read goes on with s, and how far from the place it
// is where that is expected.
func (s *stream) distance(m blobMap, read fileRead) (int64, bool) {
	d := read.off - s.next
	reorder := read.end-read.off >= reorderSize && read.fileEnd == s.end
	switch {
	case d < 0:
		// It was overtaken; or the reader goes back, a little.
		return -d, reorder && -d <= reorderReach && (s.hits > 0 || s.skipped > 0)
	case d <= streamGap || reorder && d <= reorderReach:
		return d, true
	}
	return d, s.window() > 0 && m.in(read.off) < s.ahead
}

// take records a read that goes on with s.
func (s *stream) take(m blobMap, read fileRead) {
	if read.off < s.next {
		late := min(m.in(min(read.end, s.next))-m.in(read.off), s.skipped)
		s.run += late
		if s.skipped -= late; late > 0 {
			s.hits++
		}
		if read.end <= s.next {
			return
		}
		read.off = s.next
	}
	s.run += m.in(read.end) - m.in(read.off)
	from, left := s.next, int64(0)
	begins := read.fileEnd != s.end
	if begins {
		// The rest of the file before was skipped. Nobody reads the headers
		// between the two.
		left = m.in(max(s.next, min(s.end, read.off))) - m.in(s.next)
		from = min(max(s.next, s.end)+fileHeader, read.off)
		s.files++
		s.end = read.fileEnd
		s.skipped = 0
	}
	left += m.in(read.off) - m.in(from)
	if s.skipped += left; left == 0 || begins {
		s.hits++
	}
	if s.run -= left; s.run <= 0 {
		s.run, s.skipped, s.hits, s.files = m.in(read.end)-m.in(read.off), 0, 0, 0
	}
	s.next = read.end
}

// limit returns how far in the tar anything may be done ahead of s: to the
// end of its file, or to size, that of the tar, if it goes from file to file.
func (s *stream) limit(size int64) int64 {
	if s.files >= scanFiles {
		return size
	}
	return min(max(s.end, s.next), size)
}

// ask returns the range of the blob that should be brought now, if there is
// one that is worth asking for, and counts it as asked for. It has at most room bytes
// of output.
func (s *stream) ask(m blobMap, size, room int64) (from, to int64) {
	window := s.window()
	if window == 0 {
		return 0, 0
	}
	if s.next+room < size {
		window = min(window, m.in(s.next+room)-m.in(s.next))
	}
	at, last := m.in(s.next), m.in(s.limit(size))
	from, to = max(s.ahead, at), min(at+window, last)
	if to <= from || to < last && to-from < min(window/4, maxAsk) {
		return 0, 0
	}
	s.ahead = to
	return from, to
}

// A blobMap tells where in the blob the bytes of the tar are.
type blobMap struct {
	l *layout // nil of a plain tar
}

// in returns about how much of the blob a decoder has read when it has decoded the
// tar up to out. A larger out never gives a smaller result.
func (m blobMap) in(out int64) int64 {
	if m.l == nil {
		return out
	}
	b := m.span(m.l.Find(out))
	share := float64(out-b.out) / float64(max(1, b.outEnd-b.out))
	return b.in + int64(math.Ceil(share*float64(b.inEnd-b.in)))
}

// out returns about how much of the tar a decoder has decoded when it has read the
// blob up to in.
func (m blobMap) out(in int64) int64 {
	if m.l == nil {
		return in
	}
	i := sort.Search(m.l.Len(), func(i int) bool { return m.span(i).in > in }) - 1
	if i < 0 {
		return 0
	}
	b := m.span(i)
	share := float64(min(in, b.inEnd)-b.in) / float64(max(1, b.inEnd-b.in))
	return b.out + int64(share*float64(b.outEnd-b.out))
}

type bounds struct{ in, inEnd, out, outEnd int64 }

// span returns where span i lies, as if it began where the one before ends: a
// checkpoint in the midst of a block needs the header of that block too.
func (m blobMap) span(i int) bounds {
	var b bounds
	b.out, b.in = m.l.Start(i)
	if i > 0 {
		_, b.in = m.l.End(i - 1)
	}
	b.outEnd, b.inEnd = m.l.End(i)
	b.inEnd = max(b.in, b.inEnd)
	return b
}

// readAhead records a read that is about to be done, and begins to fetch and decode
// ahead of the reads that will follow. It does not wait, and calls ctx only if it
// begins to decode.
func (r *Reader) readAhead(ctx func() context.Context, m blobMap, read fileRead) {
	a := &r.ahead
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return
	}
	s, dropped := a.advance(m, read)
	if dropped {
		r.opts.Cache.forget(s)
	}
	from, to := s.ask(m, r.Size(), r.offerRoom())
	r.prefetch(from, to)
	r.decodeAhead(ctx, s, m)
}

// offerRoom returns how many bytes of output may be fetched ahead of a stream: what is
// decoded to check the blob should stay in memory until it is read.
func (r *Reader) offerRoom() int64 {
	if r.opts.Prover == nil || r.x.Space() != layerindex.SpaceContents {
		return layerindex.MaxSize
	}
	return r.opts.Cache.limit / offerShare * 3 / 4
}

// prefetch has bytes of the blob fetched, if the blob can do that.
func (r *Reader) prefetch(from, to int64) {
	p, ok := r.blob.(Prefetcher)
	if !ok {
		return
	}
	for ; from < to; from += maxAsk {
		p.Prefetch(from, min(to-from, maxAsk))
	}
}
