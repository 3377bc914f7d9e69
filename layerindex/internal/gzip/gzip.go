// Package gzip decodes gzip files (RFC 1952) and can be entered in the middle.
//
// An Indexer decodes a file from its beginning and takes down checkpoints as it
// goes; a Decoder goes on from one. Both hand on pieces of their own buffer,
// nothing is copied.
//
//	x := gzip.NewIndexer(src, nil)
//	for {
//		p, err := x.Next()
//		if err == io.EOF {
//			break
//		}
//		if err != nil {
//			return err
//		}
//		hash.Write(p)
//		checkpoints = append(checkpoints, x.Checkpoints()...)
//	}
//	checkpoints = append(checkpoints, x.Checkpoints()...)
//
// A file is any number of members, empty ones too; CRC-32 and length of each are
// checked, as is the CRC of a header that has one. What follows the last member
// is treated as by GNU gzip 1.12: zeros and other bytes are ignored, but one
// single byte other than zero is taken for a file that is cut off, and what
// begins like a member (or like a file of one of gzip's predecessors, which
// GNU gzip would decode) but is none is an error. Unlike compress/gzip, and
// like GNU gzip, a header with reserved flags is refused.
//
// A Decoder or Indexer takes about 570 KiB.
package gzip

import (
	"fmt"
	"hash/crc32"
	"io"

	"github.com/imgfs/imgfs/layerindex/internal/codec"
	"github.com/imgfs/imgfs/layerindex/internal/inflate"
)

var (
	errMagic    = fmt.Errorf("gzip: not a gzip file: %w", codec.ErrFormat)
	errOld      = fmt.Errorf("gzip: member of an old format: %w", codec.ErrFormat)
	errMethod   = fmt.Errorf("gzip: unknown compression method: %w", codec.ErrFormat)
	errFlags    = fmt.Errorf("gzip: reserved flags in header: %w", codec.ErrFormat)
	errHeader   = fmt.Errorf("gzip: header checksum mismatch: %w", codec.ErrFormat)
	errChecksum = fmt.Errorf("gzip: checksum mismatch: %w", codec.ErrFormat)
	errLength   = fmt.Errorf("gzip: length mismatch: %w", codec.ErrFormat)
)

// event is what made step return.
type event int

const (
	member  event = iota // the header of a member has been read
	block                // a block begins
	output               // there is a fair amount of output
	ended                // a member has ended; its checksum holds
	allOver              // there are no more members
)

// stage is what step does next.
type stage int

const (
	first  stage = iota // header of a file
	body                // of a member
	behind              // a member
	over
)

// stream decodes the members of a file one after the other.
type stream struct {
	inf   *inflate.Decoder
	stage stage
	// start is where the current member begins.
	start codec.Checkpoint
	// whole: the current member was seen from its start, so that crc and
	// size are its own so far, apart from what is pending after the first
	// summed bytes.
	whole  bool
	crc    uint32
	size   uint32
	summed int
	err    error // what Next returns when nothing is pending
}

// step goes on to the next event.
func (s *stream) step() (event, error) {
	switch s.stage {
	case first, behind:
		more, err := s.nextMember()
		if err != nil {
			return 0, err
		}
		if !more {
			s.stage = over
			return allOver, nil
		}
		s.inf.Start()
		s.stage, s.whole = body, true
		s.crc, s.size, s.summed = 0, 0, len(s.inf.Pending())
		return member, nil
	case over:
		return allOver, nil
	}
	e, err := s.inf.Next()
	if err != nil {
		return 0, err
	}
	switch e {
	case inflate.Block:
		return block, nil
	case inflate.Output:
		return output, nil
	}
	s.stage = behind
	return ended, s.readTrailer()
}

// take hands on what is pending.
func (s *stream) take() []byte {
	s.sum()
	s.summed = 0
	return s.inf.Take()
}

// sum updates the checksum with what is pending of the member.
func (s *stream) sum() {
	p := s.inf.Pending()[s.summed:]
	if !s.whole {
		return // nothing to compare it with
	}
	s.crc = crc32.Update(s.crc, crc32.IEEETable, p)
	s.size += uint32(len(p))
	s.summed += len(p)
}

// finish hands on what is pending at an error or at the end; then it returns
// err, from now on.
func (s *stream) finish(err error) ([]byte, error) {
	s.err = err
	if p := s.inf.Take(); len(p) > 0 {
		return p, nil
	}
	return nil, err
}

// A Decoder decodes a gzip file from a checkpoint to its end.
type Decoder struct {
	s stream
}

var _ codec.Decoder = (*Decoder)(nil)

// Resume returns a decoder that goes on at cp and over all later members. Src
// must be at byte cp.In of the file. For a checkpoint inside a block (cp.Symbol
// is not 0) it should be an io.Seeker too, or everything between the block's
// header and the checkpoint is read only to be dropped. The checksum of a
// member is not checked if cp is in the midst of it.
//
// An src that ends early gives all output that is complete and then an error.
func Resume(src io.Reader, cp codec.Checkpoint) (*Decoder, error) {
	d := &Decoder{stream{inf: inflate.NewDecoder(src, cp.In)}}
	if err := d.Reset(src, cp); err != nil {
		return nil, err
	}
	return d, nil
}

// Reset makes d what Resume returns, and reuses its memory. After an error d
// can only be Reset.
func (d *Decoder) Reset(src io.Reader, cp codec.Checkpoint) error {
	d.s = stream{inf: d.s.inf}
	if cp.Start {
		d.s.inf.Reset(src, cp.In, cp.Out)
		return nil
	}
	d.s.stage = body
	if err := d.s.inf.Resume(src, &cp); err != nil {
		d.s.err = err
		return fmt.Errorf("resume at byte %d of output: %w", cp.Out, err)
	}
	return nil
}

// Next implements codec.Decoder.
func (d *Decoder) Next() ([]byte, error) {
	s := &d.s
	for s.err == nil {
		e, err := s.step()
		switch {
		case err != nil:
			return s.finish(err)
		case e == output:
			return s.take(), nil
		case e == allOver:
			return s.finish(io.EOF)
		}
	}
	return nil, s.err
}

// endError turns the end of the input into io.ErrUnexpectedEOF, and gives an
// error its place.
func (s *stream) endError(err error) error {
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return s.fault(err)
}

// fault is an error at the current place.
func (s *stream) fault(err error) error {
	return &codec.Error{In: s.inf.In(), Err: err}
}
