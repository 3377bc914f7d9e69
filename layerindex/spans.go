package layerindex

import (
	"encoding/binary"
	"errors"
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
	if err := x.readPoints(t.points, &cols); err != nil {
		return nil, err
	}
	windows, _ := x.head.find(sectionWindows)
	if err := t.readBatches(&c, windows.stored); err != nil {
		return nil, err
	}
	return t, nil
}

// readPoints reads the checkpoints from their columns, of which nothing may be
// left.
func (x *Index) readPoints(points []codec.Checkpoint, cols *[4]cursor) error {
	var in, out int64
	for i := range points {
		p := &points[i]
		in += int64(cols[0].small(uint64(x.head.blobSize - in)))
		out += int64(cols[1].small(uint64(x.head.tarSize - out)))
		flags := cols[2].bytes(1)
		p.Symbol = int64(cols[3].small(uint64(x.head.blobSize-in) * 8))
		if cols[0].err != nil || cols[1].err != nil || cols[2].err != nil || cols[3].err != nil || flags[0]&^(spanBits|spanStart) != 0 {
			return fmt.Errorf("%w: checkpoint %d", ErrIndex, i)
		}
		p.In, p.Out, p.Bit, p.Start = in, out, flags[0]&spanBits, flags[0]&spanStart != 0
		ok := i > 0 && out > points[i-1].Out
		if i == 0 {
			ok = in == 0 && out == 0 && p.Start
		}
		if p.Start {
			ok = ok && p.Bit == 0 && p.Symbol == 0
		} else {
			ok = ok && x.head.codec == Gzip
		}
		if !ok {
			return fmt.Errorf("%w: checkpoint %d", ErrIndex, i)
		}
	}
	for i := range cols {
		if n := len(cols[i].b); n != 0 {
			return fmt.Errorf("%w: checkpoints: column %d has %d bytes too many", ErrIndex, i, n)
		}
	}
	return nil
}

// readBatches reads the batch table, of windows that take size bytes.
func (t *spanTable) readBatches(c *cursor, size int64) error {
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
	if c.err != nil || first != len(t.points) || off != size || len(c.b) != 0 {
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
	return readWindow(raw, b.n, i)
}

// readWindow takes window number i of n out of a decoded batch.
func readWindow(raw []byte, n, i int) (codec.Window, error) {
	var w codec.Window
	c := cursor{b: raw}
	var skip, size, rest int // bytes of the windows before, of this one, and after
	for k := range n {
		at := 0
		for run := range c.length() {
			gap := int(c.small(uint64(windowSize - at)))
			at += gap
			length := int(c.small(uint64(windowSize - at)))
			if c.err == nil && (length == 0 || run > 0 && gap == 0) {
				c.err = errors.New("runs that touch, or an empty one")
			}
			if c.err != nil {
				return w, c.err
			}
			switch {
			case k < i:
				skip += length
			case k == i:
				w.Runs = append(w.Runs, codec.Run{Off: uint16(at), Len: uint16(length)})
				size += length
			default:
				rest += length
			}
			at += length
		}
	}
	c.bytes(skip)
	w.Data = c.bytes(size)
	if c.err == nil && len(c.b) != rest {
		c.err = fmt.Errorf("%d bytes of windows, want %d", skip+size+len(c.b), skip+size+rest)
	}
	return w, c.err
}
