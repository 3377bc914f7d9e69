// Package indexfile is the file of a layer index as a container: a header, and
// sections with a checksum each, which are decoded one at a time. What is in a
// section is for package layerindex. docs/index-format.md specifies both.
package indexfile

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// ErrInvalid says that an index file is damaged, or of a version that is not
// known. It comes wrapped.
var ErrInvalid = errors.New("invalid layer index")

// A SourceError says that an index could not be read, whatever it holds. It is not
// ErrInvalid.
type SourceError struct{ Err error }

// Error tells the cause.
func (e *SourceError) Error() string { return "layer index cannot be read: " + e.Err.Error() }

// Unwrap returns the cause.
func (e *SourceError) Unwrap() error { return e.Err }

// Invalid says of a part of an index that it is wrong: what was read of it, or that it
// ends too early. It is ErrInvalid unless it is a SourceError.
func Invalid(part string, err error) error {
	if src := (*SourceError)(nil); errors.As(err, &src) {
		return fmt.Errorf("%s: %w", part, src)
	}
	return fmt.Errorf("%w: %s: %w", ErrInvalid, part, err)
}

const (
	magic = "imgfsidx"
	// Version is the version of the format that is written, oldVersion another that
	// is read.
	Version    = 2
	oldVersion = 1
	// FixedLen is the length of the part of the header before the section table,
	// RowLen that of a row of the table, both in bytes.
	FixedLen = 128
	RowLen   = 64
	// MaxSections is how many sections a file may have.
	MaxSections = 64
	// MaxSection caps what one section may decode to: an index of some 30
	// million entries. What is allocated follows the bytes that are there.
	MaxSection = 2 << 30
	// smallSection is how long a section may be to be encoded and decoded in one
	// piece, which is faster.
	smallSection = 4 << 20
)

// A Kind is what is in a section.
type Kind uint32

// The kinds of sections that this program knows.
const (
	Entries Kind = iota + 1
	Chunks
	Spans
	Windows
	Digests
	Proofs
	First
	PieceSums
	DigestPieces
)

// String returns "section" and the number.
func (k Kind) String() string { return fmt.Sprintf("section %d", uint32(k)) }

// The encodings of sections.
const (
	Raw  = 0
	Zstd = 1
)

// A Section is one row of the section table.
type Section struct {
	Kind     Kind
	Encoding uint32
	Off      int64    // in the file
	Stored   int64    // length in the file, in bytes
	Raw      int64    // decoded length, in bytes
	Sum      [32]byte // SHA-256 of what is stored
}

// knows reports whether this program knows what is in the sections of a kind.
func (h *Header) knows(k Kind) bool {
	last := DigestPieces
	if h.Version == oldVersion {
		last = Digests
	}
	return k >= Entries && k <= last
}

// decodes reports whether a section is encoded as this program can decode. What is
// compressed is not much longer for it, so that whoever knows how long a section may be
// can read it.
func (s *Section) decodes() bool {
	switch {
	case s.Raw < 0 || s.Raw > MaxSection:
		return false
	case s.Encoding == Zstd:
		return s.Stored <= Longest(s.Raw)
	}
	return s.Encoding == Raw && s.Raw == s.Stored
}

// Longest returns how long a zstd frame may be that decodes to so many bytes.
func Longest(raw int64) int64 { return raw + raw/64 + 1024 }

// A Header is the decoded header of an index file. What it says of the layer is not
// checked here, but that the sections are where it says.
type Header struct {
	Version      uint32
	Codec        byte // by its number, 0 for a plain tar
	Space        byte // 0 of an old version, as the following
	ProofKind    byte
	Origin       byte
	Losses       byte
	Proofs       uint32 // how many
	ChunkSize    uint32
	Blob, DiffID [32]byte
	BlobSize     int64
	TarSize      int64
	Entries      int64
	Checkpoints  int64
	Sections     []Section
}

// Find returns the section of a kind, if there is one.
func (h *Header) Find(kind Kind) (Section, bool) {
	for _, s := range h.Sections {
		if s.Kind == kind {
			return s, true
		}
	}
	return Section{}, false
}

// Has reports whether there is a section of a kind.
func (h *Header) Has(kind Kind) bool {
	_, ok := h.Find(kind)
	return ok
}

// Plain returns what the header says of the layer and the parts of its index, and
// nothing of the file.
func (h *Header) Plain() *Header {
	plain := *h
	plain.Version, plain.Sections = Version, nil
	for _, k := range [...]Kind{Entries, Chunks, Spans, Windows, Digests, Proofs, First, DigestPieces} {
		if s, ok := h.Find(k); ok {
			s.Off = 0
			plain.Sections = append(plain.Sections, s)
		}
	}
	return &plain
}

// Append appends the encoded header to b.
func (h *Header) Append(b []byte) []byte {
	start := len(b)
	le := binary.LittleEndian
	b = append(b, magic...)
	b = le.AppendUint32(b, h.Version)
	b = le.AppendUint32(b, uint32(HeaderLen(len(h.Sections))))
	b = append(b, h.Codec, h.Space|h.ProofKind<<4, h.Origin, h.Losses)
	b = le.AppendUint32(b, h.ChunkSize)
	b = append(b, h.Blob[:]...)
	b = append(b, h.DiffID[:]...)
	for _, v := range []int64{h.BlobSize, h.TarSize, h.Entries, h.Checkpoints} {
		b = le.AppendUint64(b, uint64(v))
	}
	b = le.AppendUint32(b, uint32(len(h.Sections)))
	b = le.AppendUint32(b, h.Proofs)
	for _, s := range h.Sections {
		b = le.AppendUint32(b, uint32(s.Kind))
		b = le.AppendUint32(b, s.Encoding)
		for _, v := range []int64{s.Off, s.Stored, s.Raw} {
			b = le.AppendUint64(b, uint64(v))
		}
		b = append(b, s.Sum[:]...)
	}
	sum := sha256.Sum256(b[start:])
	return append(b, sum[:]...)
}

