package fs

import (
	"context"
	"io"
	"iter"
	"math/bits"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/remote/cache"
)

// ReadAt reads from a regular file, like io.ReaderAt: it returns fewer than
// len(p) bytes only with an error, which is io.EOF at the end of the file.
// Reading a directory is EISDIR, anything else that is no regular file EINVAL.
// If ctx ends first the error wraps ctx.Err().
func (n Node) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	in := n.inode()
	if n.t.counts == nil || in.format() != syscall.S_IFREG || len(p) == 0 || off < 0 || off >= in.size {
		return n.readAt(ctx, p, off)
	}
	var eof error
	if int64(len(p)) > in.size-off {
		p, eof = p[:in.size-off], io.EOF
	}
	got, err := n.t.counts.read(ctx, n, p, off)
	if err == nil {
		return got, eof
	}
	if ctx.Err() == nil {
		n.t.counts.errors.Add(1)
	}
	return got, err
}

// The counters of a tree. Those that every read changes are kept by layer, so
// that readers of several layers do not wait for one another.
type counters struct {
	layers []layerCounter // as Tree.sources
	errors atomic.Int64
	files  fileTable
}

type layerCounter struct {
	reads, asked, kept atomic.Int64
	waits              histogram
}

// reads returns how many reads there were.
func (c *counters) reads() (n int64) {
	for i := range c.layers {
		n += c.layers[i].reads.Load()
	}
	return n
}

// read is ReadAt of bytes that are in the file. It allocates nothing, and does
// not look at the clock, if they are in memory or in an open content.
func (c *counters) read(ctx context.Context, n Node, p []byte, off int64) (int, error) {
	in, k := n.inode(), n.t.contents
	l := &c.layers[in.layer]
	l.reads.Add(1)
	l.asked.Add(int64(len(p)))
	f := c.files.get(n.id)
	if f == nil && k != nil && n.mayKeep() {
		f = c.files.of(n)
	}
	if f != nil {
		f.asked.Add(int64(len(p)))
	}
	if c.readQuickly(n, f, p, off) {
		return len(p), nil
	}
	got, err := c.readSlowly(ctx, n, f, p, off)
	if f == nil {
		// Something may have been fetched.
		if f = c.files.get(n.id); f != nil {
			f.asked.Add(int64(len(p)))
		}
	}
	return got, err
}

// readQuickly is read of what is in an open content, or decoded and in memory. f
// are the file's counters, nil if it has none.
func (c *counters) readQuickly(n Node, f *fileCounts, p []byte, off int64) bool {
	k, s := n.t.contents, n.t.layers[n.inode().layer].state.Load()
	if s.refuted() != nil {
		return false
	}
	if f != nil && k != nil && f.candidate != nil && k.readOpen(f.candidate, p, off) {
		c.layers[n.inode().layer].kept.Add(int64(len(p)))
		return true
	}
	return c.readHeld(s, n, p, off)
}

// readHeld is read of what is decoded and in memory.
func (c *counters) readHeld(s *layerState, n Node, p []byte, off int64) bool {
	in := n.inode()
	if n.isSparse() {
		return false
	}
	return s.reader.ReadHeld(p, in.off+off, in.off+in.size, func() context.Context {
		// Nobody waits for what is done ahead.
		return &meteredContext{context.Background(), c, n.id}
	})
}

// readSlowly is read of what has to be decoded.
func (c *counters) readSlowly(ctx context.Context, n Node, f *fileCounts, p []byte, off int64) (int, error) {
	begun := time.Now()
	defer func() { c.layers[n.inode().layer].waits.add(time.Since(begun)) }()
	metered := &meteredContext{ctx, c, n.id}
	k := n.t.contents
	if n.t.layers[n.inode().layer].state.Load().refuted() != nil {
		k = nil // contents are told apart by what the index says of them
	}
	if k == nil || f == nil || f.candidate == nil {
		return n.readAt(metered, p, off)
	}
	kept := &c.layers[n.inode().layer].kept
	if x := k.before(ctx, f.candidate, off, int64(len(p))); x != nil && k.read(x, p, off) {
		kept.Add(int64(len(p)))
		return len(p), nil
	}
	got, err := n.readAt(metered, p, off)
	if err != nil && ctx.Err() == nil {
		if x := k.rescue(ctx, f.candidate); x != nil && k.read(x, p, off) {
			kept.Add(int64(len(p)))
			return len(p), nil
		}
	}
	k.after(f.candidate)
	return got, err
}

// A meteredContext has what is fetched and decoded counted for a file. A read
// that finds all it wants in memory has it too: what is fetched ahead of the
// next one is fetched for the same file.
type meteredContext struct {
	context.Context
	c  *counters
	id uint32 // Node.id
}

var (
	_ cache.Meter      = (*meteredContext)(nil)
	_ layerindex.Meter = (*meteredContext)(nil)
)

func (m *meteredContext) Value(key any) any {
	switch key.(type) {
	case cache.MeterKey, layerindex.MeterKey:
		return m
	}
	return m.Context.Value(key)
}

