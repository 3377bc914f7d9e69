package fs

import (
	"context"
	"io"
	"math/bits"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/imgfs/imgfs/remote/blobcache"
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
	got, err := n.t.counts.read(ctx, n, p, off)
	if err != nil && err != io.EOF && ctx.Err() == nil {
		n.t.counts.errors.Add(1)
	}
	return got, err
}

// The counters of a tree. Those that every read changes are kept by layer, so
// that readers of several layers do not wait for one another.
type counters struct {
	layers []layerCounter // as Tree.sources
	errors atomic.Int64
	waits  histogram
	files  fileCosts
}

type layerCounter struct{ reads, asked atomic.Int64 }

// read is ReadAt of bytes that are in the file.
func (c *counters) read(ctx context.Context, n Node, p []byte, off int64) (int, error) {
	in := n.inode()
	asked := min(int64(len(p)), in.size-off)
	l := &c.layers[in.layer]
	l.reads.Add(1)
	l.asked.Add(asked)
	// A read that finds all it wants in memory has the meter too: what is
	// fetched ahead of the next one is fetched for the same file.
	ctx = blobcache.WithMeter(ctx, func(fetched int64) { c.files.fetched(n.id, fetched) })
	begun := time.Now()
	got, err := n.readAt(ctx, p, off)
	c.waits.add(time.Since(begun))
	c.files.asked(n.id, asked)
	return got, err
}

// maxFileCosts is how many files have counters of their own, some 100 bytes
// each. Only those get them for which something was fetched.
const maxFileCosts = 1 << 16

// fileCosts are the counters of files.
type fileCosts struct {
	mu sync.RWMutex
	m  map[uint32]*fileCost // by Node.id
}

type fileCost struct{ asked, fetched atomic.Int64 }

func (f *fileCosts) get(id uint32) *fileCost {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.m[id]
}

// asked counts bytes that were asked of a file, if it has counters.
func (f *fileCosts) asked(id uint32, n int64) {
	if c := f.get(id); c != nil {
		c.asked.Add(n)
	}
}

// fetched counts bytes that were fetched for a file.
func (f *fileCosts) fetched(id uint32, n int64) {
	c := f.get(id)
	if c == nil {
		c = f.make(id)
	}
	if c != nil {
		c.fetched.Add(n)
	}
}

// make gives a file its counters, nil if there are too many.
func (f *fileCosts) make(id uint32) *fileCost {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.m[id]
	if c == nil && len(f.m) < maxFileCosts {
		if f.m == nil {
			f.m = map[uint32]*fileCost{}
		}
		c = &fileCost{}
		f.m[id] = c
	}
	return c
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

// summary returns how many durations there are, and what half and all but a
// hundredth of them are below.
func (h *histogram) summary() (n int64, p50, p99 time.Duration) {
	var counts [len(h.buckets)]int64
	for i := range h.buckets {
		counts[i] = h.buckets[i].Load()
		n += counts[i]
	}
	below := func(want int64) time.Duration {
		for i, c := range counts {
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
