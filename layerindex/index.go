package layerindex

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"

	"github.com/imgfs/imgfs/layerindex/internal/column"
	"github.com/imgfs/imgfs/layerindex/internal/indexfile"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
)

// A Codec is how a layer's tar is compressed.
type Codec uint8

// The codecs, by their number in the index file.
const (
	Plain Codec = iota
	Gzip
	Zstd
)

// String returns the codec's usual name.
func (c Codec) String() string {
	switch c {
	case Plain:
		return "tar"
	case Gzip:
		return "gzip"
	case Zstd:
		return "zstd"
	}
	return fmt.Sprintf("codec(%d)", uint8(c))
}

// MaxSize is how large a blob or a tar may claim to be, in bytes: sums of two sizes
// and roundings stay far from the largest number there is.
const MaxSize = 1 << 60

// A Layer holds what an image's manifest and config say of a layer.
type Layer struct {
	Digest digest.Digest // of the blob
	Size   int64         // of the blob, in bytes
	DiffID digest.Digest // of the uncompressed tar
}

// An Index is everything needed to list a layer and to read any byte of it.
// It is immutable and safe for concurrent use. Its parts are read from the index
// file when they are needed, and compared with their checksums each time. A part with
// a wrong checksum gives an error that wraps ErrIndex. Errors are not remembered: the
// next call reads the part again.
type Index struct {
	file   indexfile.File
	closer io.Closer // of the file, nil unless the index is from OpenIndex or OpenPublished

	far bool // from OpenPublished
	// digests are the digests of content of an index that was published, if they can
	// be had.
	digests io.ReaderAt

	spanTable    lazy[*Spans]
	proofTable   lazy[*Proofs]
	pieces       lazy[*Pieces]
	digestPieces lazy[*Pieces]
	windowsOf    lazy[[]byte]
	unpacker     lazy[*zstd.Decoder]
}

// ReadIndex returns the index that is stored in the first size bytes of src,
// which must stay readable as long as the index is used. It reads and checks
// the header only.
func ReadIndex(src io.ReaderAt, size int64) (*Index, error) {
	f, err := indexfile.Open(src, size) // of the size that the header says, for ReadPart
	if err == nil {
		err = checkHeader(&f.Header)
	}
	if err != nil {
		return nil, err
	}
	return &Index{file: f}, nil
}

// checkHeader checks what a header says of the layer.
func checkHeader(h *indexfile.Header) error {
	c, contents := Codec(h.Codec), Space(h.Space) == SpaceContents
	switch {
	case c > Zstd:
		return fmt.Errorf("%w: unknown codec %d", ErrIndex, h.Codec)
	case Space(h.Space) > SpaceContents || ProofKind(h.ProofKind) > ProofOutput || Origin(h.Origin) > OriginSOCI || Loss(h.Losses)&^lossesKnown != 0:
		return fmt.Errorf("%w: unknown %v, %v, %v or %v", ErrIndex, Space(h.Space), ProofKind(h.ProofKind), Origin(h.Origin), Loss(h.Losses))
	case contents != (ProofKind(h.ProofKind) == ProofOutput) || contents && c == Plain:
		return fmt.Errorf("%w: %v proofs of %v in the space of %v", ErrIndex, ProofKind(h.ProofKind), c, Space(h.Space))
	case ProofKind(h.ProofKind) == ProofChunks && (h.ChunkSize == 0 || h.ChunkSize%4096 != 0 || h.Proofs != 0):
		return fmt.Errorf("%w: chunk size %d, %d proofs", ErrIndex, h.ChunkSize, h.Proofs)
	case ProofKind(h.ProofKind) != ProofChunks && h.ChunkSize != 0:
		return fmt.Errorf("%w: chunk size %d", ErrIndex, h.ChunkSize)
	case h.BlobSize < 0 || h.BlobSize > MaxSize || h.TarSize < 0 || h.TarSize > MaxSize || h.Entries < 0 || h.Checkpoints < 0:
		return fmt.Errorf("%w: size out of range", ErrIndex)
	case c == Plain && h.TarSize != h.BlobSize:
		return fmt.Errorf("%w: plain tar of %d bytes in a blob of %d", ErrIndex, h.TarSize, h.BlobSize)
	case contents && h.TarSize%tarBlock != 0:
		return fmt.Errorf("%w: contents end at %d", ErrIndex, h.TarSize)
	// In contents space nothing to decode needs no checkpoint.
	case (c == Plain) != (h.Checkpoints == 0) && !(contents && h.TarSize == 0):
		return fmt.Errorf("%w: %d checkpoints for %v", ErrIndex, h.Checkpoints, c)
	}
	return checkLengths(h)
}

