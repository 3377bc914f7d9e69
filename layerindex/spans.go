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
	x      *Index
	places []place
	inner  []inner // of every place; nil if all are starts
	// batches have the windows of all places in order, or of none.
	batches []batch
}

// A place is where a span begins.
type place struct{ in, out int64 }

// An inner says where in its byte and in its block a place is that is no start.
type inner struct {
	symbol int64
	bit    uint8
	start  bool // it is one
}

// maxBatch is how many checkpoints may be in a batch, since the version of the format
// in which one is read without the others.
const maxBatch = 64

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
func (s *Spans) Len() int { return len(s.places) }

// Find returns the number of the span that holds byte out of the out space.
func (s *Spans) Find(out int64) int {
	return sort.Search(len(s.places), func(i int) bool { return s.places[i].out > out }) - 1
}

// Start returns the offsets in the out space and in the blob at which span i begins.
func (s *Spans) Start(i int) (out, in int64) { return s.places[i].out, s.places[i].in }

// End returns the offsets in the out space and in the blob at which span i ends. In the
// blob it may end behind the place where the next one begins. In contents space what it
// decodes to ends before, with the last proof in it.
func (s *Spans) End(i int) (out, in int64) {
	if i+1 == len(s.places) {
		return s.x.file.TarSize, s.x.file.BlobSize
	}
	next := s.point(i + 1)
	in = next.In
	if next.Bit != 0 || next.Symbol != 0 {
		in += (int64(next.Bit) + next.Symbol + 7) / 8
	}
	return next.Out, min(in, s.x.file.BlobSize)
}

// point returns checkpoint i without its window.
func (s *Spans) point(i int) Checkpoint {
	p := Checkpoint{In: s.places[i].in, Out: s.places[i].out, Start: true}
	if s.inner != nil {
		p.Symbol, p.Bit, p.Start = s.inner[i].symbol, s.inner[i].bit, s.inner[i].start
	}
	return p
}

// Checkpoint returns the checkpoint at which span i begins, with its window. The error
// wraps ErrIndex.
func (s *Spans) Checkpoint(i int) (Checkpoint, error) {
	p := s.point(i)
	if p.Start {
		return p, nil
	}
	k := sort.Search(len(s.batches), func(k int) bool { return s.batches[k].first > i }) - 1
	if k < 0 {
		return p, fmt.Errorf("%w: window %d", ErrIndex, i)
	}
	w, err := s.x.window(s.batches[k], i-s.batches[k].first)
	if err == nil && i == 0 && len(w.Runs) > 0 {
		err = errors.New("bytes before the first")
	}
	if err != nil {
		return p, indexfile.Invalid(fmt.Sprintf("window %d", i), err)
	}
	p.Window = w
	return p, nil
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
	s := &Spans{x: x, places: make([]place, x.file.Checkpoints)}
	if err := s.readPoints(&cols); err != nil {
		return nil, err
	}
	windows, _ := x.file.Find(indexfile.Windows)
	if err := s.readBatches(&c, windows.Stored); err != nil {
		return nil, err
	}
	return s, nil
}

// readPoints reads the checkpoints from their columns, of which nothing may be
// left.
func (s *Spans) readPoints(cols *[4]column.Cursor) error {
	file := &s.x.file
	var last Checkpoint
	for i := range s.places {
		p := Checkpoint{In: last.In, Out: last.Out}
		p.In += int64(cols[0].Small(uint64(file.BlobSize - p.In)))
		p.Out += int64(cols[1].Small(uint64(file.TarSize - p.Out)))
		flags := cols[2].Byte()
		p.Symbol = int64(cols[3].Small(uint64(file.BlobSize-p.In) * 8))
		p.Bit, p.Start = flags&spanBits, flags&spanStart != 0
		if cols[0].Err != nil || cols[1].Err != nil || cols[2].Err != nil || cols[3].Err != nil ||
			flags&^(spanBits|spanStart) != 0 || !s.x.mayFollow(&p, &last, i == 0) {
			return fmt.Errorf("%w: checkpoint %d", ErrIndex, i)
		}
		s.places[i] = place{p.In, p.Out}
		if !p.Start && s.inner == nil {
			s.inner = make([]inner, len(s.places))
			for k := range i {
				s.inner[k].start = true
			}
		}
		if s.inner != nil {
			s.inner[i] = inner{p.Symbol, p.Bit, p.Start}
		}
		last = p
	}
	for i := range cols {
		if n := cols[i].Rest(); n != 0 {
			return fmt.Errorf("%w: checkpoints: column %d has %d bytes too many", ErrIndex, i, n)
		}
	}
	return nil
}

// mayFollow reports whether a checkpoint may come behind the last one, or be the first.
func (x *Index) mayFollow(p, last *Checkpoint, first bool) bool {
	contents := x.Space() == SpaceContents
	switch {
	case p.Start && (p.Bit != 0 || p.Symbol != 0):
		return false
	case !p.Start && (contents || x.Codec() != Gzip):
		return false
	case !first:
		return p.Out > last.Out && (!contents || p.In > last.In)
	case p.Out != 0:
		return false
	case p.Start:
		return contents || p.In == 0
	}
	// Behind the header of the first member.
	return x.file.Version == indexfile.Version && p.In > 0
}

// readBatches reads the batch table, of windows that take size bytes.
func (s *Spans) readBatches(c *column.Cursor, size int64) error {
	want := len(s.places)
	if s.x.Space() == SpaceContents {
		want = 0 // nothing has a window
	}
	most := want
	if s.x.file.Version == indexfile.Version {
		most = maxBatch
	}
	var first int
	var off int64
	for range c.Length() {
		b := batch{first: first, off: off}
		b.n = int(c.Small(uint64(min(most, want-first))))
		b.size = int64(c.Small(math.MaxInt32))
		// A run map takes at most four bytes for every two of the window.
		b.raw = int64(c.Small(uint64(b.n) * 4 * windowSize))
		if c.Err != nil || b.n == 0 || b.size > indexfile.Longest(b.raw) {
			return fmt.Errorf("%w: batch table", ErrIndex)
		}
		first += b.n
		off += b.size
		s.batches = append(s.batches, b)
	}
	if c.Err != nil || first != want || off != size || c.Rest() != 0 {
		return fmt.Errorf("%w: batch table", ErrIndex)
	}
	return nil
}

// window decodes window number i of a batch.
func (x *Index) window(b batch, i int) (Window, error) {
	stored, err := x.windows(b.off, b.size)
	if err != nil {
		return Window{}, err
	}
	dec, err := x.zstd()
	if err != nil {
		return Window{}, err
	}
	raw, err := indexfile.Unpack(dec, stored, b.raw)
	if err != nil {
		return Window{}, err
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
