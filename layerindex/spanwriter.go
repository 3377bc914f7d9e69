package layerindex

import (
	"encoding/binary"
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
}

// add adds checkpoints (docs/index-format.md, kinds 3 and 4).
func (s *spanWriter) add(points []codec.Checkpoint) error {
	for _, p := range points {
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
	if s.packer == nil {
		var err error
		if s.packer, err = indexfile.NewPacker(); err != nil {
			return err
		}
	}
	raw := encodeWindows(s.batch)
	stored := s.packer.Pack(raw)
	for _, v := range []int{len(s.batch), len(stored), len(raw)} {
		s.batches.Uvarint(uint64(v))
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
		s.packer.Close()
		s.packer = nil
	}
}

// section returns the section of checkpoints, decoded.
func (s *spanWriter) section() []byte {
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
