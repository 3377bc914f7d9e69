package gzip

import (
	"io"

	"github.com/imgfs/imgfs/layerindex/internal/codec"
	"github.com/imgfs/imgfs/layerindex/internal/inflate"
)

// memberSpan is how much output there has to be since the last checkpoint for
// the beginning of a member to be one: it needs no window, but an entry in the
// index.
const memberSpan = 64 << 10

// Options say how far checkpoints are apart. Nil, and zero fields, mean the
// defaults.
type Options struct {
	// A checkpoint is due when there were SpanOut bytes of output (default 1
	// MiB) and SpanIn bytes of input (default 128 KiB) since the last, or
	// SpanMax bytes of output (default 4 MiB). It is taken at the next
	// beginning of a block, and in the midst of a block that has more than
	// twice SpanMax bytes of input or output.
	SpanOut, SpanIn, SpanMax int64
	// Blocks, if not nil, has checkpoints lie where SOCI's lie: at the first block of
	// the file, and at each block that more than SpanOut bytes of output are before
	// since the last checkpoint, also if it is the first of a member or has nothing
	// behind it. None is a Start. Next calls Blocks with each place as soon as it
	// is chosen, before its window is known.
	Blocks func(codec.Checkpoint)
}

// An Indexer decodes a gzip file from its start and takes down checkpoints.
type Indexer struct {
	s    stream
	opts Options

	done []codec.Checkpoint // complete
	// open is the next checkpoint while its window is being found out, and
	// openIn where it is.
	open     codec.Checkpoint
	openIn   int64
	tracking bool
	// begun is the start of a member which has no output yet, if isBegun.
	begun   codec.Checkpoint
	isBegun bool
	// lastIn and lastOut say where the last checkpoint is. LastIn is not
	// that of the header of its block.
	lastIn, lastOut int64
}

var _ codec.Indexer = (*Indexer)(nil)

// NewIndexer returns an indexer for the file that src gives. It reads src to
// its end, also what is to be ignored behind the last member.
//
// It takes checkpoints as opts says, and one at each beginning of a member that
// has output and is at least 64 KiB of output from the one before.
func NewIndexer(src io.Reader, opts *Options) *Indexer {
	x := &Indexer{s: stream{inf: inflate.NewDecoder(src, 0)}}
	if opts != nil {
		x.opts = *opts
	}
	setDefault(&x.opts.SpanOut, 1<<20)
	setDefault(&x.opts.SpanIn, 128<<10)
	setDefault(&x.opts.SpanMax, 4<<20)
	if x.opts.Blocks != nil {
		x.lastOut = -1 // of none
		return x
	}
	x.done = []codec.Checkpoint{{Start: true}}
	return x
}

func setDefault(p *int64, n int64) {
	if *p <= 0 {
		*p = n
	}
}

// In returns the offset in the file of the next byte to be decoded. What is chosen for
// a checkpoint from now on is at this byte or behind it.
func (x *Indexer) In() int64 { return x.s.inf.In() }

// Checkpoints implements codec.Indexer.
func (x *Indexer) Checkpoints() []codec.Checkpoint {
	cps := x.done
	x.done = nil
	return cps
}

// Next implements codec.Decoder. Checkpoints that are not complete at an error
// are lost.
func (x *Indexer) Next() ([]byte, error) {
	s := &x.s
	for s.err == nil {
		e, err := s.step()
		if err != nil {
			return s.finish(err)
		}
		x.note(e)
		switch e {
		case output:
			return s.take(), nil
		case allOver:
			if err := s.inf.Drain(); err != nil {
				return s.finish(err)
			}
			return s.finish(io.EOF)
		}
	}
	return nil, s.err
}

// note takes down a checkpoint if the place of an event should have one.
func (x *Indexer) note(e event) {
	inf := x.s.inf
	if x.tracking && !inf.Tracking() {
		x.tracking = false
		x.open.Window = inf.Window()
		x.add(x.open, x.openIn)
	}
	if x.isBegun && inf.Out() > x.begun.Out {
		x.isBegun = false
		x.add(x.begun, x.begun.In)
	}
	switch e {
	case member:
		if x.opts.Blocks != nil {
			break
		}
		x.begun = x.s.start
		x.isBegun = x.begun.Out-x.lastOut >= memberSpan
	case block, output:
		if cp, ok := inf.Place(); ok && x.due(e, inf) {
			x.open, x.openIn, x.tracking = cp, inf.In(), true
			inf.Track()
			if x.opts.Blocks != nil {
				x.opts.Blocks(cp)
			}
		}
	}
}

// add takes down a checkpoint that is at byte in, unless nothing came behind it.
func (x *Indexer) add(cp codec.Checkpoint, in int64) {
	if x.s.inf.Out() > cp.Out || x.opts.Blocks != nil {
		x.done = append(x.done, cp)
		x.lastIn, x.lastOut = in, cp.Out
	}
}

// due tells whether there should be a checkpoint here.
func (x *Indexer) due(e event, inf *inflate.Decoder) bool {
	in, out := inf.In(), inf.Out()
	if x.opts.Blocks != nil {
		return e == block && !x.tracking && (x.lastOut < 0 || out-x.lastOut > x.opts.SpanOut)
	}
	if x.tracking || out == x.s.start.Out {
		return false
	}
	if e == output {
		b := inf.BlockStart()
		if max(in-b.In, out-b.Out) < 2*x.opts.SpanMax {
			return false
		}
	}
	since := out - x.lastOut
	return since >= x.opts.SpanMax || since >= x.opts.SpanOut && in-x.lastIn >= x.opts.SpanIn
}
