package layerindex

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/imgfs/imgfs/layerindex/internal/codec"
)

const (
	spanBits  = 0x07
	spanStart = 0x08

	windowSize = 32 << 10
)

// encodeSpans encodes checkpoints as the sections of checkpoints and windows
// (docs/index-format.md, kinds 3 and 4).
func encodeSpans(points []codec.Checkpoint, p *packer) (spans, windows []byte) {
	var cols [4][]byte
	var in, out int64
	for _, p := range points {
		cols[0] = binary.AppendUvarint(cols[0], uint64(p.In-in))
		cols[1] = binary.AppendUvarint(cols[1], uint64(p.Out-out))
		flags := p.Bit & spanBits
		if p.Start {
			flags |= spanStart
		}
		cols[2] = append(cols[2], flags)
		cols[3] = binary.AppendUvarint(cols[3], uint64(p.Symbol))
		in, out = p.In, p.Out
	}
	for _, c := range cols {
		spans = binary.AppendUvarint(spans, uint64(len(c)))
		spans = append(spans, c...)
	}
	spans = binary.AppendUvarint(spans, uint64((len(points)+windowBatch-1)/windowBatch))
	for len(points) > 0 {
		n := min(len(points), windowBatch)
		raw := encodeWindows(points[:n])
		stored := p.pack(raw)
		for _, v := range []int{n, len(stored), len(raw)} {
			spans = binary.AppendUvarint(spans, uint64(v))
		}
		windows = append(windows, stored...)
		points = points[n:]
	}
	return spans, windows
}

// encodeWindows returns the decoded form of one batch.
func encodeWindows(points []codec.Checkpoint) []byte {
	var runs, data []byte
	for _, p := range points {
		runs = binary.AppendUvarint(runs, uint64(len(p.Window.Runs)))
		at := 0
		for _, r := range p.Window.Runs {
			runs = binary.AppendUvarint(runs, uint64(int(r.Off)-at))
			runs = binary.AppendUvarint(runs, uint64(r.Len))
			at = int(r.Off) + int(r.Len)
		}
		data = append(data, p.Window.Data...)
	}
	return append(runs, data...)
}

// readSpans reads the section of checkpoints and checks it.
func (x *Index) readSpans() (*spanTable, error) {
	b, err := x.section(sectionSpans)
	if err != nil {
		return nil, err
	}
	if x.head.checkpoints < 0 || x.head.checkpoints > int64(len(b)) {
		return nil, fmt.Errorf("%w: %d checkpoints in %d bytes", ErrIndex, x.head.checkpoints, len(b))
	}
	t := &spanTable{points: make([]codec.Checkpoint, x.head.checkpoints)}
	c := cursor{b: b}
	var cols [4]cursor
	for i := range cols {
		cols[i].b = c.bytes(c.length())
	}
	var in, out int64
	for i := range t.points {
		p := &t.points[i]
		in += int64(cols[0].small(uint64(x.head.blobSize - in)))
		out += int64(cols[1].small(uint64(x.head.tarSize - out)))
		flags := cols[2].bytes(1)
		p.Symbol = int64(cols[3].small(uint64(x.head.blobSize-in) * 8))
		if cols[0].err != nil || cols[1].err != nil || cols[2].err != nil || cols[3].err != nil ||
			(i == 0) != (out == 0) || (i > 0 && out <= t.points[i-1].Out) || flags[0]&^(spanBits|spanStart) != 0 {
			return nil, fmt.Errorf("%w: checkpoint %d", ErrIndex, i)
		}
		p.In, p.Out, p.Bit, p.Start = in, out, flags[0]&spanBits, flags[0]&spanStart != 0
	}
	if err := t.readBatches(&c); err != nil {
		return nil, err
	}
	return t, nil
}

// readBatches reads the batch table.
func (t *spanTable) readBatches(c *cursor) error {
	var first int
	var off int64
	for range c.length() {
		b := batch{first: first, off: off}
		b.n = int(c.small(uint64(len(t.points) - first)))
		b.size = int64(c.small(math.MaxInt32))
		// A run map takes at most four bytes for every two of the window.
		b.raw = int64(c.small(uint64(b.n) * 4 * windowSize))
		first += b.n
		off += b.size
		t.batches = append(t.batches, b)
	}
	if c.err != nil || first != len(t.points) {
		return fmt.Errorf("%w: batch table", ErrIndex)
	}
	return nil
}

// checkpoint returns checkpoint i with its window.
func (x *Index) checkpoint(t *spanTable, i int) (codec.Checkpoint, error) {
	p := t.points[i]
	if p.Start {
		return p, nil
	}
	for _, b := range t.batches {
		if i >= b.first+b.n {
			continue
		}
		w, err := x.window(b, i-b.first)
		if err != nil {
			return p, fmt.Errorf("%w: window %d: %w", ErrIndex, i, err)
		}
		p.Window = w
		return p, nil
	}
	return p, fmt.Errorf("%w: window %d", ErrIndex, i)
}

// window decodes window number i of a batch.
func (x *Index) window(b batch, i int) (codec.Window, error) {
	var w codec.Window
	all, err := x.windows()
	if err != nil {
		return w, err
	}
	if b.off > int64(len(all)) || b.size > int64(len(all))-b.off {
		return w, errShort
	}
	dec, err := x.zstd()
	if err != nil {
		return w, err
	}
	raw, err := unpack(dec, all[b.off:b.off+b.size], b.raw)
	if err != nil {
		return w, err
	}
	c := cursor{b: raw}
	skip := 0 // bytes of the windows before
	for k := range b.n {
		at := 0
		for range c.length() {
			at += int(c.small(uint64(windowSize - at)))
			n := int(c.small(uint64(windowSize - at)))
			switch {
			case k == i:
				w.Runs = append(w.Runs, codec.Run{Off: uint16(at), Len: uint16(n)})
			case k < i:
				skip += n
			}
			at += n
		}
	}
	c.bytes(skip)
	size := 0
	for _, r := range w.Runs {
		size += int(r.Len)
	}
	w.Data = c.bytes(size)
	return w, c.err
}
