package layerindex

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/imgfs/imgfs/layerindex/internal/column"
	"github.com/klauspost/compress/zstd"
)

// The index file is specified in docs/index-format.md.
const (
	magic         = "imgfsidx"
	formatVersion = 1
	fixedHeader   = 128
	sectionRow    = 64
	maxSections   = 64
	// maxSection caps what one section may decode to: an index of some 30
	// million entries. What is allocated follows the bytes that are there.
	maxSection = 2 << 30
	// windowBatch is how many windows are compressed together.
	windowBatch = 8
	// smallSection is how long a section may be to be encoded and decoded in one
	// piece, which is faster.
	smallSection = 4 << 20
)

// MaxSize is how large a blob or a tar may claim to be, in bytes: sums of two sizes
// and roundings stay far from the largest number there is.
const MaxSize = 1 << 60

type sectionKind uint32

const (
	sectionEntries sectionKind = iota + 1
	sectionChunks
	sectionSpans
	sectionWindows
	sectionDigests
)

const (
	encodingRaw  = 0
	encodingZstd = 1
)

// A sectionInfo is one row of the section table.
type sectionInfo struct {
	kind     sectionKind
	encoding uint32
	off      int64 // in the file
	stored   int64
	raw      int64
	sum      [32]byte
}

// known reports whether this program knows what is in the section.
func (s *sectionInfo) known() bool { return s.kind >= sectionEntries && s.kind <= sectionDigests }

// decodes reports whether a section is encoded as this program can decode.
func (s *sectionInfo) decodes() bool {
	return s.raw >= 0 && s.raw <= maxSection && (s.encoding == encodingZstd || s.encoding == encodingRaw && s.raw == s.stored)
}

// A header is the decoded header of an index file.
type header struct {
	codec        Codec
	chunkSize    uint32
	blob, diffID [32]byte
	blobSize     int64
	tarSize      int64
	entries      int64
	checkpoints  int64
	sections     []sectionInfo
}

func (h *header) find(kind sectionKind) (sectionInfo, bool) {
	for _, s := range h.sections {
		if s.kind == kind {
			return s, true
		}
	}
	return sectionInfo{}, false
}

func (h *header) has(kind sectionKind) bool {
	_, ok := h.find(kind)
	return ok
}

// append appends the encoded header to b.
func (h *header) append(b []byte) []byte {
	start := len(b)
	le := binary.LittleEndian
	b = append(b, magic...)
	b = le.AppendUint32(b, formatVersion)
	b = le.AppendUint32(b, uint32(headerLen(len(h.sections))))
	b = append(b, byte(h.codec), 0, 0, 0)
	b = le.AppendUint32(b, h.chunkSize)
	b = append(b, h.blob[:]...)
	b = append(b, h.diffID[:]...)
	for _, v := range []int64{h.blobSize, h.tarSize, h.entries, h.checkpoints} {
		b = le.AppendUint64(b, uint64(v))
	}
	b = le.AppendUint32(b, uint32(len(h.sections)))
	b = le.AppendUint32(b, 0)
	for _, s := range h.sections {
		b = le.AppendUint32(b, uint32(s.kind))
		b = le.AppendUint32(b, s.encoding)
		for _, v := range []int64{s.off, s.stored, s.raw} {
			b = le.AppendUint64(b, uint64(v))
		}
		b = append(b, s.sum[:]...)
	}
	sum := sha256.Sum256(b[start:])
	return append(b, sum[:]...)
}

func headerLen(sections int) int { return fixedHeader + sections*sectionRow + sha256.Size }

// readHeader reads and checks the header of an index file of a given size.
func readHeader(src io.ReaderAt, size int64) (*header, error) {
	var fixed [fixedHeader]byte
	if err := readFull(src, fixed[:], 0); err != nil {
		return nil, fmt.Errorf("%w: header: %w", ErrIndex, err)
	}
	le := binary.LittleEndian
	if string(fixed[:8]) != magic {
		return nil, fmt.Errorf("%w: not an index file", ErrIndex)
	}
	if v := le.Uint32(fixed[8:]); v != formatVersion {
		return nil, fmt.Errorf("%w: version %d, this program reads version %d", ErrIndex, v, formatVersion)
	}
	n := int(le.Uint32(fixed[120:]))
	if n > maxSections || int(le.Uint32(fixed[12:])) != headerLen(n) {
		return nil, fmt.Errorf("%w: header length", ErrIndex)
	}
	all := make([]byte, headerLen(n))
	if err := readFull(src, all, 0); err != nil {
		return nil, fmt.Errorf("%w: header: %w", ErrIndex, err)
	}
	body, sum := all[:len(all)-sha256.Size], all[len(all)-sha256.Size:]
	if got := sha256.Sum256(body); !bytes.Equal(got[:], sum) {
		return nil, fmt.Errorf("%w: header checksum", ErrIndex)
	}
	if [3]byte(body[17:20]) != [3]byte{} || le.Uint32(body[124:]) != 0 {
		return nil, fmt.Errorf("%w: header: not zero", ErrIndex)
	}
	h := decodeHeader(body, n)
	return h, h.check(size)
}

