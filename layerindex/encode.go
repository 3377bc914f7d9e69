package layerindex

import (
	"crypto/sha256"
	"io"
	"slices"

	"github.com/imgfs/imgfs/layerindex/internal/codec"
)

// A draft is what one pass over a layer collects for its index.
type draft struct {
	head   header // without sections
	cols   columnWriter
	chunks []byte
	spans  spanWriter
}

// finish encodes the draft, which it uses up, and returns it as an Index over
// the encoded bytes.
func (d *draft) finish(digests bool) (*Index, error) {
	p, err := newPacker()
	if err != nil {
		return nil, err
	}
	defer p.close()
	d.head.entries = d.cols.n
	d.head.checkpoints = d.spans.n
	if err := d.spans.finish(); err != nil {
		return nil, err
	}
	raw := d.cols.finish()
	entries, err := p.packFrom(raw, d.cols.moveTo)
	if err != nil {
		return nil, err
	}
	spans := d.spans.section()
	sections := []draftSection{
		{sectionEntries, encodingZstd, raw, entries},
		{sectionChunks, encodingRaw, int64(len(d.chunks)), column{[][]byte{d.chunks}, int64(len(d.chunks))}},
		{sectionSpans, encodingZstd, int64(len(spans)), packed(p, spans)},
		{sectionWindows, encodingRaw, d.spans.windows.size, d.spans.windows},
		{sectionDigests, encodingRaw, d.cols.digests.size, d.cols.digests},
	}
	if !digests {
		sections = sections[:len(sections)-1]
	}
	return d.assemble(sections)
}

// A draftSection is a section as it goes into the file.
type draftSection struct {
	kind     sectionKind
	encoding uint32
	raw      int64 // decoded length
	stored   column
}

func packed(p *packer, raw []byte) column {
	b := p.pack(raw)
	return column{[][]byte{b}, int64(len(b))}
}

// assemble makes the file of its sections.
func (d *draft) assemble(sections []draftSection) (*Index, error) {
	off := int64(headerLen(len(sections)))
	var file pieces
	for _, s := range sections {
		sum := sha256.New()
		for _, p := range s.stored.pieces {
			sum.Write(p)
		}
		d.head.sections = append(d.head.sections, sectionInfo{
			kind: s.kind, encoding: s.encoding, off: off,
			stored: s.stored.size, raw: s.raw, sum: [32]byte(sum.Sum(nil)),
		})
		file.list = append(file.list, s.stored.pieces...)
		off += s.stored.size
	}
	file.list = slices.Insert(file.list, 0, d.head.append(nil))
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

// A spanWriter collects checkpoints. Their windows are compressed as soon as a
// batch of them is whole.
type spanWriter struct {
	budget  *Budget
	packer  *packer // made with the first window
	n       int64
	in, out int64
	cols    [4]column
	batch   []codec.Checkpoint
	batches column
	nBatch  uint64
	windows column
}
