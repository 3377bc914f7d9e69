package layerindex

import (
	"crypto/sha256"

	"github.com/imgfs/imgfs/layerindex/internal/column"
	"github.com/imgfs/imgfs/layerindex/internal/indexfile"
)

// WriterOptions are the choices of NewWriter. Nil and zero mean the defaults.
type WriterOptions struct {
	// Budget, if not nil, bounds what names, attributes, entries and checkpoints
	// take.
	Budget *Budget
	// NoDigests leaves out the digest of every file's content.
	NoDigests bool
}

// A Writer makes an index of the entries, checkpoints, and chunks or proofs of a layer.
// AddEntry, AddCheckpoints, and AddChunk or AddProof may be called at the same time,
// each by one goroutine.
type Writer struct {
	opts   WriterOptions
	cols   columnWriter
	chunks []byte
	proofs proofWriter
	first  []Extent
	spans  spanWriter
}

// NewWriter returns a Writer of an index with nothing in it.
func NewWriter(opts *WriterOptions) *Writer {
	w := &Writer{}
	if opts != nil {
		w.opts = *opts
	}
	w.cols.budget, w.spans.budget, w.proofs.budget = w.opts.Budget, w.opts.Budget, w.opts.Budget
	return w
}

// AddEntry adds the next entry of the tar. It keeps the strings of e, and no slice.
// The error wraps ErrEntries or ErrMetadata if there is no room for it.
func (w *Writer) AddEntry(e *Entry) error { return w.cols.add(e) }

// AddCheckpoints adds the next places in the blob where decoding can start. It keeps
// their windows until it has compressed them. The error wraps ErrMetadata if there is
// no room, and ErrIndex if a place is before the last one.
func (w *Writer) AddCheckpoints(points []Checkpoint) error { return w.spans.add(points) }

// AddChunk adds the SHA-256 of the next chunk of the blob.
func (w *Writer) AddChunk(sum [sha256.Size]byte) { w.chunks = append(w.chunks, sum[:]...) }

// AddProof adds the next proof of an index of ProofBlob or ProofOutput, in the order of
// their offsets. The error wraps ErrMetadata if there is no room, and ErrIndex if the
// proof cannot come next.
func (w *Writer) AddProof(p Proof) error { return w.proofs.add(p) }

// AddFirst adds a range of the blob that is worth fetching before anything is read, in
// the order of their use. An index has room for 4,096 of them; empty ones, and what is
// more, are left out.
func (w *Writer) AddFirst(e Extent) {
	if e.Size > 0 && len(w.first) < maxFirst {
		w.first = append(w.first, e)
	}
}

// A Summary holds the facts about a layer as a whole.
type Summary struct {
	Codec     Codec
	Blob      [sha256.Size]byte // digest
	BlobSize  int64             // in bytes
	ChunkSize int64             // in bytes, of all chunks but the last; a multiple of 4,096. For ProofChunks only
	DiffID    [sha256.Size]byte // digest of the uncompressed tar: as the image says if nobody has compared it
	TarSize   int64             // in bytes: where the out space ends, in contents space rounded up to 512
	Space     Space             // ProofOutput goes with SpaceContents, and no other with it
	Proof     ProofKind
	Origin    Origin
	Losses    Loss
}

// Finish returns the index, which is in memory. The Writer must not be used any more.
func (w *Writer) Finish(layer Summary) (*Index, error) {
	p, err := indexfile.NewPacker()
	if err != nil {
		return nil, err
	}
	defer p.Close()
	if err := w.spans.finish(); err != nil {
		return nil, err
	}
	raw := w.cols.finish()
	entries, err := p.PackFrom(raw, w.cols.moveTo)
	if err != nil {
		return nil, err
	}
	proofs, err := w.proofParts(layer.Proof)
	if err != nil {
		return nil, err
	}
	if layer.Proof != ProofChunks {
		layer.ChunkSize = 0
	}
	if layer.Space == SpaceContents {
		layer.TarSize = roundUp(layer.TarSize)
	}
	spans := w.spans.section(layer.Space)
	parts := append([]indexfile.Part{
		{Kind: indexfile.Entries, Encoding: indexfile.Zstd, Raw: raw, Stored: entries},
		{Kind: indexfile.Spans, Encoding: indexfile.Zstd, Raw: int64(len(spans)), Stored: column.Of(p.Pack(spans))},
	}, proofs...)
	if len(w.first) > 0 {
		parts = append(parts, rawPart(indexfile.First, firstSection(w.first)))
	}
	if layer.Space == SpaceTar {
		parts = append(parts, rawPart(indexfile.Windows, w.spans.windows))
	}
	if !w.opts.NoDigests {
		parts = append(parts, rawPart(indexfile.Digests, w.cols.digests))
	}
	file, err := indexfile.Assemble(indexfile.Header{
		Codec: byte(layer.Codec), ChunkSize: uint32(layer.ChunkSize),
		Space: byte(layer.Space), ProofKind: byte(layer.Proof), Origin: byte(layer.Origin), Losses: byte(layer.Losses),
		Blob: layer.Blob, DiffID: layer.DiffID, BlobSize: layer.BlobSize, TarSize: layer.TarSize,
		Entries: w.cols.n, Checkpoints: w.spans.n, Proofs: uint32(w.proofs.n),
	}, parts)
	if err == nil {
		err = checkHeader(&file.Header)
	}
	if err != nil {
		return nil, err
	}
	return &Index{file: file}, nil
}

// rawPart is a part that is stored as it is.
func rawPart(kind indexfile.Kind, all column.Column) indexfile.Part {
	return indexfile.Part{Kind: kind, Encoding: indexfile.Raw, Raw: all.Size, Stored: all}
}

// Close frees the memory of a Writer that was not finished. After Finish it does
// nothing.
func (w *Writer) Close() { w.spans.close() }
