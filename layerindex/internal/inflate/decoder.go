package inflate

import (
	"errors"
	"fmt"
	"io"

	"github.com/imgfs/imgfs/layerindex/internal/codec"
)

const (
	// windowSize is how far back a match can reach.
	windowSize = 32 << 10

	outSize = 256 << 10
	outMask = outSize - 1
	// outSlack lets a copy of copyStep bytes begin before outSize.
	outSlack = 64
	// outLimit is where no more symbols are decoded: the longest sequence
	// of the loop, some literals and a match of 258 bytes rounded up, fits
	// before outSize.
	outLimit = outSize - 512
	// flushSize is how much output is handed on before more input is read:
	// the source may be slow.
	flushSize = 64 << 10
)

// Errors of streams that are wrong, not just too short.
var (
	errBlockType = fmt.Errorf("deflate: invalid block type: %w", codec.ErrFormat)
	errStored    = fmt.Errorf("deflate: length of stored block does not match its complement: %w", codec.ErrFormat)
	errLengths   = fmt.Errorf("deflate: invalid code lengths: %w", codec.ErrFormat)
	errCodeword  = fmt.Errorf("deflate: invalid codeword: %w", codec.ErrFormat)
	errDistance  = fmt.Errorf("deflate: distance too far back: %w", codec.ErrFormat)
)

var errPlace = errors.New("invalid checkpoint")

// An Event is what made Next return.
type Event int

const (
	// Block: a block begins here, at Place.
	Block Event = iota
	// Output: there is a fair amount of output, which is to be taken.
	Output
	// End: the stream has ended. The input is at the first byte behind it,
	// and another stream can be decoded with Start.
	End
)

// state is what the input is in the middle of.
type state int

const (
	atHeader  state = iota // of a block; not reported yet
	inHeader               // of a block; reported
	inStored               // block
	inSymbols              // of a block with Huffman codes
	atEnd
)

// A Decoder decodes DEFLATE streams that lie in one stream of bytes, such as
// a gzip file. It is for one goroutine at a time and starts none.
type Decoder struct {
	in     input
	state  state
	final  bool
	fixed  bool // the tables hold the fixed codes
	stored int  // bytes left of a stored block
	block  codec.Checkpoint
	begin  int64 // bits before the first symbol of the block, from its header

	// out[from:op] is output that has not been taken. out[:op] is history
	// as far as it is not before floor.
	from, op, floor uint
	total           int64 // offset in all output of out[0]

	track tracker
	match match // that the loop could not do

	symbols symbols
	lit     [litSize]uint32
	dist    [distSize]uint32
	lens    [lenSize]uint32
	out     [outSize + outSlack]byte
}

// NewDecoder returns a decoder for the stream that src gives, whose first byte
// is at offset in of the compressed stream. A DEFLATE stream has to begin
// there; see ReadByte for what may be before it, and Resume.
func NewDecoder(src io.Reader, in int64) *Decoder {
	d := new(Decoder)
	d.symbols.init()
	d.Reset(src, in, 0)
	return d
}

// Reset makes d what NewDecoder returns, without allocating anything. Out is
// the offset in the uncompressed stream of the first byte of output.
func (d *Decoder) Reset(src io.Reader, in, out int64) {
	d.in.reset(src, in)
	d.from, d.op = windowSize, windowSize
	d.total = out - windowSize
	d.track.active = false
	d.Start()
}

// Start makes d expect the first block of a new DEFLATE stream at the next
// byte of the input. Output that was not taken stays.
func (d *Decoder) Start() {
	d.in.align()
	d.state = atHeader
	d.floor = d.op
}

// ReadByte returns the next byte of the input: of what is between two DEFLATE
// streams. It may be called before the first and after End. At the end of the
// input it returns io.EOF, and an error of the source as it is.
func (d *Decoder) ReadByte() (byte, error) {
	d.in.align()
	if d.in.pos == d.in.end {
		if d.in.fill(1); d.in.pos == d.in.end {
			return 0, d.in.err
		}
	}
	c := d.in.buf[d.in.pos]
	d.in.pos++
	return c, nil
}

// Drain reads the input to its end and drops it.
func (d *Decoder) Drain() error { return d.in.drain() }

// In returns the offset in the compressed stream of the next byte, of which
// bits may already be used.
func (d *Decoder) In() int64 { return d.in.base + int64(d.in.pos) }

// Out returns the offset in the uncompressed stream of the next byte.
func (d *Decoder) Out() int64 { return d.total + int64(d.op) }

// Pending returns the output that has not been taken. It is valid until the
// next call of Next.
func (d *Decoder) Pending() []byte { return d.out[d.from:d.op] }

// Take returns the output that has not been taken and counts it as taken. It is
// valid until the next call of Next.
func (d *Decoder) Take() []byte {
	p := d.Pending()
	d.from = d.op
	return p
}

// Place returns the place that d is at as a checkpoint without a window, and
// whether decoding can be resumed there. That is so after Block, and after
// Output unless it came inside a stored block.
func (d *Decoder) Place() (codec.Checkpoint, bool) {
	cp := codec.Checkpoint{In: d.In(), Bit: uint8(d.in.bit), Out: d.Out()}
	switch d.state {
	case inHeader, atHeader:
		return cp, true
	case inSymbols:
		cp.Symbol = (cp.In-d.block.In)<<3 + int64(cp.Bit) - int64(d.block.Bit)
		cp.In, cp.Bit = d.block.In, d.block.Bit
		return cp, cp.Symbol > 0
	}
	return codec.Checkpoint{}, false
}

// BlockStart returns the place where the current block begins.
func (d *Decoder) BlockStart() codec.Checkpoint { return d.block }

// Next decodes until there is something to report. An error about the
// compressed stream is a *codec.Error; what was decoded before it is still
// pending.
func (d *Decoder) Next() (Event, error) {
	for {
		if d.op >= outLimit && !d.slide() {
			return Output, nil
		}
		if d.state == atEnd {
			return End, nil
		}
		if d.in.short(d.needed()) {
			if d.op-d.from >= flushSize {
				return Output, nil
			}
			d.in.fill(d.needed())
		}
		var err error
		switch d.state {
		case atHeader:
			d.state = inHeader
			d.block, _ = d.Place()
			return Block, nil
		case inHeader:
			err = d.readHeader()
		case inStored:
			err = d.copyStored()
		case inSymbols:
			err = d.decode()
		}
		if err != nil {
			return 0, err
		}
		d.trackOutput()
	}
}

// needed returns how much input the next step should have before it.
func (d *Decoder) needed() uint {
	switch d.state {
	case inHeader:
		return headerSize
	case inStored:
		return uint(min(d.stored, 1))
	case inSymbols:
		return 2 * loopInput
	}
	return 0
}

// slide makes room for more output, unless there is some that has not been
// taken.
func (d *Decoder) slide() bool {
	if d.from != d.op {
		return false
	}
	by := d.op - windowSize
	copy(d.out[:windowSize], d.out[by:d.op])
	d.total += int64(by)
	d.op, d.from = windowSize, windowSize
	d.floor -= min(by, d.floor)
	d.track.base -= min(by, d.track.base)
	return true
}

// endBlock goes to the next block, or to the end of the stream.
func (d *Decoder) endBlock() {
	d.state = atHeader
	if d.final {
		d.in.align()
		d.state = atEnd
		d.track.active = false
	}
}
