package zstd

import (
	"io"

	"github.com/imgfs/imgfs/layerindex/internal/codec"
)

// MaxWindow is the largest window that a frame may ask for, 128 MiB: what the
// zstd program allows unless told otherwise.
const MaxWindow = 128 << 20

// Options are the options of an Indexer. The zero value means the defaults.
type Options struct {
	// SpanOut is the least distance of two checkpoints in bytes of output.
	// The default is 1 MiB.
	SpanOut int64
	// MaxWindow is the largest window in bytes that a frame may ask for; a
	// decoder needs about as much memory. The default, and the most, is the
	// constant of the same name.
	MaxWindow int64
}

// An Indexer decodes a stream from its start and takes down checkpoints: one
// at the start, and one at each frame with output that begins at least
// SpanOut bytes behind the checkpoint before.
type Indexer struct {
	Decoder
	span  int64
	last  int64 // Out of the last checkpoint
	ready []codec.Checkpoint
}

var _ codec.Indexer = (*Indexer)(nil)

// NewIndexer returns an indexer of the stream that src reads from its start.
// opts may be nil.
func NewIndexer(src io.Reader, opts *Options) *Indexer {
	start := codec.Checkpoint{Start: true}
	x := &Indexer{span: 1 << 20, ready: []codec.Checkpoint{start}}
	x.init(src, start)
	x.mark = x.add
	x.eager = true
	if opts != nil && opts.SpanOut > 0 {
		x.span = opts.SpanOut
	}
	if opts != nil && opts.MaxWindow > 0 {
		x.window = uint64(min(max(opts.MaxWindow, minWindow), MaxWindow))
	}
	return x
}

// Checkpoints implements codec.Indexer. All checkpoints have Start set.
func (x *Indexer) Checkpoints() []codec.Checkpoint {
	ready := x.ready
	x.ready = nil
	return ready
}

func (x *Indexer) add(in, out int64) {
	if out-x.last < x.span {
		return
	}
	x.last = out
	x.ready = append(x.ready, codec.Checkpoint{In: in, Out: out, Start: true})
}
