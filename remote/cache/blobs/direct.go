package blobs

import (
	"context"
	"sync/atomic"

	"github.com/imgfs/imgfs/remote"
)

// direct is a blob that is read past the cache.
type direct struct {
	remote.Blob
	c    *Cache
	came *atomic.Int64
}

// Direct returns b as it is read past the cache: for what is read once, and checked by
// who reads it. What the source sends counts as recorded, and is added to came as it
// comes, if the source tells.
func (c *Cache) Direct(b remote.Blob, came *atomic.Int64) remote.ElsewhereBlob {
	return direct{b, c, came}
}

// ReadAt implements remote.Blob.
func (d direct) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if _, ok := d.Blob.(remote.ProgressBlob); ok {
		return d.ReadAtProgress(ctx, p, off, func(int) {})
	}
	n, err := d.Blob.ReadAt(ctx, p, off)
	d.count(n)
	return n, err
}

// ReadAtProgress implements remote.ProgressBlob. It tells as much as the blob does.
func (d direct) ReadAtProgress(ctx context.Context, p []byte, off int64, arrived func(n int)) (int, error) {
	b, ok := d.Blob.(remote.ProgressBlob)
	if !ok {
		return d.ReadAt(ctx, p, off)
	}
	c, counted := d.Blob.(remote.Counted)
	n, err := b.ReadAtProgress(ctx, p, off, func(n int) {
		if counted && !remote.IsLocal(d.Blob) {
			came, _ := c.TakeReceived()
			d.add(came)
		}
		arrived(n)
	})
	d.count(n)
	return n, err
}

// Local implements remote.LocalBlob.
func (d direct) Local() bool { return remote.IsLocal(d.Blob) }

// ReadElsewhere implements remote.ElsewhereBlob.
func (d direct) ReadElsewhere(ctx context.Context, p []byte, off int64) (int, error) {
	e, ok := d.Blob.(remote.ElsewhereBlob)
	if !ok {
		return d.ReadAt(ctx, p, off)
	}
	n, err := e.ReadElsewhere(ctx, p, off)
	d.count(n)
	return n, err
}

func (d direct) count(n int) {
	if !remote.IsLocal(d.Blob) {
		d.add(remote.Received(d.Blob, int64(n)))
	}
}

func (d direct) add(came int64) {
	d.came.Add(came)
	d.c.count.recorded.Add(came)
}
