package blobs

import (
	"context"
	"sync/atomic"

	"github.com/imgfs/imgfs/remote"
)

// A Direct is a blob that is read past the cache: for what is read once, and checked by
// who reads it. What comes counts as recorded. It is safe for concurrent use.
type Direct struct {
	remote.Blob
	c    *Cache
	came atomic.Int64
}

// Direct returns b as it is read past the cache.
func (c *Cache) Direct(b remote.Blob) *Direct { return &Direct{Blob: b, c: c} }

// ReadAt implements remote.Blob. Nothing that it returns has been checked.
func (d *Direct) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	n, err := d.Blob.ReadAt(ctx, p, off)
	if !remote.IsLocal(d.Blob) {
		came := remote.Received(d.Blob, int64(n))
		d.came.Add(came)
		d.c.count.recorded.Add(came)
	}
	return n, err
}

// Came returns how many bytes the source has sent for reads.
func (d *Direct) Came() int64 { return d.came.Load() }