func decodeHeader(b []byte, sections int) *header {
	le := binary.LittleEndian
	h := &header{
		codec:       Codec(b[16]),
		chunkSize:   le.Uint32(b[20:]),
		blob:        [32]byte(b[24:]),
		diffID:      [32]byte(b[56:]),
		blobSize:    int64(le.Uint64(b[88:])),
		tarSize:     int64(le.Uint64(b[96:])),
		entries:     int64(le.Uint64(b[104:])),
		checkpoints: int64(le.Uint64(b[112:])),
	}
	for i := range sections {
		row := b[fixedHeader+i*sectionRow:]
		h.sections = append(h.sections, sectionInfo{
			kind:     sectionKind(le.Uint32(row)),
			encoding: le.Uint32(row[4:]),
			off:      int64(le.Uint64(row[8:])),
			stored:   int64(le.Uint64(row[16:])),
			raw:      int64(le.Uint64(row[24:])),
			sum:      [32]byte(row[32:]),
		})
	}
	return h
}

// check holds what the header says against the size of the file.
func (h *header) check(size int64) error {
	switch {
	case h.codec > Zstd:
		return fmt.Errorf("%w: unknown codec %d", ErrIndex, h.codec)
	case h.chunkSize == 0 || h.chunkSize%4096 != 0:
		return fmt.Errorf("%w: chunk size %d", ErrIndex, h.chunkSize)
	case h.blobSize < 0 || h.blobSize > MaxSize || h.tarSize < 0 || h.tarSize > MaxSize || h.entries < 0 || h.checkpoints < 0:
		return fmt.Errorf("%w: size out of range", ErrIndex)
	case h.codec == Plain && h.tarSize != h.blobSize:
		return fmt.Errorf("%w: plain tar of %d bytes in a blob of %d", ErrIndex, h.tarSize, h.blobSize)
	case (h.codec == Plain) != (h.checkpoints == 0):
		return fmt.Errorf("%w: %d checkpoints for %v", ErrIndex, h.checkpoints, h.codec)
	}
	end := int64(headerLen(len(h.sections)))
	seen := map[sectionKind]bool{}
	for _, s := range h.sections {
		if seen[s.kind] || s.off != end || s.stored < 0 || s.stored > size-end || s.known() && !s.decodes() {
			return fmt.Errorf("%w: section %d", ErrIndex, s.kind)
		}
		seen[s.kind] = true
		end += s.stored
	}
	if end != size {
		return fmt.Errorf("%w: file of %d bytes, its sections end at %d", ErrIndex, size, end)
	}
	for _, k := range []sectionKind{sectionEntries, sectionChunks, sectionSpans} {
		if !seen[k] {
			return fmt.Errorf("%w: section %d is missing", ErrIndex, k)
		}
	}
	if h.checkpoints > 0 && !seen[sectionWindows] {
		return fmt.Errorf("%w: section %d is missing", ErrIndex, sectionWindows)
	}
	return nil
}

// readFull fills b. An io.ReaderAt may say io.EOF with the last byte, or for
// none at the end.
func readFull(src io.ReaderAt, b []byte, off int64) error {
	if n, err := src.ReadAt(b, off); n < len(b) {
		return err
	}
	return nil
}

// A packer compresses, each time one zstd frame.
type packer struct{ w *zstd.Encoder }

func newPacker() (*packer, error) {
	w, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false))
	return &packer{w}, err
}

func (p *packer) pack(b []byte) []byte { return p.w.EncodeAll(b, nil) }

// packFrom compresses what write writes, size bytes.
func (p *packer) packFrom(size int64, write func(io.Writer) error) (column.Column, error) {
	var packed column.Column
	if size <= smallSection {
		var raw bytes.Buffer
		if err := write(&raw); err != nil {
			return packed, err
		}
		_, err := packed.Write(p.pack(raw.Bytes()))
		return packed, err
	}
	p.w.ResetContentSize(&packed, size)
	if err := write(p.w); err != nil {
		return packed, err
	}
	return packed, p.w.Close()
}

func (p *packer) close() { p.w.Close() }

// newUnpacker returns a decoder for unpack, which any number of goroutines may
// use, in turn. It remembers what it decoded last.
func newUnpacker() (*zstd.Decoder, error) {
	return zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxMemory(maxSection))
}

// unpackOnce is unpack with a decoder of its own, which leaves nothing.
func unpackOnce(b []byte, size int64) ([]byte, error) {
	dec, err := newUnpacker()
	if err != nil {
		return nil, err
	}
	defer dec.Close()
	return unpack(dec, b, size)
}

// unpack decodes one zstd frame of a known decoded length.
func unpack(dec *zstd.Decoder, b []byte, size int64) ([]byte, error) {
	// What claims to be longer than this is decoded piece by piece, so that
	// memory follows what really comes out.
	if credible := int64(len(b))*256 + 1<<20; size > credible {
		return unpackSlowly(b, size)
	}
	var h zstd.Header
	if err := h.Decode(b); err != nil {
		return nil, err
	}
	if h.HasFCS && h.FrameContentSize != uint64(size) {
		return nil, errLength(size)
	}
	out, err := dec.DecodeAll(b, make([]byte, 0, size))
	if err == nil && int64(len(out)) != size {
		err = errLength(size)
	}
	return out, err
}

func errLength(size int64) error { return fmt.Errorf("decodes to another length than %d", size) }

// unpackSlowly is unpack for a length that is hard to believe.
func unpackSlowly(b []byte, size int64) ([]byte, error) {
	r, err := zstd.NewReader(bytes.NewReader(b), zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true))
	if err != nil {
		return nil, err
	}
	defer r.Close()
	out, err := io.ReadAll(io.LimitReader(r, size+1))
	if err == nil && int64(len(out)) != size {
		err = errLength(size)
	}
	return out, err
}