// Fetched is the cache.Meter.
func (m *meteredContext) Fetched(n int64) {
	if f := m.c.files.make(m.id, nil); f != nil {
		f.fetched.Add(n)
	}
}

// Decoded is the layerindex.Meter.
func (m *meteredContext) Decoded(n int64) {
	if f := m.c.files.get(m.id); f != nil && f.candidate != nil {
		f.candidate.decoded.Add(n)
	}
}

const (
	// maxCountedFiles is how many files have counters of their own, some 100
	// bytes each. Only those get them that are large, or for which something
	// was fetched.
	maxCountedFiles = 1 << 16
	filePageSize    = 512
)

// A fileTable has the counters of files. Looking there takes no lock.
type fileTable struct {
	pages []atomic.Pointer[filePage] // of files by Node.id

	mu sync.Mutex
	n  int // files that have counters
}

type filePage [filePageSize]atomic.Pointer[fileCounts]

// fileCounts are the counters of one file.
type fileCounts struct {
	asked, fetched atomic.Int64
	candidate      *candidate // nil if its content is not kept
}

// init makes a table for so many files.
func (t *fileTable) init(files int) {
	t.pages = make([]atomic.Pointer[filePage], (files+filePageSize-1)/filePageSize)
}

// get returns the counters of a file, nil if it has none.
func (t *fileTable) get(id uint32) *fileCounts {
	page := t.pages[id/filePageSize].Load()
	if page == nil {
		return nil
	}
	return page[id%filePageSize].Load()
}

// of returns the counters of a file whose content may be kept, nil if there
// are too many.
func (t *fileTable) of(n Node) *fileCounts {
	if f := t.get(n.id); f != nil {
		return f
	}
	return t.make(n.id, newCandidate(n))
}

// make returns the counters of a file, which are new if it has none, nil if
// there are too many.
func (t *fileTable) make(id uint32, c *candidate) *fileCounts {
	if f := t.get(id); f != nil {
		return f
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.get(id)
	if f != nil || t.n == maxCountedFiles {
		return f
	}
	at := &t.pages[id/filePageSize]
	if at.Load() == nil {
		at.Store(&filePage{})
	}
	f = &fileCounts{candidate: c}
	at.Load()[id%filePageSize].Store(f)
	t.n++
	return f
}

// all returns the counters of all files that have them.
func (t *fileTable) all() iter.Seq2[uint32, *fileCounts] {
	return func(yield func(uint32, *fileCounts) bool) {
		for i := range t.pages {
			page := t.pages[i].Load()
			if page == nil {
				continue
			}
			for j := range page {
				if f := page[j].Load(); f != nil && !yield(uint32(i*filePageSize+j), f) {
					return
				}
			}
		}
	}
}

// WaitFloor is how long a read takes at least that Stats counts as one that
// waited: one that finds its bytes on disk and has to check and decode them
// takes a few milliseconds at most, one that finds them in memory microseconds.
const WaitFloor = time.Millisecond

const (
	// stepsPerOctave is how many buckets there are from a duration to twice
	// as long: a quantile is at most an eighth too high.
	stepsPerOctave = 8
	octaves        = 20 // 1 ms to 17 minutes
)

// A histogram counts durations from WaitFloor on, without locks.
type histogram struct {
	buckets [stepsPerOctave * octaves]atomic.Int64
}

// waitCounts are how many durations there are in each bucket.
type waitCounts [stepsPerOctave * octaves]int64

// bucketOf returns the bucket of a duration that is not below WaitFloor.
func bucketOf(d time.Duration) int {
	v := uint64(d / (WaitFloor / stepsPerOctave)) // 8 and more
	octave := bits.Len64(v / (stepsPerOctave * 2))
	return min(octave*stepsPerOctave+int(v>>octave)-stepsPerOctave, stepsPerOctave*octaves-1)
}

// bucketEnd returns the duration at which a bucket ends.
func bucketEnd(i int) time.Duration {
	return WaitFloor / stepsPerOctave * time.Duration(i%stepsPerOctave+stepsPerOctave+1) << (i / stepsPerOctave)
}

// add counts a duration, if it is long enough.
func (h *histogram) add(d time.Duration) {
	if d >= WaitFloor {
		h.buckets[bucketOf(d)].Add(1)
	}
}

// addTo adds the histogram to counts.
func (h *histogram) addTo(counts *waitCounts) {
	for i := range h.buckets {
		counts[i] += h.buckets[i].Load()
	}
}

// summary returns how many durations there are, and what half and all but a
// hundredth of them are below.
func (w *waitCounts) summary() (n int64, p50, p99 time.Duration) {
	for _, c := range w {
		n += c
	}
	below := func(want int64) time.Duration {
		for i, c := range w {
			if want -= c; want <= 0 {
				return bucketEnd(i)
			}
		}
		return 0
	}
	if n == 0 {
		return 0, 0, 0
	}
	return n, below((n + 1) / 2), below(n - n/100)
}
