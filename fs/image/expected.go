package image

import (
	"context"
	"runtime"
	"sync"

	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/fs/image/internal/firstreads"
	"github.com/imgfs/imgfs/fs/profile"
)

// decodeStep is how much of a file is decoded for an expectation before it is asked again what
// readers have read meanwhile.
const decodeStep = 1 << 20

// An expectedDecoder has decoded what a forecast expects to be read, once it has come, in the
// order in which it is needed. It begins when something is read: of an image that nobody
// starts nothing is decoded. It is safe for concurrent use.
type expectedDecoder struct {
	img    *Image
	record *firstreads.Recorder
	once   sync.Once
	began  chan struct{} // closed when something was read
	more   chan struct{} // gets an element when there is something in queue

	mu    sync.Mutex
	queue []want
}

// add adds parts of files that have come, or are on their way.
func (d *expectedDecoder) add(batch []want) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.queue) < profile.MaxReads {
		d.queue = append(d.queue, batch...)
	}
	select {
	case d.more <- struct{}{}:
	default:
	}
}

// next takes the first of the parts. ok is false if there is none.
func (d *expectedDecoder) next() (w want, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.queue) == 0 {
		return want{}, false
	}
	w, d.queue = d.queue[0], d.queue[1:]
	return w, true
}

// met is told of a block of a file that is read for the first time. Its bytes of the blob are
// somebody's now, also if they were decoded before.
func (d *expectedDecoder) met(n fs.Node, off int64) {
	d.once.Do(func() { close(d.began) })
	if n.Layer() < 0 || n.IsSparse() {
		return
	}
	blob, from, to, err := d.img.source(n, off, min(off+profile.Grain, n.Attr().Size))
	if err == nil {
		blob.Used(&meteredContext{context.Background(), d.img, n}, from, to-from)
	}
}

// run decodes until ctx ends. On one processor that would only be in the way of readers.
func (d *expectedDecoder) run(ctx context.Context) {
	if runtime.GOMAXPROCS(0) < 2 {
		return
	}
	select {
	case <-d.began:
	case <-ctx.Done():
		return
	}
	for {
		w, ok := d.next()
		if ok {
			d.decode(ctx, w)
			continue
		}
		select {
		case <-d.more:
		case <-ctx.Done():
			return
		}
	}
}

// decode decodes what of a part nobody has read so far.
func (d *expectedDecoder) decode(ctx context.Context, w want) {
	end := min(w.off+w.size, w.n.Attr().Size)
	if w.n.IsSparse() || d.img.isKept(ctx, w.n) {
		return
	}
	for off := w.off; off < end && ctx.Err() == nil; {
		stop := off
		for stop < end && stop-off < decodeStep && !d.record.Seen(w.n, stop) {
			stop = min(stop+profile.Grain, end)
		}
		if stop == off {
			off += profile.Grain
			continue
		}
		blob, from, to, err := d.img.source(w.n, off, stop)
		if err != nil || !blob.Arrived(ctx, from, to-from) {
			return // what did not come is for its readers to fetch
		}
		s := d.img.layers.all[w.n.Layer()].state.Load()
		at, _ := s.extent(w.n)
		if !s.reader.Expect(&meteredContext{ctx, d.img, w.n}, at+off, at+stop) {
			d.drop()
			return
		}
		off = stop
	}
}

// drop forgets what else is expected: another program was started, or none.
func (d *expectedDecoder) drop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.queue = nil
}
