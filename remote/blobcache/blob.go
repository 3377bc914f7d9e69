package blobcache

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"

	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/remote"
)

// DefaultChunkSize is the size of chunks that suits most blobs.
const DefaultChunkSize = 256 << 10

// Chunks says how a blob is cut into chunks and what each must be.
type Chunks struct {
	// Size is the length of each chunk but the last, which may be shorter:
	// a multiple of 4096, at most 16 MiB.
	Size int64
	// Sums holds the SHA-256 of each chunk, 32 bytes a chunk.
	Sums []byte
}

// layout checks the chunks against the blob that they should cut.
func (c Chunks) layout(d digest.Digest, size int64) (layout, error) {
	l := layout{size: size, chunk: c.Size}
	if !l.valid() {
		return l, fmt.Errorf("blob %s: %d bytes in chunks of %d cannot be cached", d, size, c.Size)
	}
	if l.chunks() != int64(len(c.Sums)/sha256.Size) || len(c.Sums)%sha256.Size != 0 {
		return l, fmt.Errorf("blob %s: %d bytes in chunks of %d need %d sums of 32 bytes; there are %d bytes of them",
			d, size, c.Size, l.chunks(), len(c.Sums))
	}
	return l, nil
}

// match reports whether data is chunk k.
func (c Chunks) match(k int64, data []byte) bool {
	sum := sha256.Sum256(data)
	return bytes.Equal(sum[:], c.Sums[k*sha256.Size:(k+1)*sha256.Size])
}

// A Blob is a remote.Blob whose bytes come from disk, or from the source by
// way of the disk; none is handed on that does not have its chunk's SHA-256.
// It belongs to its Cache and needs no closing.
type Blob struct {
	src remote.Blob
	s   *store
}

var _ remote.Blob = (*Blob)(nil)

// Blob returns b as seen through the cache. The chunks must come from a
// trustworthy source: what has their sums is taken for the blob's content.
// Blobs of the same digest and chunks share what they fetch. Sums must not
// be changed afterwards.
func (c *Cache) Blob(b remote.Blob, chunks Chunks) (*Blob, error) {
	d := b.Digest()
	if err := d.Validate(); err != nil {
		return nil, fmt.Errorf("blob %q: %w", d, err)
	}
	l, err := chunks.layout(d, b.Size())
	if err != nil {
		return nil, err
	}
	s, err := c.store(d, l, chunks)
	if err != nil {
		return nil, err
	}
	return &Blob{src: b, s: s}, nil
}

// Digest returns the digest of the whole blob.
func (b *Blob) Digest() digest.Digest { return b.s.digest }

// Size returns the length of the blob in bytes.
func (b *Blob) Size() int64 { return b.s.size }

// ReadAt reads len(p) bytes of the blob from off, like io.ReaderAt. What is
// not on disk it fetches by whole chunks, neighbours in one request; a fetch
// has any number of readers, and goes on while there is one.
//
// The error wraps remote.ErrDigest if a chunk that the source gave was wrong
// twice, else it is ctx.Err() or the source's.
func (b *Blob) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("blob %s: read at negative offset %d: %w", b.s.digest, off, fs.ErrInvalid)
	}
	if len(p) == 0 {
		return 0, nil
	}
	if off >= b.s.size {
		return 0, io.EOF
	}
	var atEnd error
	if rest := b.s.size - off; int64(len(p)) > rest {
		p, atEnd = p[:rest], io.EOF
	}
	for n := 0; n < len(p); {
		// A request begins and ends with a chunk.
		at := off + int64(n)
		end := (at/b.s.chunk + b.s.perRequest) * b.s.chunk
		part := p[n:]
		if int64(len(part)) > end-at {
			part = part[:end-at]
		}
		if err := b.readPart(ctx, part, at); err != nil {
			return n, err
		}
		n += len(part)
	}
	return len(p), atEnd
}

// readPart reads at most what one request may ask for.
func (b *Blob) readPart(ctx context.Context, p []byte, off int64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	first, end := off/b.s.chunk, (off+int64(len(p))-1)/b.s.chunk+1
	if f := b.s.file.Load(); f != nil && f.readSound(p, off, first, end) {
		b.s.c.count.hitBytes.Add(int64(len(p)))
		return nil
	}
	for {
		flights, err := b.s.board(ctx, b, first, end)
		if err != nil {
			return err
		}
		again, err := b.gather(ctx, flights, p, off)
		b.s.leave(flights)
		if !again {
			return err
		}
	}
}

// gather waits for flights and copies to p what they brought. It returns true
// if one failed that asked on behalf of another Blob: its source may be
// unable to give what this one's can.
func (b *Blob) gather(ctx context.Context, flights []*flight, p []byte, off int64) (again bool, err error) {
	for _, f := range flights {
		select {
		case <-f.done:
		case <-ctx.Done():
			return false, ctx.Err()
		}
		if err := f.copyTo(p, off); err != nil {
			return f.owner != b, err
		}
	}
	return false, nil
}
