package layerindex

import (
	"bytes"
	"crypto/sha256"
	"io"

	"github.com/imgfs/imgfs/layerindex/internal/codec"
)

// A draft is what one pass over a layer collects for its index.
type draft struct {
	head   header // without sections
	cols   columnWriter
	chunks []byte
	points []codec.Checkpoint
}

// finish encodes the draft and returns it as an Index over the encoded bytes.
func (d *draft) finish(digests bool) (*Index, error) {
	d.head.entries = d.cols.n
	d.head.checkpoints = int64(len(d.points))
	p, err := newPacker()
	if err != nil {
		return nil, err
	}
	defer p.close()
	spans, windows := encodeSpans(d.points, p)
	sections := []struct {
		kind     sectionKind
		encoding uint32
		raw      []byte
	}{
		{sectionEntries, encodingZstd, d.cols.bytes()},
		{sectionChunks, encodingRaw, d.chunks},
		{sectionSpans, encodingZstd, spans},
		{sectionWindows, encodingRaw, windows},
		{sectionDigests, encodingRaw, d.cols.digests},
	}
	if !digests {
		sections = sections[:len(sections)-1]
	}
	var bodies [][]byte
	off := int64(headerLen(len(sections)))
	for _, s := range sections {
		stored := s.raw
		if s.encoding == encodingZstd {
			stored = p.pack(s.raw)
		}
		d.head.sections = append(d.head.sections, sectionInfo{
			kind: s.kind, encoding: s.encoding, off: off,
			stored: int64(len(stored)), raw: int64(len(s.raw)), sum: sha256.Sum256(stored),
		})
		bodies = append(bodies, stored)
		off += int64(len(stored))
	}
	file := d.head.append(make([]byte, 0, off))
	for _, b := range bodies {
		file = append(file, b...)
	}
	return ReadIndex(bytes.NewReader(file), int64(len(file)))
}

// WriteTo writes the index file to w.
func (x *Index) WriteTo(w io.Writer) (int64, error) {
	return io.Copy(w, io.NewSectionReader(x.src, 0, x.size))
}
