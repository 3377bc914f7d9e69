package layerindex

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"github.com/imgfs/imgfs/layerindex/internal/indexfile"
)

// Pieces are checksums of the pieces of a file, with which any range of a file that is
// far away can be checked by itself.
type Pieces = indexfile.Pieces

// Published returns the index as it is published: without the digests of contents, which
// go into a file of their own (WriteDigests), and with the checksums of that file's
// pieces. It reads all parts, and x as it is used: x must stay open. It has no digests
// for whoever reads it. The error wraps ErrIndex, or is ctx.Err().
func (x *Index) Published(ctx context.Context) (*Index, error) {
	f, err := x.file.Published(ctx)
	if err != nil {
		return nil, err
	}
	return &Index{file: f}, nil
}

// WriteDigests writes the digests of contents to w, nothing if the index has none. The
// error wraps ErrIndex if they are damaged, or is that of w, or ctx.Err().
func (x *Index) WriteDigests(ctx context.Context, w io.Writer) error {
	return x.file.WriteDigests(ctx, w)
}

// OpenPublished returns the index that is in the first size bytes of src as it was
// published, with its digests of contents in another file; nil if they are not to be
// had. It reads and checks the header only. Both are read by range when something is
// needed, and what is read is checked; which bytes of src the index asks for does not
// depend on what else was read before. Reads are at the same time, and must be possible
// as long as the index is used. What they fail with is no ErrIndex, unless they say so, and
// comes wrapped. Closing the index closes closer, which is the caller's if there is an
// error.
func OpenPublished(src io.ReaderAt, size int64, digests io.ReaderAt, closer io.Closer) (*Index, error) {
	x, err := ReadIndex(farSource{src}, size)
	if err != nil {
		return nil, err
	}
	if x.file.Version != indexfile.Version {
		return nil, fmt.Errorf("%w: version %d has no pieces", ErrIndex, x.file.Version)
	}
	x.far, x.closer = true, closer
	if digests != nil && x.file.Has(indexfile.DigestPieces) {
		x.digests = farSource{digests}
	}
	return x, nil
}

// A farSource tells errors of reading from errors in what is read: nothing is wrong with
// an index because the network fails.
type farSource struct{ src io.ReaderAt }

func (f farSource) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.src.ReadAt(p, off)
	if err != nil && err != io.EOF && !errors.Is(err, ErrIndex) {
		err = &indexfile.SourceError{Err: err}
	}
	return n, err
}

// ReadPart returns the index of which src has the header, and whatever else: parts may be
// missing, and other bytes may follow. EncodedSize says where the index ends. It reads and
// checks the header only.
func ReadPart(src io.ReaderAt) (*Index, error) { return ReadIndex(src, -1) }

// Pieces returns the pieces of the index file: all that is behind this section of it,
// which is the first one. They stay in memory. The error wraps ErrIndex; an index of an
// old version has none.
func (x *Index) Pieces() (*Pieces, error) { return x.pieces.get(x.file.Pieces) }

// DigestPieces returns the pieces of the file with the digests of contents that goes
// with a published index. They stay in memory. The error wraps ErrIndex.
func (x *Index) DigestPieces() (*Pieces, error) { return x.digestPieces.get(x.file.DigestPieces) }

// HasDigestPieces reports whether the index was published with digests of contents.
func (x *Index) HasDigestPieces() bool { return x.file.Has(indexfile.DigestPieces) }

// Far reports whether the index is from OpenPublished: reading a part of it may take the
// network, so what is needed of a part is better read by range.
func (x *Index) Far() bool { return x.far }

// HasDigests reports whether the index has the digests of content.
func (x *Index) HasDigests() bool { return x.digests != nil || x.file.Has(indexfile.Digests) }

// ContentDigest returns digest n of content; Listing.Numbered says of which entry it is.
// It reads and checks a piece of the digests only, of an old version of the format all
// of them. The error wraps ErrIndex.
func (x *Index) ContentDigest(n int) (sum [sha256.Size]byte, err error) {
	off, b := int64(n)*sha256.Size, []byte(nil)
	switch {
	case n < 0 || int64(n) >= x.file.Entries || !x.HasDigests():
		err = fmt.Errorf("%w: no digest %d", ErrIndex, n)
	case x.digests != nil:
		var p *Pieces
		if p, err = x.DigestPieces(); err == nil {
			b, err = p.ReadRange(x.digests, off, off+sha256.Size)
		}
	case x.file.Version == indexfile.Version:
		var p *Pieces
		if p, err = x.Pieces(); err == nil {
			b, err = x.file.Range(p, indexfile.Digests, off, off+sha256.Size)
		}
	default:
		if b, err = x.file.Section(indexfile.Digests); err == nil {
			b = b[min(off, int64(len(b))):]
		}
	}
	if err == nil && len(b) < sha256.Size {
		err = fmt.Errorf("%w: no digest %d", ErrIndex, n)
	}
	if err != nil {
		return sum, err
	}
	return [sha256.Size]byte(b), nil
}

// openDigests opens the digests of contents, which must be flagged.
func (x *Index) openDigests(ctx context.Context, flagged int64) (*indexfile.SectionReader, error) {
	s, _ := x.file.Find(indexfile.Digests)
	size, open := s.Raw, x.file.OpenSection
	if x.digests != nil {
		p, err := x.DigestPieces()
		if err != nil {
			return nil, err
		}
		size = p.Size()
		open = func(ctx context.Context, kind indexfile.Kind) (*indexfile.SectionReader, error) {
			return p.Open(ctx, x.digests, kind), nil
		}
	}
	if size != flagged*sha256.Size {
		return nil, fmt.Errorf("%w: %d bytes of content digests for %d files", ErrIndex, size, flagged)
	}
	return open(ctx, indexfile.Digests)
}

// checkDigests reads all digests of contents and checks them.
func (x *Index) checkDigests(ctx context.Context, flagged int64) error {
	r, err := x.openDigests(ctx, flagged)
	if err == nil {
		_, err = io.Copy(io.Discard, r)
		err = r.Close(err)
	}
	return err
}

// WritePublished writes what is published of the index: the index, and the digests of
// contents to a file of their own, nothing if there are none. The error wraps ErrIndex if
// the index is damaged, or is that of a writer.
func (x *Index) WritePublished(index, digests io.Writer) error {
	p, err := x.Published(context.Background())
	if err != nil {
		return err
	}
	_, err = p.WriteTo(index)
	return errors.Join(err, x.WriteDigests(context.Background(), digests))
}

// ListingEnd returns how many bytes of the index file, from its beginning, hold what is
// needed to list the layer: the header, the pieces and the entries.
func (x *Index) ListingEnd() int64 { return x.end(indexfile.Entries) }

// ReadingEnd returns how many bytes of the index file, from its beginning, hold besides
// that what each read of the layer needs: the checkpoints, the proofs, and what to fetch
// first. Behind that are windows and digests, of which a read needs few.
func (x *Index) ReadingEnd() int64 {
	return x.end(indexfile.Entries, indexfile.Spans, indexfile.Chunks, indexfile.Proofs, indexfile.First)
}

// end returns where the last of some sections ends.
func (x *Index) end(kinds ...indexfile.Kind) int64 {
	end := int64(0)
	for _, k := range kinds {
		if s, ok := x.file.Find(k); ok {
			end = max(end, s.Off+s.Stored)
		}
	}
	return end
}
