package layerindex

import (
	"errors"
	"fmt"
	"math"
	"sort"

	"github.com/imgfs/imgfs/layerindex/internal/codec"
	"github.com/imgfs/imgfs/layerindex/internal/column"
	"github.com/imgfs/imgfs/layerindex/internal/indexfile"
)

const (
	spanBits  = 0x07
	spanStart = 0x08

	windowSize = 32 << 10
)

// A Checkpoint is a place in a compressed blob where decoding can start.
type Checkpoint = codec.Checkpoint

// A Window holds those bytes before a Checkpoint that decoding from it needs.
type Window = codec.Window

// A Run is a run of bytes in a Window.
type Run = codec.Run

// Spans are the pieces that a compressed layer can be decoded in on their own: each
// begins at a checkpoint. They are immutable and safe for concurrent use.
type Spans struct {
	x       *Index
	points  []Checkpoint // without windows
	batches []batch
}

// A batch is a run of checkpoints whose windows are compressed together.
type batch struct {
	first, n  int   // checkpoints
	off, size int64 // in the windows section, as stored
	raw       int64 // decoded
}

// Spans returns the spans of a compressed layer, nil if the layer is a plain tar.
// They stay in memory. The error wraps ErrIndex.
//
// Every read asks for them: when they are in memory that allocates nothing.
func (x *Index) Spans() (*Spans, error) {
	if x.Codec() == Plain {
		return nil, nil
	}
	if s := x.spanTable.value.Load(); s != nil {
		return *s, nil
	}
	return x.spanTable.get(x.readSpans)
}

// Len returns how many spans there are: at least one, unless the out space has no bytes.
func (s *Spans) Len() int { return len(s.points) }

// Find returns the number of the span that holds byte out of the tar.
func (s *Spans) Find(out int64) int {
	return sort.Search(len(s.points), func(i int) bool { return s.points[i].Out > out }) - 1
}

// Start returns the offsets in the tar and in the blob at which span i begins.
func (s *Spans) Start(i int) (out, in int64) { return s.points[i].Out, s.points[i].In }

// End returns the offsets in the tar and in the blob at which span i ends. In the
// blob it may end behind the place where the next one begins.
func (s *Spans) End(i int) (out, in int64) {
	if i+1 == len(s.points) {
		return s.x.file.TarSize, s.x.file.BlobSize
	}
	next := &s.points[i+1]
	in = next.In
	if next.Bit != 0 || next.Symbol != 0 {
		in += (int64(next.Bit) + next.Symbol + 7) / 8
	}
	return next.Out, min(in, s.x.file.BlobSize)
}

// Checkpoint returns the checkpoint at which span i begins, with its window. The error
// wraps ErrIndex.
func (s *Spans) Checkpoint(i int) (Checkpoint, error) {
	p := s.points[i]
	if p.Start {
		return p, nil
	}
	for _, b := range s.batches {
		if i >= b.first+b.n {
			continue
		}
		w, err := s.x.window(b, i-b.first)
		if err == nil && i == 0 && len(w.Runs) > 0 {
			err = errors.New("bytes before the first")
		}
		if err != nil {
			return p, fmt.Errorf("%w: window %d: %w", ErrIndex, i, err)
		}
		p.Window = w
		return p, nil
	}
	return p, fmt.Errorf("%w: window %d", ErrIndex, i)
}

// readSpans reads the section of checkpoints and checks it.
func (x *Index) readSpans() (*Spans, error) {
	b, err := x.file.Section(indexfile.Spans)
	if err != nil {
		return nil, err
	}
	if x.file.Checkpoints < 0 || x.file.Checkpoints > int64(len(b)) {
		return nil, fmt.Errorf("%w: %d checkpoints in %d bytes", ErrIndex, x.file.Checkpoints, len(b))
	}
	c := column.Over(b)
	var cols [4]column.Cursor
	for i := range cols {
		cols[i] = column.Over(c.Bytes(c.Length()))
	}
	if cols[2].Rest() != x.file.Checkpoints {
		return nil, fmt.Errorf("%w: %d checkpoints of %d", ErrIndex, cols[2].Rest(), x.file.Checkpoints)
	}
	t := &Spans{x: x, points: make([]Checkpoint, x.file.Checkpoints)}
	if err := x.readPoints(t.points, &cols); err != nil {
		return nil, err
	}
	windows, _ := x.file.Find(indexfile.Windows)
	if err := t.readBatches(&c, windows.Stored); err != nil {
		return nil, err
	}
	return t, nil
}

