package blobs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
)

// ErrAbsent: bytes of a blob are not on disk.
var ErrAbsent = errors.New("not in the cache")

// Present reports whether the chunks that n bytes from off lie in seem to be on
// disk, and there are some. It is a hint, for a read of 4 bytes a chunk. A blob that is
// local is there.
func (b *Blob) Present(off, n int64) bool {
	s := b.s
	if off < 0 || n <= 0 || off >= s.Size || s.local {
		return true
	}
	f := s.openFileTo(false)
	if f == nil {
		return false
	}
	first, end := s.Span(off, off+min(n, s.Size-off))
	if first == end {
		return false
	}
	const batch = 4096
	for ; first < end; first += batch {
		for _, w := range f.present(first, min(first+batch, end)) {
			if w == 0 {
				return false
			}
		}
	}
	return true
}

// Arrived waits until all that is under way of n bytes from off has come, or has not, and
// reports whether they seem to be on disk then: see Present.
func (b *Blob) Arrived(ctx context.Context, off, n int64) bool {
	s := b.s
	if off < 0 || n <= 0 || off >= s.Size || s.local {
		return true
	}
	first, end := s.Span(off, off+min(n, s.Size-off))
	for k := first; k < end; k++ {
		f := s.under(k)
		if f == nil {
			continue
		}
		_ = f.await(ctx, k, k+1) // Present tells
		s.leave([]*flight{f})
		if ctx.Err() != nil {
			return false
		}
	}
	return b.Present(off, n)
}

// under returns the flight that brings a chunk, which the caller must leave; nil if none does.
func (s *blobState) under(k int64) *flight {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.flights[k]
	if f != nil {
		f.waiters++
	}
	return f
}

// Used counts n bytes from off as read from the disk, and the chunks that they lie in as read by
// somebody, who has got what ReadPresent has read before.
func (b *Blob) Used(ctx context.Context, off, n int64) {
	if off >= 0 && n > 0 && off < b.s.Size {
		n = min(n, b.s.Size-off)
		first, end := b.s.Span(off, off+n)
		b.s.hit(n)
		b.s.used(ctx, first, end)
	}
}

// ReadPresent is ReadAt for work that nobody waits for: of bytes on disk alone,
// checked as always, and not counted. The error wraps ErrAbsent if there are no
// right ones. Of a blob that is local the source is read.
func (b *Blob) ReadPresent(ctx context.Context, p []byte, off int64) (int, error) {
	s := b.s
	if off < 0 {
		return 0, fmt.Errorf("blob %s: read at negative offset %d: %w", s.digest, off, fs.ErrInvalid)
	}
	if off >= s.Size {
		return 0, io.EOF
	}
	var atEnd error
	if rest := s.Size - off; int64(len(p)) > rest {
		p, atEnd = p[:rest], io.EOF
	}
	if s.local {
		n, err := b.read(ctx, p, off)
		if err == nil {
			err = atEnd
		}
		return n, err
	}
	if err := s.refuted(); err != nil {
		return 0, err
	}
	f := s.openFileTo(false)
	if f == nil {
		return 0, s.absentError()
	}
	n, err := b.readHeld(ctx, f, p, off)
	switch {
	case err != nil:
		return n, err
	case n < len(p):
		return n, s.absentError()
	}
	return n, atEnd
}

// readHeld fills p from off as far as the bytes are in the file and right.
func (b *Blob) readHeld(ctx context.Context, f *blobFile, p []byte, off int64) (n int, err error) {
	s := b.s
	var chunk []byte
	for n < len(p) {
		if err := ctx.Err(); err != nil {
			return n, err
		}
		at := off + int64(n)
		k, end := s.Span(at, off+int64(len(p)))
		if k == end || s.Begin(k) > at {
			return n, nil
		}
		begin, stop := s.Bounds(k)
		part := p[n:min(int64(len(p)), stop-off)]
		if !f.readSound(part, at, k, k+1) {
			if chunk = b.loadPresent(f, k, chunk); chunk == nil {
				return n, nil
			}
			copy(part, chunk[at-begin:])
		}
		n += len(part)
	}
	return n, nil
}

func (s *blobState) absentError() error { return fmt.Errorf("blob %s: %w", s.digest, ErrAbsent) }

// loadPresent returns chunk k if it is in the file and right, else nil. It uses
// the memory of buf. A chunk that is wrong stays for the next reader to remove.
func (b *Blob) loadPresent(f *blobFile, k int64, buf []byte) []byte {
	s := b.s
	begin, stop := s.Bounds(k)
	if int64(cap(buf)) < stop-begin {
		buf = make([]byte, stop-begin)
	}
	buf = buf[:stop-begin]
	if f.present(k, k+1)[0] == 0 {
		return nil
	}
	if !s.loadChunk(b.cuts, f, k, buf) {
		return nil
	}
	return buf
}
