package image

import (
	"context"
	"iter"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"

	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/layerindex/reader"
	"github.com/imgfs/imgfs/remote/cache"
)

// A layerContent is the fs.Content of a layer at a position of an image.
type layerContent struct {
	img   *Image
	layer *Layer
	at    int
}

var _ fs.Content = (*layerContent)(nil)

// ReadFileAt implements fs.Content. It allocates nothing, and does not look at
// the clock, if the bytes are in memory or in an open content.
func (c *layerContent) ReadFileAt(ctx context.Context, n fs.Node, p []byte, off int64) (int, error) {
	got, err := c.read(ctx, n, p, off)
	if err != nil && ctx.Err() == nil {
		c.img.counts.errors.Add(1)
	}
	return got, err
}

// fileID is the position of a file among those of its tree.
func fileID(n fs.Node) uint32 { return uint32(n.Ino() - 1) }

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

// read is ReadFileAt, but that it counts no errors.
func (c *layerContent) read(ctx context.Context, n fs.Node, p []byte, off int64) (int, error) {
	k, files := c.img.contents, &c.img.counts.files
	l := &c.img.counts.layers[c.at]
	l.reads.Add(1)
	l.asked.Add(int64(len(p)))
	f := files.get(fileID(n))
	if f == nil && k != nil && mayKeep(n) {
		f = k.countsOf(n)
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
		if f = files.get(fileID(n)); f != nil {
			f.asked.Add(int64(len(p)))
		}
	}
	return got, err
}

// readQuickly is read of what is in an open content, or decoded and in memory. f
// are the file's counters, nil if it has none.
func (c *layerContent) readQuickly(n fs.Node, f *fileCounts, p []byte, off int64) bool {
	k, s := c.img.contents, c.layer.state.Load()
	if s.refuted() != nil {
		return false
	}
	if f != nil && k != nil && f.candidate != nil && k.readOpen(f.candidate, p, off) {
		c.img.counts.layers[c.at].kept.Add(int64(len(p)))
		return true
	}
	return c.readHeld(s, n, p, off)
}

// readHeld is read of what is decoded and in memory.
func (c *layerContent) readHeld(s *layerState, n fs.Node, p []byte, off int64) bool {
	if n.IsSparse() {
		return false
	}
	begin, end := n.Extent()
	return s.reader.ReadHeld(p, begin+off, end, func() context.Context {
		// Nobody waits for what is done ahead.
		return &meteredContext{context.Background(), c.img.counts, fileID(n)}
	})
}

// readSlowly is read of what has to be decoded.
func (c *layerContent) readSlowly(ctx context.Context, n fs.Node, f *fileCounts, p []byte, off int64) (int, error) {
	begun := time.Now()
	counts := &c.img.counts.layers[c.at]
	defer func() { counts.waits.add(time.Since(begun)) }()
	metered := &meteredContext{ctx, c.img.counts, fileID(n)}
	k := c.img.contents
	if c.layer.state.Load().refuted() != nil {
		k = nil // contents are told apart by what the index says of them
	}
	if k == nil || f == nil || f.candidate == nil {
		return n.ReadStreamAt(metered, layerStream{c.layer}, p, off)
	}
	if x := k.before(ctx, f.candidate, off, int64(len(p))); x != nil && k.read(x, p, off) {
		counts.kept.Add(int64(len(p)))
		return len(p), nil
	}
	got, err := n.ReadStreamAt(metered, layerStream{c.layer}, p, off)
	if err != nil && ctx.Err() == nil {
		if x := k.rescue(ctx, f.candidate); x != nil && k.read(x, p, off) {
			counts.kept.Add(int64(len(p)))
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
	id uint32 // fileID
}

var (
	_ cache.Meter  = (*meteredContext)(nil)
	_ reader.Meter = (*meteredContext)(nil)
)

func (m *meteredContext) Value(key any) any {
	switch key.(type) {
	case cache.MeterKey, reader.MeterKey:
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

// Decoded is the reader.Meter.
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
	pages []atomic.Pointer[filePage] // of files by fileID

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
