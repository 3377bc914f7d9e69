package indexfile

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"io"
)

// PieceSize is how many bytes of a file each sum of its pieces is of, but the last.
const PieceSize = 64 << 10

// Pieces are the checksums of the pieces of a file, or of a part of one: with them any
// range can be checked by itself. They are immutable and safe for concurrent use.
type Pieces struct {
	start, end int64 // in the file
	sums       []byte
}

// Len returns how many pieces there are.
func (p *Pieces) Len() int { return len(p.sums) / sha256.Size }

// Bounds returns the offsets in the file at which piece k begins and ends.
func (p *Pieces) Bounds(k int) (off, end int64) {
	off = p.start + int64(k)*PieceSize
	return off, min(off+PieceSize, p.end)
}

// Range returns the numbers of the pieces that hold the bytes from off to end of the
// file, of which to is the first behind them. It reports false if some of these bytes
// are in no piece, or if there are none.
func (p *Pieces) Range(off, end int64) (from, to int, ok bool) {
	if off < p.start || end > p.end || off >= end {
		return 0, 0, false
	}
	return int((off - p.start) / PieceSize), int((end-p.start-1)/PieceSize) + 1, true
}

// Match reports whether data is piece k.
func (p *Pieces) Match(k int, data []byte) bool {
	off, end := p.Bounds(k)
	return int64(len(data)) == end-off && sha256.Sum256(data) == [sha256.Size]byte(p.sums[k*sha256.Size:])
}

// ReadRange reads the bytes from off to end of src, of which these are the pieces, and
// checks them. The error wraps ErrInvalid.
func (p *Pieces) ReadRange(src io.ReaderAt, off, end int64) ([]byte, error) {
	if off == end {
		return nil, nil
	}
	k, to, ok := p.Range(off, end)
	if !ok {
		return nil, fmt.Errorf("%w: no bytes %d to %d", ErrInvalid, off, end)
	}
	begin, _ := p.Bounds(k)
	_, last := p.Bounds(to - 1)
	all := make([]byte, last-begin)
	if err := readFull(src, all, begin); err != nil {
		return nil, Invalid(fmt.Sprintf("bytes %d to %d", begin, last), err)
	}
	for rest := all; k < to; k++ {
		n := min(len(rest), PieceSize)
		if !p.Match(k, rest[:n]) {
			return nil, fmt.Errorf("%w: piece %d: checksum", ErrInvalid, k)
		}
		rest = rest[n:]
	}
	return all[off-begin : end-begin], nil
}

// ReadPiece is ReadRange for piece k.
func (p *Pieces) ReadPiece(src io.ReaderAt, k int) ([]byte, error) {
	off, end := p.Bounds(k)
	return p.ReadRange(src, off, end)
}

// Open returns a reader of all pieces in src, as of a section of a kind, until ctx ends.
func (p *Pieces) Open(ctx context.Context, src io.ReaderAt, kind Kind) *SectionReader {
	return &SectionReader{ctx: ctx, info: Section{Kind: kind, Raw: p.end}, left: p.end - p.start, decoded: &piecesReader{p: p, src: src}}
}

// A piecesReader reads one piece after the other, and checks each.
type piecesReader struct {
	p   *Pieces
	src io.ReaderAt
	k   int // the next
	b   []byte
}

func (r *piecesReader) Read(b []byte) (int, error) {
	if len(r.b) == 0 {
		if r.k == r.p.Len() {
			return 0, io.EOF
		}
		piece, err := r.p.ReadPiece(r.src, r.k)
		if err != nil {
			return 0, err
		}
		r.b = piece
		r.k++
	}
	n := copy(b, r.b)
	r.b = r.b[n:]
	return n, nil
}

// Size returns where the last piece ends.
func (p *Pieces) Size() int64 { return p.end }

// Pieces reads the checksums of the pieces of the file behind that section.
func (f *File) Pieces() (*Pieces, error) {
	b, err := f.Section(PieceSums)
	if err != nil {
		return nil, err
	}
	s, _ := f.Find(PieceSums)
	return &Pieces{start: s.Off + s.Stored, end: f.Size, sums: b}, nil
}

// DigestPieces reads the checksums of the pieces of the digests that are in a file of
// their own.
func (f *File) DigestPieces() (*Pieces, error) {
	b, err := f.Section(DigestPieces)
	if err != nil {
		return nil, err
	}
	if len(b) < 8 {
		return nil, fmt.Errorf("%w: %v", ErrInvalid, DigestPieces)
	}
	size := binary.LittleEndian.Uint64(b)
	if size > MaxSection || int64(len(b))-8 != piecesLen(int64(size)) {
		return nil, fmt.Errorf("%w: %v: %d bytes of digests", ErrInvalid, DigestPieces, size)
	}
	return &Pieces{end: int64(size), sums: b[8:]}, nil
}

// Range reads a part of a section that is stored as it is: the bytes from off to end of
// it. It checks them by the pieces of the file.
func (f *File) Range(p *Pieces, kind Kind, off, end int64) ([]byte, error) {
	s, ok := f.Find(kind)
	if !ok || s.Encoding != Raw || off < 0 || off > end || end > s.Stored {
		return nil, fmt.Errorf("%w: %v: no bytes %d to %d", ErrInvalid, kind, off, end)
	}
	return p.ReadRange(f.Src, s.Off+off, s.Off+end)
}

// A pieceSummer computes the sums of pieces of what is written to it.
type pieceSummer struct {
	sum  hash.Hash
	n    int // bytes in sum
	all  int64
	sums []byte
}

func newPieceSummer() *pieceSummer { return &pieceSummer{sum: sha256.New()} }

// Write never fails.
func (p *pieceSummer) Write(b []byte) (int, error) {
	n := len(b)
	p.all += int64(n)
	for len(b) > 0 {
		k := min(len(b), PieceSize-p.n)
		p.sum.Write(b[:k])
		if p.n += k; p.n == PieceSize {
			p.end()
		}
		b = b[k:]
	}
	return n, nil
}

func (p *pieceSummer) end() {
	p.sums = p.sum.Sum(p.sums)
	p.sum.Reset()
	p.n = 0
}

// finish returns the sums, of which the last may be of a shorter piece.
func (p *pieceSummer) finish() []byte {
	if p.n > 0 {
		p.end()
	}
	return p.sums
}

// piecesLen returns how many bytes the sums of the pieces of so many bytes take.
func piecesLen(size int64) int64 { return (size + PieceSize - 1) / PieceSize * sha256.Size }
