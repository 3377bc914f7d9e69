package dockerdaemon

import (
	"context"
	"io/fs"
	"sync"

	"github.com/imgfs/imgfs/remote/dockerarchive"
)

// A once opens an archive when it is first wanted, for all who want it. If that fails it
// is tried again by whoever wants it next.
type once struct {
	open func(ctx context.Context) (*dockerarchive.Source, error)

	running sync.WaitGroup // openings

	mu     sync.Mutex
	now    *opening // what is going on, or has succeeded; nil: nothing
	closed bool
}

// An opening is one run of open.
type opening struct {
	done    chan struct{}
	cancel  context.CancelFunc
	waiting int // those who want it; guarded by once.mu

	archive *dockerarchive.Source // these are set before done is closed
	err     error
}

// get returns the archive. When ctx ends it returns its error; the last one who waits
// ends the opening.
func (o *once) get(ctx context.Context) (*dockerarchive.Source, error) {
	o.mu.Lock()
	if o.closed {
		o.mu.Unlock()
		return nil, fs.ErrClosed
	}
	if o.now == nil {
		o.now = o.start(ctx)
	}
	now := o.now
	now.waiting++
	o.mu.Unlock()
	select {
	case <-now.done:
	case <-ctx.Done():
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	now.waiting--
	select {
	case <-now.done:
		return now.archive, now.err
	default:
	}
	if now.waiting == 0 {
		now.cancel()
		if o.now == now {
			o.now = nil
		}
	}
	return nil, ctx.Err()
}

// opened returns the archive if it is open, and else nil.
func (o *once) opened() *dockerarchive.Source {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.now == nil {
		return nil
	}
	select {
	case <-o.now.done:
		return o.now.archive
	default:
		return nil
	}
}

// start begins an opening. o.mu is held.
func (o *once) start(ctx context.Context) *opening {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	now := &opening{done: make(chan struct{}), cancel: cancel}
	o.running.Go(func() {
		defer cancel()
		archive, err := o.open(ctx)
		o.mu.Lock()
		defer o.mu.Unlock()
		if err == nil && (o.closed || o.now != now) {
			archive.Close()
			archive, err = nil, context.Canceled
		}
		if err != nil && o.now == now {
			o.now = nil
		}
		now.archive, now.err = archive, err
		close(now.done)
	})
	return now
}

// close ends an opening, waits for its end, and closes the archive.
func (o *once) close() error {
	o.mu.Lock()
	now, again := o.now, o.closed
	o.closed = true
	o.mu.Unlock()
	if now != nil {
		now.cancel()
	}
	o.running.Wait()
	if now == nil || again || now.archive == nil {
		return nil
	}
	return now.archive.Close()
}