// checkLengths checks how long parts are that are read whole, so that nobody needs more
// memory for one than a Budget counts.
func checkLengths(h *indexfile.Header) error {
	const number = 10 // the most bytes that a number takes
	for kind, most := range map[indexfile.Kind]int64{
		indexfile.Spans:  5*number + min(h.Checkpoints, indexfile.MaxSection)*(6*number+1),
		indexfile.Proofs: 2*number + int64(h.Proofs)*(2*number+sha256.Size),
		indexfile.First:  number + maxFirst*2*number,
	} {
		if s, ok := h.Find(kind); ok && s.Raw > most {
			return fmt.Errorf("%w: %v of %d bytes", ErrIndex, kind, s.Raw)
		}
	}
	return nil
}

// OpenIndex returns the index in an index file. It reads and checks the header
// only. Closing the index closes the file, which is the caller's if there is an
// error.
func OpenIndex(f *os.File) (*Index, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	x, err := ReadIndex(f, st.Size())
	if err != nil {
		return nil, err
	}
	x.closer = f
	return x, nil
}

// windows returns a part of the section of windows: size bytes at off. Of an index far
// away it reads that part. Of any other the section stays in memory, because to check the
// pieces that hold a part makes a random read slower by a twentieth.
func (x *Index) windows(off, size int64) ([]byte, error) {
	if x.far {
		p, err := x.Pieces()
		if err != nil {
			return nil, err
		}
		return x.file.Range(p, indexfile.Windows, off, off+size)
	}
	all, err := x.windowsOf.get(func() ([]byte, error) { return x.file.Section(indexfile.Windows) })
	if err != nil {
		return nil, err
	}
	if off > int64(len(all)) || size > int64(len(all))-off {
		return nil, column.ErrShort
	}
	return all[off : off+size], nil
}

func (x *Index) zstd() (*zstd.Decoder, error) { return x.unpacker.get(indexfile.NewUnpacker) }

// WriteTo writes the index file to w.
func (x *Index) WriteTo(w io.Writer) (int64, error) { return x.file.WriteTo(w) }

// CheckSums reads all parts of the index and compares them with their checksums.
// The error wraps ErrIndex, or is ctx.Err().
func (x *Index) CheckSums(ctx context.Context) error { return x.file.CheckSums(ctx) }

// Close closes the file of an index that OpenIndex or OpenPublished returned. For any
// other index it does nothing. The index must not be used any more.
func (x *Index) Close() error {
	if x.closer == nil {
		return nil
	}
	return x.closer.Close()
}

// OnDisk reports whether the index is from OpenIndex or OpenPublished. Any other is in
// memory, or where its caller has it.
func (x *Index) OnDisk() bool { return x.closer != nil }

// Closer returns what Close closes: the file of an index that OpenIndex returned, the
// closer that OpenPublished was given, or nil.
func (x *Index) Closer() io.Closer { return x.closer }

// Digest returns the digest of the layer's blob.
func (x *Index) Digest() digest.Digest { return sha256Digest(x.file.Blob[:]) }

// DiffID returns the digest of the layer's uncompressed tar.
func (x *Index) DiffID() digest.Digest { return sha256Digest(x.file.DiffID[:]) }

// BlobSize returns the size of the layer's blob in bytes.
func (x *Index) BlobSize() int64 { return x.file.BlobSize }

// Size returns where the out space ends: in tar space the size of the uncompressed
// layer in bytes.
func (x *Index) Size() int64 { return x.file.TarSize }

// Codec returns how the layer is compressed.
func (x *Index) Codec() Codec { return Codec(x.file.Codec) }

// NumEntries returns the number of tar entries.
func (x *Index) NumEntries() int { return int(x.file.Entries) }

// NumSpans returns the number of spans, at least one; a plain tar has one.
func (x *Index) NumSpans() int { return max(1, int(x.file.Checkpoints)) }

// EncodedSize returns the size of the index file in bytes.
func (x *Index) EncodedSize() int64 { return x.file.Size }

// ChunkSize returns the size in bytes of the blob's chunks. The last one may be
// shorter. It is 0 if the index does not have ProofChunks.
func (x *Index) ChunkSize() int64 { return int64(x.file.ChunkSize) }

// ChunkSums returns the SHA-256 of every chunk of the blob, 32 bytes each in
// order. The error wraps ErrIndex, also if the index does not have ProofChunks.
func (x *Index) ChunkSums() ([]byte, error) {
	if x.ProofKind() != ProofChunks {
		return nil, fmt.Errorf("%w: no chunk sums, but proofs of %v", ErrIndex, x.ProofKind())
	}
	s, _ := x.file.Find(indexfile.Chunks)
	if want := chunkCount(x.file.BlobSize, x.ChunkSize()) * 32; s.Raw != want {
		return nil, fmt.Errorf("%w: %d bytes of chunk sums, want %d", ErrIndex, s.Raw, want)
	}
	return x.file.Section(indexfile.Chunks)
}

