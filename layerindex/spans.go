package layerindex

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/imgfs/imgfs/layerindex/internal/codec"
)

const (
	spanBits  = 0x07
	spanStart = 0x08

	windowSize = 32 << 10
)

// add adds checkpoints (docs/index-format.md, kinds 3 and 4).
func (s *spanWriter) add(points []codec.Checkpoint) error {
	for _, p := range points {
		s.cols[0].uvarint(uint64(p.In - s.in))
		s.cols[1].uvarint(uint64(p.Out - s.out))
		flags := p.Bit & spanBits
		if p.Start {
			flags |= spanStart
		}
		s.cols[2].byte(flags)
		s.cols[3].uvarint(uint64(p.Symbol))
		s.in, s.out = p.In, p.Out
		s.n++
		if s.batch = append(s.batch, p); len(s.batch) == windowBatch {
			if err := s.pack(); err != nil {
				return err
			}
		}
	}
	return nil
}

// pack compresses the windows of the batch in hand.
func (s *spanWriter) pack() error {
	if s.packer == nil {
		var err error
		if s.packer, err = newPacker(); err != nil {
			return err
		}
	}
	raw := encodeWindows(s.batch)
	stored := s.packer.pack(raw)
	for _, v := range []int{len(s.batch), len(stored), len(raw)} {
		s.batches.uvarint(uint64(v))
	}
	s.nBatch++
	s.windows.Write(stored)
	err := s.budget.Take(int64(len(stored)) + pointCost*int64(len(s.batch)))
	clear(s.batch)
	s.batch = s.batch[:0]
	return err
}

// finish packs what is left.
func (s *spanWriter) finish() error {
	if len(s.batch) > 0 {
		if err := s.pack(); err != nil {
			return err
		}
	}
	s.close()
	return nil
}

func (s *spanWriter) close() {
	if s.packer != nil {
		s.packer.close()
		s.packer = nil
	}
}

// section returns the section of checkpoints, decoded.
func (s *spanWriter) section() []byte {
	var all column
	for i := range s.cols {
		all.uvarint(uint64(s.cols[i].size))
		_ = s.cols[i].moveTo(&all) // a column takes all
	}
	all.uvarint(s.nBatch)
	_ = s.batches.moveTo(&all)
	return slices.Concat(all.pieces...)
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
	c := cursor{b: b}
	var cols [4]cursor
	for i := range cols {
		cols[i].b = c.bytes(c.length())
	}
	if int64(len(cols[2].b)) != x.head.checkpoints {
		return nil, fmt.Errorf("%w: %d checkpoints of %d", ErrIndex, len(cols[2].b), x.head.checkpoints)
	}
	t := &spanTable{points: make([]codec.Checkpoint, x.head.checkpoints)}
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