// HeaderLen returns the length in bytes of a header with so many sections.
func HeaderLen(sections int) int { return FixedLen + sections*RowLen + sha256.Size }

// readHeader reads and checks the header of an index file of a given size, or of the one
// that the header says it has if size is negative.
func readHeader(src io.ReaderAt, size int64) (*Header, error) {
	var fixed [FixedLen]byte
	if err := readFull(src, fixed[:], 0); err != nil {
		return nil, Invalid("header", err)
	}
	le := binary.LittleEndian
	if string(fixed[:8]) != magic {
		return nil, fmt.Errorf("%w: not an index file", ErrInvalid)
	}
	version := le.Uint32(fixed[8:])
	if version != Version && version != oldVersion {
		return nil, fmt.Errorf("%w: version %d, this program reads versions %d and %d", ErrInvalid, version, oldVersion, Version)
	}
	n := int(le.Uint32(fixed[120:]))
	if n > MaxSections || int(le.Uint32(fixed[12:])) != HeaderLen(n) {
		return nil, fmt.Errorf("%w: header length", ErrInvalid)
	}
	all := make([]byte, HeaderLen(n))
	if err := readFull(src, all, 0); err != nil {
		return nil, Invalid("header", err)
	}
	body, sum := all[:len(all)-sha256.Size], all[len(all)-sha256.Size:]
	if got := sha256.Sum256(body); !bytes.Equal(got[:], sum) {
		return nil, fmt.Errorf("%w: header checksum", ErrInvalid)
	}
	if version == oldVersion && ([3]byte(body[17:20]) != [3]byte{} || le.Uint32(body[124:]) != 0) {
		return nil, fmt.Errorf("%w: header: not zero", ErrInvalid)
	}
	h := Decode(body, n)
	if size < 0 {
		size = h.end()
	}
	return h, h.check(size)
}

// Decode decodes the fixed part of a header and the rows of so many sections.
func Decode(b []byte, sections int) *Header {
	le := binary.LittleEndian
	h := &Header{
		Version:     le.Uint32(b[8:]),
		Codec:       b[16],
		Space:       b[17] & 0x0f,
		ProofKind:   b[17] >> 4,
		Origin:      b[18],
		Losses:      b[19],
		Proofs:      le.Uint32(b[124:]),
		ChunkSize:   le.Uint32(b[20:]),
		Blob:        [32]byte(b[24:]),
		DiffID:      [32]byte(b[56:]),
		BlobSize:    int64(le.Uint64(b[88:])),
		TarSize:     int64(le.Uint64(b[96:])),
		Entries:     int64(le.Uint64(b[104:])),
		Checkpoints: int64(le.Uint64(b[112:])),
	}
	for i := range sections {
		row := b[FixedLen+i*RowLen:]
		h.Sections = append(h.Sections, Section{
			Kind:     Kind(le.Uint32(row)),
			Encoding: le.Uint32(row[4:]),
			Off:      int64(le.Uint64(row[8:])),
			Stored:   int64(le.Uint64(row[16:])),
			Raw:      int64(le.Uint64(row[24:])),
			Sum:      [32]byte(row[32:]),
		})
	}
	return h
}

// end returns where the last section ends.
func (h *Header) end() int64 {
	if len(h.Sections) == 0 {
		return int64(HeaderLen(0))
	}
	last := h.Sections[len(h.Sections)-1]
	return last.Off + last.Stored
}

// check compares the section table with the size of the file.
func (h *Header) check(size int64) error {
	end := int64(HeaderLen(len(h.Sections)))
	seen := map[Kind]bool{}
	for _, s := range h.Sections {
		if seen[s.Kind] || s.Off != end || s.Stored < 0 || s.Stored > size-end || h.knows(s.Kind) && !s.decodes() {
			return fmt.Errorf("%w: %v", ErrInvalid, s.Kind)
		}
		seen[s.Kind] = true
		end += s.Stored
	}
	if end != size {
		return fmt.Errorf("%w: file of %d bytes, its sections end at %d", ErrInvalid, size, end)
	}
	for _, k := range h.needed() {
		if !seen[k] {
			return fmt.Errorf("%w: %v is missing", ErrInvalid, k)
		}
	}
	if h.Version == oldVersion {
		return nil
	}
	if seen[Chunks] && seen[Proofs] || h.Space != 0 && seen[Windows] || seen[Digests] && seen[DigestPieces] {
		return fmt.Errorf("%w: sections that do not go together", ErrInvalid)
	}
	if p := h.Sections[0]; p.Kind != PieceSums || p.Encoding != Raw || p.Stored != piecesLen(size-p.Off-p.Stored) {
		return fmt.Errorf("%w: %v", ErrInvalid, PieceSums)
	}
	return nil
}

// needed lists the sections that must be there.
func (h *Header) needed() []Kind {
	kinds := []Kind{Entries, Spans}
	if h.ProofKind == 0 {
		kinds = append(kinds, Chunks)
	} else {
		kinds = append(kinds, Proofs)
	}
	if h.Version != oldVersion {
		kinds = append(kinds, PieceSums)
	}
	if h.Checkpoints > 0 && h.Space == 0 {
		kinds = append(kinds, Windows)
	}
	return kinds
}

// readFull fills b. An io.ReaderAt may say io.EOF with the last byte, or for
// none at the end.
func readFull(src io.ReaderAt, b []byte, off int64) error {
	if n, err := src.ReadAt(b, off); n < len(b) {
		return err
	}
	return nil
}