// Entries returns the layer's entries, without the digests of their content. All of
// them are checked before it returns. Several goroutines may range over the sequence,
// more than once. List does the same within a budget.
func (x *Index) Entries() (Entries, error) {
	d, err := x.List(context.Background(), nil)
	if err != nil {
		return nil, err
	}
	return d.All(), nil
}

// EntriesWithDigests is Entries with the digests of content, if the index has them.
// They are read from the file each time. One goroutine at a time may range over the
// sequence.
func (x *Index) EntriesWithDigests() (Entries, error) {
	d, err := x.ListDigests(context.Background())
	if err != nil {
		return nil, err
	}
	return d.All(), nil
}

// ListDigests is List with the digests of content, if the index has them. The Listing
// reads the digests from the file as it yields them, until ctx ends. After the last
// entry its Err says whether they were right.
func (x *Index) ListDigests(ctx context.Context) (*Listing, error) {
	d, err := x.List(ctx, nil)
	if err != nil || !x.HasDigests() {
		return d, err
	}
	if err := x.checkDigests(ctx, d.flagged); err != nil {
		return nil, err
	}
	d.digests = func() (*indexfile.SectionReader, error) { return x.openDigests(ctx, d.flagged) }
	return d, nil
}

// SameEntries reports whether another index of the same layer lists the same entries in
// the same space, by the checksums in the headers. If so, places of files that were read
// from one index hold for the other.
func (x *Index) SameEntries(y *Index) bool {
	a, _ := x.file.Find(indexfile.Entries)
	b, _ := y.file.Find(indexfile.Entries)
	return x.file.Blob == y.file.Blob && x.file.TarSize == y.file.TarSize && x.file.Entries == y.file.Entries &&
		x.file.Space == y.file.Space && a.Sum == b.Sum && a.Encoding == b.Encoding && a.Raw == b.Raw
}

// Equal reports whether two indexes say the same, by the checksums of their parts. They
// may be of different versions of the format.
func (x *Index) Equal(y *Index) bool {
	a, b := x.file.Plain(), y.file.Plain()
	return bytes.Equal(a.Append(nil), b.Append(nil))
}

// Verify reads every part of the index, compares it with its checksum and decodes it.
// The error wraps ErrIndex, or is ctx.Err().
func (x *Index) Verify(ctx context.Context) error {
	// Parts that were read before are read again: they may be wrong by now.
	was := x
	x, err := ReadIndex(was.file.Src, was.file.Size)
	if err != nil {
		return err
	}
	x.far, x.digests = was.far, was.digests
	if err := x.CheckSums(ctx); err != nil {
		return err
	}
	if _, err := x.ListDigests(ctx); err != nil {
		return err
	}
	if err := x.verifyProofs(); err != nil || x.Codec() == Plain {
		return err
	}
	spans, err := x.Spans()
	if err != nil {
		return err
	}
	for _, b := range spans.batches {
		if err := ctx.Err(); err != nil {
			return err
		}
		// The last window of a batch cannot be read without the others.
		if _, err := x.window(b, b.n-1); err != nil {
			return indexfile.Invalid(fmt.Sprintf("window %d", b.first+b.n-1), err)
		}
	}
	return nil
}

// verifyProofs is Verify for what the layer's bytes are checked against, for what to
// fetch first, and for the pieces.
func (x *Index) verifyProofs() error {
	if x.file.Version == indexfile.Version {
		if err := x.verifyPieces(); err != nil {
			return err
		}
	}
	if _, err := x.First(); err != nil {
		return err
	}
	if x.ProofKind() == ProofChunks {
		_, err := x.ChunkSums()
		return err
	}
	_, err := x.Proofs()
	return err
}

// verifyPieces compares the file with the sums of its pieces.
func (x *Index) verifyPieces() error {
	p, err := x.Pieces()
	if err != nil {
		return err
	}
	for k := range p.Len() {
		if _, err := p.ReadPiece(x.file.Src, k); err != nil {
			return err
		}
	}
	if x.file.Has(indexfile.DigestPieces) {
		_, err = x.DigestPieces()
	}
	return err
}

func sha256Digest(sum []byte) digest.Digest {
	return digest.NewDigestFromEncoded(digest.SHA256, hex.EncodeToString(sum))
}

func chunkCount(size, chunk int64) int64 { return (size + chunk - 1) / chunk }
