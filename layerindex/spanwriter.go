package layerindex

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/imgfs/imgfs/layerindex/internal/codec"
	"github.com/imgfs/imgfs/layerindex/internal/column"
	"github.com/imgfs/imgfs/layerindex/internal/indexfile"
)

// windowBatch is how many windows are compressed together.
const windowBatch = 8

// A spanWriter collects checkpoints. Their windows are compressed as soon as a
// batch of them is whole.
type spanWriter struct {
	budget  *Budget
	packer  *indexfile.Packer // made with the first window
	n       int64
	in, out int64
	cols    [4]column.Column
	batch   []codec.Checkpoint
	batches column.Column
	nBatch  uint64
	windows column.Column
	// noWindows is a whole batch of checkpoints without windows, compressed.
	noWindows []byte
}

// add adds checkpoints (docs/index-format.md, kinds 3 and 4).
func (s *spanWriter) add(points []codec.Checkpoint) error {
	for _, p := range points {
		if p.In < s.in || p.Out < s.out || p.Out > MaxSize || p.In > MaxSize || p.Symbol < 0 {
			return fmt.Errorf("%w: checkpoint at %d of the blob and %d of the layer, behind one at %d and %d", ErrIndex, p.In, p.Out, s.in, s.out)
		}
		s.cols[0].Uvarint(uint64(p.In - s.in))
		s.cols[1].Uvarint(uint64(p.Out - s.out))
		flags := p.Bit & spanBits
		if p.Start {
			flags |= spanStart
		}
		s.cols[2].Byte(flags)
		s.cols[3].Uvarint(uint64(p.Symbol))
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
	raw := encodeWindows(s.batch)
	stored, err := s.compress(raw)
	if err != nil {
		return err
	}
	for _, v := range []int{len(s.batch), len(stored), len(raw)} {
		s.batches.Uvarint(uint64(v))
	}
	s.nBatch++
	s.windows.Write(stored)
	n := len(s.batch)
	clear(s.batch)
	s.batch = s.batch[:0]
	return s.budget.Take(int64(len(stored)) + pointCost*int64(n))
}

// compress compresses a batch. Batches that have no windows are many, and alike.
func (s *spanWriter) compress(raw []byte) (stored []byte, err error) {
	none := len(raw) == windowBatch && bytes.Count(raw, []byte{0}) == windowBatch
	if none && s.noWindows != nil {
		return s.noWindows, nil
	}
	if s.packer == nil {
		if s.packer, err = indexfile.NewPacker(); err != nil {
			return nil, err
		}
	}
	stored = s.packer.Pack(raw)
	if none {
		s.noWindows = stored
	}
	return stored, nil
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
		s.packer.Close()
		s.packer = nil
	}
}

// section returns the section of checkpoints, decoded. In contents space nothing has a
// window.
func (s *spanWriter) section(space Space) []byte {
	if space == SpaceContents {
		s.budget.Release(s.windows.Size)
		s.nBatch, s.batches, s.windows = 0, column.Column{}, column.Column{}
	}
	var all column.Column
	for i := range s.cols {
		all.Uvarint(uint64(s.cols[i].Size))
		_ = s.cols[i].MoveTo(&all) // a column takes all
	}
	all.Uvarint(s.nBatch)
	_ = s.batches.MoveTo(&all)
	return slices.Concat(all.Pieces...)
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
