package blobs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/remote"
)

// maxParts is how many requests of one read are under way at a time. It
// bounds the memory that a read takes, too.
const maxParts = 4

// A Blob is a remote.Blob whose bytes come from disk, or from the source by
// way of the disk; none is handed on that is not of a chunk which matches.
// It belongs to its Cache and needs no closing.
type Blob struct {
	src  remote.Blob
	cuts Cuts
	s    *blobState
}

var _ remote.Blob = (*Blob)(nil)

// Blob returns b as seen through the cache. The cuts must come from a
// trustworthy source: what matches them is taken for the blob's content,
// until all of it is there and has another digest. Package blobs finds that out by
// itself of Chunks alone: see Patched and Condemn. Blobs of the same digest
// and cuts share what they fetch; each matches what it fetches by the Cuts that it was
// given.
//
// A blob that is local (remote.IsLocal) is read and checked each time, and
// not stored. A remote.WholeBlob that is sent whole is stored whole, if there is
// room for it.
func (c *Cache) Blob(b remote.Blob, cuts Cuts) (*Blob, error) {
	d := b.Digest()
	if err := d.Validate(); err != nil {
		return nil, fmt.Errorf("blob %q: %w", d, err)
	}
	s, err := c.state(d, b.Size(), cuts, remote.IsLocal(b))
	if err != nil {
		return nil, err
	}
	if s.refuted() != nil {
		s.recall() // it may have been checked since
	}
	s.noFile.Store(false)
	return &Blob{src: b, cuts: cuts, s: s}, nil
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
// twice, or if the whole blob turned out not to have its digest; and ErrUnproved, too,
// if the bytes from the n-th on are in no chunk. Else it is what Condemn was given,
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
	if n := b.s.covered(off, int64(len(p))); n < int64(len(p)) {
		p, atEnd = p[:n], b.s.unproved(off+n)
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
	if err := b.s.refuted(); err != nil {
		return 0, err
	}
	whole := part{p: p, off: off}
	if len(p) == 0 || b.have(ctx, whole) {
		return len(p), nil
	}
	b.s.c.sched.enter()
	defer b.s.c.sched.leave()
	n, err := b.readParts(ctx, whole)
	if wrong := b.s.refuted(); wrong != nil {
		return 0, wrong // it turned out meanwhile
	}
	return n, err
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
			if p, rest = b.s.split(rest); !b.have(ctx, p) {
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
	return s.Span(p.off, p.off+int64(len(p.p)))
}

// split cuts a part off the beginning of p.
func (s *blobState) split(p part) (first, rest part) {
	// A request begins and ends with a chunk.
	k, end := s.span(p)
	_, stop := s.Bounds(s.run(k, end, s.perRequest()) - 1)
	n := min(int64(len(p.p)), stop-p.off)
	return part{p: p.p[:n], off: p.off}, part{p: p.p[n:], off: p.off + n}
}

// have fills p if that takes no waiting.
func (b *Blob) have(ctx context.Context, p part) bool {
	s := b.s
	first, end := s.span(p)
	f := s.file.Load()
	if !(f != nil && f.readSound(p.p, p.off, first, end)) && !b.readLocal(ctx, p, first, end) && !s.c.sched.recent.read(s, p, first, end) {
		return false
	}
	s.used(ctx, first, end)
	s.hit(int64(len(p.p)))
	return true
}

// readLocal fills p from a local source, if all its chunks, those from first to end,
// have matched before and what is read of them is the same.
func (b *Blob) readLocal(ctx context.Context, p part, first, end int64) bool {
	s := b.s
	return s.local && s.seals != nil && s.seals.read(s.Layout, contextReader{ctx, b.src}, p.p, p.off, first, end) < 0
}

// A contextReader is a blob as an io.ReaderAt.
type contextReader struct {
	ctx context.Context
	remote.Blob
}

func (r contextReader) ReadAt(p []byte, off int64) (int, error) { return r.Blob.ReadAt(r.ctx, p, off) }

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

// ErrUnproved: bytes of a blob are in no chunk, or in one that nothing can match. It comes
// wrapped, and is remote.ErrDigest, too.
var ErrUnproved = errors.New("nothing says what these bytes must be")

type unprovedError struct{ text string }

func (e *unprovedError) Error() string { return e.text }

func (e *unprovedError) Is(target error) bool {
	return target == ErrUnproved || target == remote.ErrDigest
}

// unproved is the error of a read of byte off.
func (s *blobState) unproved(off int64) error {
	return &unprovedError{fmt.Sprintf("blob %s: byte %d: %v", s.digest, off, ErrUnproved)}
}

// isEnd reports whether err says that the content ends, and not a connection.
func isEnd(err error) bool {
	return (errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)) && !errors.Is(err, remote.ErrUnavailable)
}