// readPoints reads the checkpoints from their columns, of which nothing may be
// left.
func (x *Index) readPoints(points []Checkpoint, cols *[4]column.Cursor) error {
	var in, out int64
	for i := range points {
		p := &points[i]
		in += int64(cols[0].Small(uint64(x.file.BlobSize - in)))
		out += int64(cols[1].Small(uint64(x.file.TarSize - out)))
		flags := cols[2].Bytes(1)
		p.Symbol = int64(cols[3].Small(uint64(x.file.BlobSize-in) * 8))
		if cols[0].Err != nil || cols[1].Err != nil || cols[2].Err != nil || cols[3].Err != nil || flags[0]&^(spanBits|spanStart) != 0 {
			return fmt.Errorf("%w: checkpoint %d", ErrIndex, i)
		}
		p.In, p.Out, p.Bit, p.Start = in, out, flags[0]&spanBits, flags[0]&spanStart != 0
		ok := i > 0 && out > points[i-1].Out
		if i == 0 {
			ok = x.mayBeFirst(p)
		} else if x.Space() == SpaceContents {
			ok = ok && in > points[i-1].In
		}
		if p.Start {
			ok = ok && p.Bit == 0 && p.Symbol == 0
		} else {
			ok = ok && x.Codec() == Gzip && x.Space() == SpaceTar
		}
		if !ok {
			return fmt.Errorf("%w: checkpoint %d", ErrIndex, i)
		}
	}
	for i := range cols {
		if n := cols[i].Rest(); n != 0 {
			return fmt.Errorf("%w: checkpoints: column %d has %d bytes too many", ErrIndex, i, n)
		}
	}
	return nil
}

// mayBeFirst reports whether a checkpoint is where the first one may be. In tar space
// decoding goes on from there to the end, so it is the start of the first member, or
// in that, behind its header.
func (x *Index) mayBeFirst(p *Checkpoint) bool {
	switch {
	case p.Out != 0:
		return false
	case x.Space() == SpaceContents:
		return p.Start
	case x.file.Version == indexfile.Version && !p.Start:
		return p.In > 0
	}
	return p.Start && p.In == 0
}

// readBatches reads the batch table, of windows that take size bytes.
func (s *Spans) readBatches(c *column.Cursor, size int64) error {
	var first int
	var off int64
	for range c.Length() {
		b := batch{first: first, off: off}
		b.n = int(c.Small(uint64(len(s.points) - first)))
		b.size = int64(c.Small(math.MaxInt32))
		// A run map takes at most four bytes for every two of the window.
		b.raw = int64(c.Small(uint64(b.n) * 4 * windowSize))
		first += b.n
		off += b.size
		s.batches = append(s.batches, b)
	}
	want := len(s.points)
	if s.x.Space() == SpaceContents {
		want = 0 // nothing has a window
	}
	if c.Err != nil || first != want || off != size || c.Rest() != 0 {
		return fmt.Errorf("%w: batch table", ErrIndex)
	}
	return nil
}

// window decodes window number i of a batch.
func (x *Index) window(b batch, i int) (Window, error) {
	var w Window
	all, err := x.windows()
	if err != nil {
		return w, err
	}
	if b.off > int64(len(all)) || b.size > int64(len(all))-b.off {
		return w, column.ErrShort
	}
	dec, err := x.zstd()
	if err != nil {
		return w, err
	}
	raw, err := indexfile.Unpack(dec, all[b.off:b.off+b.size], b.raw)
	if err != nil {
		return w, err
	}
	return readWindow(raw, b.n, i)
}

// readWindow takes window number i of n out of a decoded batch.
func readWindow(raw []byte, n, i int) (Window, error) {
	var w Window
	c := column.Over(raw)
	var skip, size, rest int // bytes of the windows before, of this one, and after
	for k := range n {
		at := 0
		for run := range c.Length() {
			gap := int(c.Small(uint64(windowSize - at)))
			at += gap
			length := int(c.Small(uint64(windowSize - at)))
			if c.Err == nil && (length == 0 || run > 0 && gap == 0) {
				c.Err = errors.New("runs that touch, or an empty one")
			}
			if c.Err != nil {
				return w, c.Err
			}
			switch {
			case k < i:
				skip += length
			case k == i:
				w.Runs = append(w.Runs, Run{Off: uint16(at), Len: uint16(length)})
				size += length
			default:
				rest += length
			}
			at += length
		}
	}
	c.Bytes(skip)
	w.Data = c.Bytes(size)
	if c.Err == nil && int(c.Rest()) != rest {
		c.Err = fmt.Errorf("%d bytes of windows, want %d", skip+size+int(c.Rest()), skip+size+rest)
	}
	return w, c.Err
}
