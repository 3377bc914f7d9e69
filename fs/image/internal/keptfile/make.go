package keptfile

import (
	"context"
	"errors"
	"io"
	"math"
	"time"

	"github.com/imgfs/imgfs/fs"
)

const (
	// makePiece is how much of a file is decoded at a time.
	makePiece = 128 << 10
	// maxPause is how long making a file rests between two pieces while
	// there are readers. It is at work for a third of the time, at least.
	maxPause = 50 * time.Millisecond
	// tail is how many bytes at the end of what decoding reads may not be
	// needed.
	tail = 128 << 10
)

// A job looks for a kept file, and checks it.
type job struct {
	c      *candidate
	write  bool          // if it is not there it is made; guarded by Files.mu
	inRead bool          // a reader does it, and others that come wait
	done   chan struct{} // closed when it is over
}

// enqueue adds a job to look for a kept file, and to make it if it is not there and
// write is true, unless a reader looks for it at this moment. It returns nil if
// there is too much to do.
func (k *Files) enqueue(c *candidate, write bool) *job {
	k.mu.Lock()
	defer k.mu.Unlock()
	if c.job != nil {
		c.job.write = c.job.write || write
		return c.job
	}
	if k.closed || len(k.queue) >= MaxJobs {
		return nil
	}
	c.job = &job{c: c, write: write, done: make(chan struct{})}
	k.queue = append(k.queue, c.job)
	if !k.working {
		k.working = true
		k.work.Add(1)
		go k.run()
	}
	return c.job
}

// run does the jobs, one after the other.
func (k *Files) run() {
	defer k.work.Done()
	for {
		k.mu.Lock()
		if len(k.queue) == 0 || k.closed {
			for _, j := range k.queue {
				j.c.job = nil
				close(j.done)
			}
			k.queue, k.working = nil, false
			k.mu.Unlock()
			return
		}
		next := k.queue[0]
		k.queue = k.queue[1:]
		k.mu.Unlock()
		k.do(next)
		k.finish(next)
		k.after(next.c) // there may have been reads meanwhile
	}
}

func (k *Files) finish(j *job) {
	k.mu.Lock()
	defer k.mu.Unlock()
	j.c.job = nil
	close(j.done)
}

// do does a job.
func (k *Files) do(j *job) {
	c := j.c
	if c.open.Load() != nil {
		return
	}
	file, err := k.find(k.ctx, c)
	k.mu.Lock()
	write := j.write
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
	case errors.Is(err, errAbsent):
		c.due.Store(now + c.cost/lookShare)
	case err != nil: // no room, most of the time, or an index that is wrong for now
		c.due.Store(now + 2*c.cost)
	default:
		c.due.Store(c.makeAt())
	}
}

// errAbsent: some of what a file would be made of is not in the cache.
var errAbsent = errors.New("some of it is not in the cache")

// find opens the kept file of a candidate if it is there; it returns nil if not.
// The first time it is read and checked.
func (k *Files) find(ctx context.Context, c *candidate) (File, error) {
	d, err := k.digest(c)
	if err != nil {
		return nil, err
	}
	size := c.size()
	if !k.dir.Has(d, size) {
		return nil, nil
	}
	file, err := k.dir.Open(ctx, d, size)
	if err != nil {
		return nil, nil // it was wrong, or has just been removed
	}
	return file, nil
}

// make writes a file from the chunks on disk. It reads them with a Reader
// of its own, so that it neither counts as a reader nor takes away what readers
// have in memory.
func (k *Files) make(ctx context.Context, c *candidate) (File, error) {
	d, err := k.digest(c)
	if err != nil {
		return nil, err
	}
	off, end := c.n.Extent()
	ok, err := c.layer.Present(off, end, tail)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, errAbsent
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// A disk without room for a span has none for the file.
	r := c.layer.NewReader(cancel)
	defer r.Close()
	file, err := k.dir.Store(ctx, d, end-off, &pacedReader{k: k, ctx: ctx, from: r, off: off, end: end})
	if err != nil {
		return nil, err
	}
	k.kept.Add(1)
	k.keptBytes.Add(end - off)
	return file, nil
}

// A pacedReader reads a file in pieces, and lets readers of the tree go first.
type pacedReader struct {
	k        *Files
	ctx      context.Context // of one call of Dir.Store
	from     fs.Stream
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

// pause rests if there were reads of the image since the last piece.
func (r *pacedReader) pause() error {
	reads, now := r.k.reads(), time.Now()
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
