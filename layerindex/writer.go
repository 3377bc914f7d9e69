package layerindex

import (
	"crypto/sha256"

	"github.com/imgfs/imgfs/layerindex/internal/codec"
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

// A Writer makes an index of the entries, checkpoints and chunks of a layer. AddEntry,
// AddCheckpoints and AddChunk may be called at the same time, each by one goroutine.
type Writer struct {
	opts   WriterOptions
	cols   columnWriter
	chunks []byte
	spans  spanWriter
}

// NewWriter returns a Writer of an index with nothing in it.
func NewWriter(opts *WriterOptions) *Writer {
	w := &Writer{}
	if opts != nil {
		w.opts = *opts
	}
	w.cols.budget, w.spans.budget = w.opts.Budget, w.opts.Budget
	return w
}

// AddEntry adds the next entry of the tar. It keeps the strings of e, and no slice.
// The error wraps ErrEntries or ErrMetadata if there is no room for it.
func (w *Writer) AddEntry(e *Entry) error { return w.cols.add(e) }

// AddCheckpoints adds the next places in the blob where decoding can start. It keeps
// their windows until it has compressed them. The error wraps ErrMetadata if there is
// no room.
func (w *Writer) AddCheckpoints(points []codec.Checkpoint) error { return w.spans.add(points) }

// AddChunk adds the SHA-256 of the next chunk of the blob.
func (w *Writer) AddChunk(sum [sha256.Size]byte) { w.chunks = append(w.chunks, sum[:]...) }

// A Summary holds the facts about a layer as a whole.
type Summary struct {
	Codec     Codec
	Blob      [sha256.Size]byte // digest
	BlobSize  int64             // in bytes
	ChunkSize int64             // in bytes, of all chunks but the last; a multiple of 4,096
	DiffID    [sha256.Size]byte // digest of the uncompressed tar
	TarSize   int64             // in bytes
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
	spans := w.spans.section()
	parts := []indexfile.Part{
		{Kind: indexfile.Entries, Encoding: indexfile.Zstd, Raw: raw, Stored: entries},
		{Kind: indexfile.Chunks, Encoding: indexfile.Raw, Raw: int64(len(w.chunks)), Stored: column.Of(w.chunks)},
		{Kind: indexfile.Spans, Encoding: indexfile.Zstd, Raw: int64(len(spans)), Stored: column.Of(p.Pack(spans))},
		{Kind: indexfile.Windows, Encoding: indexfile.Raw, Raw: w.spans.windows.Size, Stored: w.spans.windows},
		{Kind: indexfile.Digests, Encoding: indexfile.Raw, Raw: w.cols.digests.Size, Stored: w.cols.digests},
	}
	if w.opts.NoDigests {
		parts = parts[:len(parts)-1]
	}
	file, err := indexfile.Assemble(indexfile.Header{
		Codec: byte(layer.Codec), ChunkSize: uint32(layer.ChunkSize),
		Blob: layer.Blob, DiffID: layer.DiffID, BlobSize: layer.BlobSize, TarSize: layer.TarSize,
		Entries: w.cols.n, Checkpoints: w.spans.n,
	}, parts)
	if err == nil {
		err = checkHeader(&file.Header)
	}
	if err != nil {
		return nil, err
	}
	return &Index{file: file}, nil
}

// Close frees the memory of a Writer that was not finished. After Finish it does
// nothing.
func (w *Writer) Close() { w.spans.close() }
