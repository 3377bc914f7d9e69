package blobs

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache/internal/blobfile"
)

// maxParts is how many requests of one read are under way at a time. It
// bounds the memory that a read takes, too.
const maxParts = 4

// Chunks says how a blob is cut into chunks and what each must be.
type Chunks struct {
	// Size is the length of each chunk but the last, which may be shorter:
	// a multiple of 4096, at most 16 MiB.
	Size int64
	// Sums holds the SHA-256 of each chunk, 32 bytes a chunk.
	Sums []byte
}

// layout checks the chunks against the blob that they should cut.
func (c Chunks) layout(d digest.Digest, size int64) (blobfile.Layout, error) {
	l := blobfile.Layout{Size: size, Chunk: c.Size}
	if !l.Valid() {
		return l, fmt.Errorf("blob %s: %d bytes in chunks of %d cannot be cached", d, size, c.Size)
	}
	if l.Chunks() != int64(len(c.Sums)/sha256.Size) || len(c.Sums)%sha256.Size != 0 {
		return l, fmt.Errorf("blob %s: %d bytes in chunks of %d need %d sums of 32 bytes; there are %d bytes of them",
			d, size, c.Size, l.Chunks(), len(c.Sums))
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
	s   *blobState
}

var _ remote.Blob = (*Blob)(nil)

// Blob returns b as seen through the cache. The chunks must come from a
// trustworthy source: what has their sums is taken for the blob's content,
// until all of it is there and has another digest. Blobs of the same digest
// and chunks share what they fetch. Sums must not be changed afterwards.
//
// A blob that is local (remote.IsLocal) is read and checked each time, and
// not stored. A remote.WholeBlob that is sent whole is stored whole, if there is
// room for it.
func (c *Cache) Blob(b remote.Blob, chunks Chunks) (*Blob, error) {
	d := b.Digest()
	if err := d.Validate(); err != nil {
		return nil, fmt.Errorf("blob %q: %w", d, err)
	}
	l, err := chunks.layout(d, b.Size())
	if err != nil {
		return nil, err
	}
	s, err := c.state(d, l, chunks, remote.IsLocal(b))
	if err != nil {
		return nil, err
	}
	if s.whole.indexWrong.Load() {
		s.recall() // it may have been checked since
	}
	return &Blob{src: b, s: s}, nil
}

// Digest returns the digest of the whole blob.
func (b *Blob) Digest() digest.Digest { return b.s.digest }

// Size returns the length of the blob in bytes.
func (b *Blob) Size() int64 { return b.s.Size }

// ReadAt reads len(p) bytes of the blob from off, like io.ReaderAt. What is
// not on disk it fetches by whole chunks, neighbours in one request of at most
// Options.MaxRequest, or of what the line brings in a second or so if that is
// less, and a few of these at a time. A fetch has any number of
// readers, and goes on while there is one.
//
// The error wraps remote.ErrDigest if a chunk that the source gave was wrong
// twice, or if the whole blob turned out not to have its digest; else it is
// ctx.Err() or the source's.
func (b *Blob) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("blob %s: read at negative offset %d: %w", b.s.digest, off, fs.ErrInvalid)
	}
	if len(p) == 0 {
		return 0, nil
	}
	if off >= b.s.Size {
		return 0, io.EOF
	}
	var atEnd error
	if rest := b.s.Size - off; int64(len(p)) > rest {
		p, atEnd = p[:rest], io.EOF
	}
	b.s.count.asked.Add(int64(len(p)))
	n, err := b.read(ctx, p, off)
	if err == nil {
		return n, atEnd
	}
	if ctx.Err() == nil {
		b.s.count.errors.Add(1)
	}
	return n, err
}

// read is ReadAt inside the blob.
func (b *Blob) read(ctx context.Context, p []byte, off int64) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if err := b.s.indexError(); err != nil {
		return 0, err
	}
	whole := part{p: p, off: off}
	if b.s.have(ctx, whole) {
		return len(p), nil
	}
	b.s.c.sched.enter()
	defer b.s.c.sched.leave()
	return b.readParts(ctx, whole)
}

// readParts reads all, of which something may have to be fetched.
func (b *Blob) readParts(ctx context.Context, all part) (int, error) {
	var parts []part // on their way, in order
	defer func() {
		for _, p := range parts {
			b.s.leave(p.flights)
		}
	}()
	n := 0
	for rest := all; n < len(all.p); {
		for len(rest.p) > 0 && len(parts) < maxParts {
			var p part
			if p, rest = b.s.split(rest); !b.s.have(ctx, p) {
				if err := p.board(ctx, b); err != nil {
					return n, err
				}
			}
			parts = append(parts, p)
		}
		if err := parts[0].finish(ctx, b); err != nil {
			return n, err
		}
		b.s.leave(parts[0].flights)
		n += len(parts[0].p)
		parts = parts[1:]
	}
	return n, nil
}

// A part is a piece of a read that one request may ask for.
type part struct {
	p   []byte
	off int64 // of p in the blob
	// flights bring what p lacks.
	flights []*flight
}

// span returns the chunks that a part lies in.
func (s *blobState) span(p part) (first, end int64) {
	return p.off / s.Chunk, (p.off+int64(len(p.p))-1)/s.Chunk + 1
}

// split cuts a part off the beginning of p.
func (s *blobState) split(p part) (first, rest part) {
	// A request begins and ends with a chunk.
	n := min(int64(len(p.p)), (p.off/s.Chunk+s.perRequest())*s.Chunk-p.off)
	return part{p: p.p[:n], off: p.off}, part{p: p.p[n:], off: p.off + n}
}

// have fills p if that takes no waiting.
func (s *blobState) have(ctx context.Context, p part) bool {
	first, end := s.span(p)
	f := s.file.Load()
	if !(f != nil && f.readSound(p.p, p.off, first, end)) && !s.c.sched.recent.read(s, p, first, end) {
		return false
	}
	s.used(ctx, first, end)
	s.hit(int64(len(p.p)))
	return true
}

// board gets the flights that bring the part.
func (p *part) board(ctx context.Context, b *Blob) (err error) {
	first, end := b.s.span(*p)
	p.flights, err = b.s.board(ctx, b, first, end, forReader)
	return err
}

// finish waits until the part is there.
func (p *part) finish(ctx context.Context, b *Blob) error {
	for {
		again, err := p.gather(ctx, b)
		if !again {
			return err
		}
		b.s.leave(p.flights)
		p.flights = nil
		if err := p.board(ctx, b); err != nil {
			return err
		}
	}
}

// gather waits for flights and copies to p what they brought. It returns true
// if one failed that asked on behalf of another Blob, or before somebody was
// there to wait for it: that source may be unable to give what this one's
// can, and that failure may be long ago.
func (p *part) gather(ctx context.Context, b *Blob) (again bool, err error) {
	first, end := b.s.span(*p)
	for _, f := range p.flights {
		err := f.await(ctx, first, end)
		if err != nil && ctx.Err() != nil {
			return false, ctx.Err()
		}
		if err != nil {
			return f.owner != b || f.why != forReader, err
		}
		f.copyTo(ctx, p.p, p.off)
	}
	return false, nil
}

// isEnd reports whether err says that the content ends, and not a connection.
func isEnd(err error) bool {
	return (errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)) && !errors.Is(err, remote.ErrUnavailable)
}
