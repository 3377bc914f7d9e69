package soci

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"io"

	"github.com/google/flatbuffers/go"
	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/layerindex/internal/gzip"
)

// A gzipLayer decodes a gzip layer and takes down where its spans begin.
type gzipLayer struct {
	ctx    context.Context
	x      *gzip.Indexer
	sums   spanSums
	points []byte // as a ztoc has them, but for their number and the span size
	step   int64  // the span size
	piece  []byte // decoded and not read
	err    error
}

func newGzipLayer(ctx context.Context, src io.Reader, spanSize int64) *gzipLayer {
	g := &gzipLayer{ctx: ctx, step: spanSize}
	g.sums.hash = sha256.New()
	g.x = gzip.NewIndexer(io.TeeReader(src, g), &gzip.Options{SpanOut: spanSize, Blocks: g.sums.cut})
	return g
}

// Write takes the next bytes of the blob, which are about to be decoded.
func (g *gzipLayer) Write(p []byte) (int, error) {
	g.sums.advance(g.x.In())
	g.sums.raw = append(g.sums.raw, p...)
	return len(p), nil
}

func (g *gzipLayer) Read(p []byte) (int, error) {
	for len(g.piece) == 0 {
		if g.err != nil {
			return 0, g.err
		}
		// A little input can decode to very much.
		if g.err = g.ctx.Err(); g.err != nil {
			return 0, g.err
		}
		g.piece, g.err = g.x.Next()
		for _, point := range g.x.Checkpoints() {
			g.points = appendPoint(g.points, &point)
		}
		if len(g.points) > MaxZtoc {
			g.err = errTooBig
		}
		if g.err == io.EOF {
			g.sums.advance(g.sums.from + int64(len(g.sums.raw)))
			g.sums.end()
		}
	}
	n := copy(p, g.piece)
	g.piece = g.piece[n:]
	return n, nil
}

var errTooBig = fmt.Errorf("%w: it would have more than %d bytes", ErrUnsupported, MaxZtoc)

func (g *gzipLayer) failed() error {
	if g.err == io.EOF {
		return nil
	}
	return g.err
}

func (g *gzipLayer) spans() (byte, []byte, [][sha256.Size]byte) {
	b := make([]byte, 0, pointsHeader+len(g.points))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(g.sums.sums)))
	b = binary.LittleEndian.AppendUint64(b, uint64(g.step))
	return algorithmGzip, append(b, g.points...), g.sums.sums
}

// appendPoint appends a checkpoint as a ztoc has it. Bytes of the window that decoding
// does not need are zeros.
func appendPoint(b []byte, p *layerindex.Checkpoint) []byte {
	in, bits := p.In, byte(0)
	if p.Bit > 0 {
		in, bits = in+1, 8-p.Bit
	}
	b = binary.LittleEndian.AppendUint64(b, uint64(in))
	b = binary.LittleEndian.AppendUint64(b, uint64(p.Out))
	b = append(b, bits)
	var window [windowSize]byte
	data := p.Window.Data
	for _, r := range p.Window.Runs {
		data = data[copy(window[r.Off:][:r.Len], data):]
	}
	return append(b, window[:]...)
}

// spanSums takes the digests of spans of the blob. Where a span begins inside a byte,
// that byte is the last of the span before, too.
type spanSums struct {
	raw  []byte // read, and not in the hash
	from int64  // where in the blob raw begins
	hash hash.Hash
	open bool // the first span has begun
	sums [][sha256.Size]byte
}

// advance moves what is before byte to of the blob into the hash. What is before the
// first span is in none.
func (s *spanSums) advance(to int64) {
	p := s.raw[:to-s.from]
	if s.open {
		s.hash.Write(p)
	}
	s.raw, s.from = s.raw[len(p):], to
}

// cut begins a span, of which the place may not be in the hash yet.
func (s *spanSums) cut(p layerindex.Checkpoint) {
	s.advance(p.In)
	if s.open {
		if p.Bit > 0 {
			s.hash.Write(s.raw[:1])
		}
		s.end()
	}
	s.open = true
}

// end ends the span, behind what is in the hash.
func (s *spanSums) end() {
	s.sums = append(s.sums, [sha256.Size]byte(s.hash.Sum(nil)))
	s.hash.Reset()
}

// A plainLayer is a layer that is not compressed. Its spans have all one size.
type plainLayer struct {
	src  io.Reader
	step int64
	n    int64 // bytes read
	hash hash.Hash
	sums [][sha256.Size]byte
	err  error
}

func newPlainLayer(src io.Reader, spanSize int64) *plainLayer {
	return &plainLayer{src: src, step: spanSize, hash: sha256.New()}
}

func (l *plainLayer) Read(p []byte) (int, error) {
	if l.err != nil {
		return 0, l.err
	}
	n, err := l.src.Read(p[:min(int64(len(p)), l.step-l.n%l.step)])
	l.hash.Write(p[:n])
	l.n += int64(n)
	if l.err = err; n > 0 && l.n%l.step == 0 || err == io.EOF && l.n%l.step > 0 {
		l.sums = append(l.sums, [sha256.Size]byte(l.hash.Sum(nil)))
		l.hash.Reset()
	}
	return n, err
}

func (l *plainLayer) failed() error {
	if l.err == io.EOF {
		return nil
	}
	return l.err
}

func (l *plainLayer) spans() (byte, []byte, [][sha256.Size]byte) {
	b := flatbuffers.NewBuilder(64)
	b.StartObject(tarFields)
	b.PrependInt32Slot(tarVersion, tarInfoVersion, 0)
	b.PrependInt64Slot(tarSpanSize, l.step, 0)
	b.PrependInt64Slot(tarSize, l.n, 0)
	b.Finish(b.EndObject())
	return algorithmPlain, b.FinishedBytes(), l.sums
}
