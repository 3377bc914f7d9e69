// Package counters counts what is read of an image: how many reads of each
// layer there are, of how many bytes, how long they took, and what was fetched
// for which file.
package counters

import (
	"cmp"
	"context"
	"slices"
	"sync/atomic"
	"time"

	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/fs/image/internal/filetable"
)

// Counters are those of one image. They are safe for concurrent use after Init.
type Counters struct {
	layers []layer // those that every read changes, so that readers of several layers do not wait for one another
	errors atomic.Int64
	files  filetable.Table[file]
	large  int64
	watch  atomic.Pointer[watching]
}

// A Watcher is told of reads. It must not hold them up.
type Watcher interface {
	// Note is told of a read of size bytes from byte off of a file.
	Note(n fs.Node, off, size int64)
}

type watching struct{ Watcher }

type layer struct {
	reads, asked atomic.Int64
	waits        histogram
}

// A file has counters of its own if it is large, or something was fetched for it.
type file struct{ asked, fetched atomic.Int64 }

// New returns the counters of an image with so many layers. Files of at least
// large bytes that are not sparse are counted each from their first read on.
func New(layers int, large int64) *Counters {
	return &Counters{layers: make([]layer, layers), large: large}
}

// Init makes room for the files of the image's tree, before anything is read.
func (c *Counters) Init(t *fs.Tree) { c.files.Init(t.Len()) }

// Watch has a Watcher be told of all reads from now on, in place of the one before; nil of
// none.
func (c *Counters) Watch(w Watcher) {
	if w == nil {
		c.watch.Store(nil)
		return
	}
	c.watch.Store(&watching{w})
}

// Content returns the content of the layer at a position, with its reads counted.
func (c *Counters) Content(at int, of fs.Content) fs.Content {
	return &content{Content: of, all: c, layer: &c.layers[at]}
}

// Fetched counts bytes that were fetched for a file.
func (c *Counters) Fetched(n fs.Node, bytes int64) {
	if f := c.files.Get(n); f != nil {
		f.fetched.Add(bytes)
	} else if f := c.files.Make(n, &file{}); f != nil {
		f.fetched.Add(bytes)
	}
}

// Reads returns how many reads there were.
func (c *Counters) Reads() (n int64) {
	for i := range c.layers {
		n += c.layers[i].reads.Load()
	}
	return n
}

// Errors returns how many reads failed, but for those whose context had ended.
func (c *Counters) Errors() int64 { return c.errors.Load() }

// Layer returns the counters of the layer at a position, and adds how long its
// reads took to each of waits.
func (c *Counters) Layer(at int, waits ...*Waits) (reads, asked int64) {
	l := &c.layers[at]
	for _, w := range waits {
		l.waits.addTo(w)
	}
	return l.reads.Load(), l.asked.Load()
}

// A FileCost is what reading one file took.
type FileCost struct {
	Ino            uint64
	Asked, Fetched int64
}

// Costly returns the n files for which most was fetched, that first.
func (c *Counters) Costly(n int) []FileCost {
	var rows []FileCost
	for ino, f := range c.files.All() {
		if fetched := f.fetched.Load(); fetched > 0 {
			rows = append(rows, FileCost{ino, f.asked.Load(), fetched})
		}
	}
	slices.SortFunc(rows, func(a, b FileCost) int {
		return cmp.Or(cmp.Compare(b.Fetched, a.Fetched), cmp.Compare(a.Ino, b.Ino))
	})
	return rows[:min(n, len(rows))]
}

// A content counts the reads of a layer.
type content struct {
	fs.Content
	all   *Counters
	layer *layer
}

// ReadFileAt implements fs.Content. It allocates nothing, and does not look at
// the clock, if the bytes are in memory.
func (x *content) ReadFileAt(ctx context.Context, n fs.Node, p []byte, off int64) (int, error) {
	x.layer.reads.Add(1)
	x.layer.asked.Add(int64(len(p)))
	if w := x.all.watch.Load(); w != nil {
		w.Note(n, off, int64(len(p)))
	}
	f := x.all.files.Get(n)
	if f == nil && x.isLarge(n) {
		f = x.all.files.Make(n, &file{})
	}
	if f != nil {
		f.asked.Add(int64(len(p)))
	}
	if x.Content.ReadHeldAt(n, p, off) {
		return len(p), nil
	}
	return x.readSlowly(ctx, n, f, p, off)
}

// readSlowly is ReadFileAt of bytes that are not in memory. f are the file's
// counters, nil if it has none.
func (x *content) readSlowly(ctx context.Context, n fs.Node, f *file, p []byte, off int64) (int, error) {
	begun := time.Now()
	got, err := x.Content.ReadFileAt(ctx, n, p, off)
	x.layer.waits.add(time.Since(begun))
	if f == nil {
		// Something may have been fetched.
		if f = x.all.files.Get(n); f != nil {
			f.asked.Add(int64(len(p)))
		}
	}
	if err != nil && ctx.Err() == nil {
		x.all.errors.Add(1)
	}
	return got, err
}

// ReadHeldAt implements fs.Content. It does not fill p if that is the first read
// of a large file: ReadFileAt counts it from then on.
func (x *content) ReadHeldAt(n fs.Node, p []byte, off int64) bool {
	f := x.all.files.Get(n)
	if f == nil && x.isLarge(n) || !x.Content.ReadHeldAt(n, p, off) {
		return false
	}
	x.layer.reads.Add(1)
	x.layer.asked.Add(int64(len(p)))
	if w := x.all.watch.Load(); w != nil {
		w.Note(n, off, int64(len(p)))
	}
	if f != nil {
		f.asked.Add(int64(len(p)))
	}
	return true
}

func (x *content) isLarge(n fs.Node) bool {
	off, end := n.Extent()
	return end-off >= x.all.large && !n.IsSparse()
}
