package layerindex

import (
	"crypto/sha256"
	"io"
	"slices"

	"github.com/imgfs/imgfs/layerindex/internal/codec"
	"github.com/imgfs/imgfs/layerindex/internal/column"
)

// WriterOptions are the choices of NewWriter. Nil and zero mean the defaults.
type WriterOptions struct {
	// Budget, if not nil, bounds what names, attributes, entries and checkpoints
	// take.
	Budget *Budget
	// NoDigests leaves out the digest of every file's content.
	NoDigests bool
}

// A Writer makes an index of what is found in a layer. AddEntry, AddCheckpoints
// and AddChunk may be called at the same time, each by one goroutine.
type Writer struct {
	opts   WriterOptions
	head   header // without sections
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

// AddCheckpoints adds the next places in the blob where decoding can start. It
// keeps no slice of theirs. The error wraps ErrMetadata if there is no room.
func (w *Writer) AddCheckpoints(points []codec.Checkpoint) error { return w.spans.add(points) }

// AddChunk adds the SHA-256 of the next chunk of the blob.
func (w *Writer) AddChunk(sum [sha256.Size]byte) { w.chunks = append(w.chunks, sum[:]...) }

// A Summary is what an index says of its layer as a whole.
type Summary struct {
	Codec     Codec
	Blob      [sha256.Size]byte // digest
	BlobSize  int64             // in bytes
	ChunkSize int64             // in bytes, of all chunks but the last; a multiple of 4,096
	DiffID    [sha256.Size]byte // digest of the uncompressed tar
	TarSize   int64             // in bytes
}

// Finish returns the index of what was added. It is in memory. The Writer is used
// up.
func (w *Writer) Finish(layer Summary) (*Index, error) {
	w.head = header{
		codec: layer.Codec, chunkSize: uint32(layer.ChunkSize),
		blob: layer.Blob, diffID: layer.DiffID, blobSize: layer.BlobSize, tarSize: layer.TarSize,
	}
	p, err := newPacker()
	if err != nil {
		return nil, err
	}
	defer p.close()
	w.head.entries = w.cols.n
	w.head.checkpoints = w.spans.n
	if err := w.spans.finish(); err != nil {
		return nil, err
	}
	raw := w.cols.finish()
	entries, err := p.packFrom(raw, w.cols.moveTo)
	if err != nil {
		return nil, err
	}
	spans := w.spans.section()
	sections := []draftSection{
		{sectionEntries, encodingZstd, raw, entries},
		{sectionChunks, encodingRaw, int64(len(w.chunks)), column.Of(w.chunks)},
		{sectionSpans, encodingZstd, int64(len(spans)), packed(p, spans)},
		{sectionWindows, encodingRaw, w.spans.windows.Size, w.spans.windows},
		{sectionDigests, encodingRaw, w.cols.digests.Size, w.cols.digests},
	}
	if w.opts.NoDigests {
		sections = sections[:len(sections)-1]
	}
	return w.assemble(sections)
}

// Close frees what a Writer holds that was not finished.
func (w *Writer) Close() { w.spans.close() }

// A draftSection is a section as it goes into the file.
type draftSection struct {
	kind     sectionKind
	encoding uint32
	raw      int64 // decoded length
	stored   column.Column
}

func packed(p *packer, raw []byte) column.Column {
	return column.Of(p.pack(raw))
}

// assemble makes the file of its sections.
func (w *Writer) assemble(sections []draftSection) (*Index, error) {
	off := int64(headerLen(len(sections)))
	var file pieces
	for _, s := range sections {
		sum := sha256.New()
		for _, p := range s.stored.Pieces {
			sum.Write(p)
		}
		w.head.sections = append(w.head.sections, sectionInfo{
			kind: s.kind, encoding: s.encoding, off: off,
			stored: s.stored.Size, raw: s.raw, sum: [32]byte(sum.Sum(nil)),
		})
		file.list = append(file.list, s.stored.Pieces...)
		off += s.stored.Size
	}
	file.list = slices.Insert(file.list, 0, w.head.append(nil))
	file.index()
	return ReadIndex(&file, off)
}

// pieces are a file in memory that is not in one piece.
type pieces struct {
	list [][]byte
	ends []int64 // of each
}

// index notes where the pieces are.
func (p *pieces) index() {
	end := int64(0)
	for _, b := range p.list {
		end += int64(len(b))
		p.ends = append(p.ends, end)
	}
}

// ReadAt implements io.ReaderAt.
func (p *pieces) ReadAt(b []byte, off int64) (int, error) {
	i, _ := slices.BinarySearch(p.ends, off+1)
	n := 0
	for ; i < len(p.list) && n < len(b); i++ {
		from := off + int64(n) - (p.ends[i] - int64(len(p.list[i])))
		n += copy(b[n:], p.list[i][from:])
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

// WriteTo writes the index file to w.
func (x *Index) WriteTo(w io.Writer) (int64, error) {
	return io.Copy(w, io.NewSectionReader(x.src, 0, x.size))
}
