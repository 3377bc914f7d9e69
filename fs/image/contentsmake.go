package image

import (
	"context"
	"errors"
	"io"
	"math"
	"time"

	"github.com/imgfs/imgfs/layerindex/reader"
	"github.com/imgfs/imgfs/remote/cache"
)

const (
	// makeMemory is what making a content may keep of decoded spans, besides
	// the one that it is at. It is too little for decoding ahead.
	makeMemory = 1 << 20
	// makePiece is how much of a content is decoded at a time.
	makePiece = 128 << 10
	// maxPause is how long making a content rests between two pieces while
	// there are readers. It is at work for a third of the time, at least.
	maxPause = 50 * time.Millisecond
	// tail is how much at the end of what decoding reads is not sure to be
	// needed.
	tail = 128 << 10
)

// A contentJob looks for a content, and checks it.
type contentJob struct {
	c      *candidate
	write  bool          // if it is not there it is made; guarded by contents.mu
	inRead bool          // a reader does it, and others that come wait
	done   chan struct{} // closed when it is over
}

// enqueue has a content looked for, and made if it is not there and that is
// wanted, unless a reader looks for it at this moment. It returns nil if there
// is too much to do.
func (k *contents) enqueue(c *candidate, write bool) *contentJob {
	k.mu.Lock()
	defer k.mu.Unlock()
	if c.job != nil {
		c.job.write = c.job.write || write
		return c.job
	}
	if k.closed || len(k.queue) >= maxContentJobs {
		return nil
	}
	c.job = &contentJob{c: c, write: write, done: make(chan struct{})}
	k.queue = append(k.queue, c.job)
	if !k.working {
		k.working = true
		k.work.Add(1)
		go k.run()
	}
	return c.job
}

// run does what is to be done, one after the other.
func (k *contents) run() {
	defer k.work.Done()
	for {
		k.mu.Lock()
		if len(k.queue) == 0 || k.closed {
			for _, job := range k.queue {
				job.c.job = nil
				close(job.done)
			}
			k.queue, k.working = nil, false
			k.mu.Unlock()
			return
		}
		job := k.queue[0]
		k.queue = k.queue[1:]
		k.mu.Unlock()
		k.do(job)
		k.finish(job)
		k.after(job.c) // there may have been reads meanwhile
	}
}

func (k *contents) finish(job *contentJob) {
	k.mu.Lock()
	defer k.mu.Unlock()
	job.c.job = nil
	close(job.done)
}

// do looks for a content, and makes it.
func (k *contents) do(job *contentJob) {
	c := job.c
	if c.open.Load() != nil {
		return
	}
	file, err := k.find(k.ctx, c)
	k.mu.Lock()
	write := job.write
	k.mu.Unlock()
	if file == nil && err == nil && write {
		file, err = k.make(k.ctx, c)
	}
	if file != nil {
		k.add(c, file, false)
		return
	}
	now := c.decoded.Load()
	switch {
	case errors.Is(err, errNoDigest):
		c.due.Store(math.MaxInt64)
	case errors.Is(err, cache.ErrAbsent):
		c.due.Store(now + c.cost/lookShare)
	case err != nil: // no room, most of the time, or an index that is wrong for now
		c.due.Store(now + 2*c.cost)
	default:
		c.due.Store(c.makeAt())
	}
}

// errNoDigest: the index does not know what a file's content should be.
var errNoDigest = errors.New("no digest")

// find opens the content of a candidate if it is there; it returns nil if not.
// The first time it is read and checked.
func (k *contents) find(ctx context.Context, c *candidate) (contentFile, error) {
	d, err := k.digest(c)
	if err != nil {
		return nil, err
	}
	size := c.size()
	if !k.dir.HasContent(d, size) {
		return nil, nil
	}
	file, err := k.dir.OpenContent(ctx, d, size)
	if err != nil {
		return nil, nil // it was wrong, or has just been removed
	}
	return file, nil
}

// make writes a content from the chunks on disk. It reads them with a Reader
// of its own, so that it neither counts as a reader nor takes away what readers
// have in memory.
func (k *contents) make(ctx context.Context, c *candidate) (contentFile, error) {
	d, err := k.digest(c)
	if err != nil {
		return nil, err
	}
	off, end := c.n.Extent()
	l := c.layer.state.Load()
	_, from, to, err := l.reader.Source(off, end)
	if err != nil {
		return nil, err
	}
	if !l.blob.Present(from, max(1, to-from-tail)) {
		return nil, cache.ErrAbsent
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r := reader.New(l.index, presentBlob{l.blob}, &reader.Options{
		Cache:   reader.NewSpanCache(makeMemory),
		NewTemp: newTemp(c.layer.cache, true),
		// A disk without room for the span has none for the content.
		SpoolFailed: func(error) { cancel() },
	})
	defer r.Close()
	file, err := k.dir.StoreContent(ctx, d, end-off, &pacedReader{k: k, ctx: ctx, from: r, off: off, end: end})
	if err != nil {
		return nil, err
	}
	k.kept.Add(1)
	k.keptBytes.Add(end - off)
	return file, nil
}

// A presentBlob is what is on disk of a blob.
type presentBlob struct{ *cache.Blob }

func (b presentBlob) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	return b.ReadPresent(ctx, p, off)
}

// Prefetch does nothing: nothing is fetched to make a content.
func (presentBlob) Prefetch(off, n int64) {}

// A pacedReader reads a file in pieces, and lets readers of the tree go first.
type pacedReader struct {
	k        *contents
	ctx      context.Context // of one call of StoreContent
	from     *reader.Reader
	off, end int64 // in the tar

	begun time.Time // with the last piece
	reads int64     // of the tree, before the last piece
}

func (r *pacedReader) Read(p []byte) (int, error) {
	if r.off >= r.end {
		return 0, io.EOF
	}
	if err := r.pause(); err != nil {
		return 0, err
	}
	p = p[:min(int64(len(p)), makePiece, r.end-r.off)]
	n, err := r.from.ReadFileAt(r.ctx, p, r.off, r.end)
	r.off += int64(n)
	if err == io.EOF && r.off < r.end {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// pause rests if anybody has read from the tree since the last piece.
func (r *pacedReader) pause() error {
	reads, now := r.k.img.counts.reads(), time.Now()
	if !r.begun.IsZero() && reads != r.reads {
		timer := time.NewTimer(min(2*now.Sub(r.begun), maxPause))
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-r.ctx.Done():
			return r.ctx.Err()
		}
	}
	r.begun, r.reads = time.Now(), reads
	return r.ctx.Err()
}
