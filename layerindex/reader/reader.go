// Package reader reads any part of a layer's uncompressed tar, or of its contents, by the
// layer's index.
//
//	r := reader.New(x, blob, nil)
//	defer r.Close()
//	n, err := r.ReadAt(ctx, buf, entry.Off)
//
// A compressed layer is decoded in spans, each from its checkpoint. In contents space,
// where a gzip member or zstd frame may hold one small file, a span is a run of them
// (docs/index-format.md, "Runs"). A Reader keeps decoded spans in a SpanCache, recognizes
// readers that go on in order and has bytes fetched and spans decoded ahead of them, and
// decodes a span that is too long for memory into a temporary file.
//
// # Limits
//
// A Reader believes the index and the blob: it compares neither with a digest. The
// blob's cache does that, and a Prover tells it what is right. A plain tar is read as it
// is.
package reader

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/imgfs/imgfs/layerindex"
)

// A Blob is the compressed layer that a Reader decodes. It must check the bytes that
// it returns, because a Reader compares no digest. It is used by several goroutines
// at a time.
type Blob interface {
	// ReadAt is like io.ReaderAt with a context.
	ReadAt(ctx context.Context, p []byte, off int64) (int, error)
	// Size returns the length of the blob in bytes.
	Size() int64
}

// A Reader reads any part of the out space of a layer: of its uncompressed tar, or of
// its contents. What is said of the tar here holds for both. It decodes only the
// spans that it needs, each once for all readers that wait for it. It is safe
// for concurrent use.
//
// Ahead of reads that follow each other the Reader has bytes of the blob fetched, if
// the blob is a Prefetcher, and spans decoded, if there is more than one processor.
// The longer reads go on in order, the further ahead it works. Random reads cause
// none of this.
type Reader struct {
	x     *layerindex.Index
	blob  Blob
	opts  Options
	table atomic.Pointer[layout] // nil until it is needed
	ahead readahead
	// closing ends with Close, and with no caller.
	closing context.Context
	close   context.CancelFunc

	mu    sync.Mutex
	longs map[int]*longSpan // by span, of those too long for memory
}

// Options are the choices of New. Nil and zero mean the defaults.
type Options struct {
	// Cache keeps decoded spans; readers of several layers may share one.
	// Default: one of 16 MiB for this reader.
	Cache *SpanCache
	// NewTemp makes a temporary file of size bytes for a span that is too long
	// for memory. If it is nil or fails, such a span is decoded from its
	// beginning for each part that is read. Default: nil.
	NewTemp func(size int64) (TempFile, error)
	// Prover, if not nil, checks the blob for its cache, and is that of the index.
	// This reader gets what Match decodes, so that nothing is decoded twice. Of
	// several readers the one that was made last gets it. Default: nil.
	Prover *Prover
	// SpoolFailed, if not nil, is called when a file could not be made or
	// written, by any goroutine. Default: nil.
	SpoolFailed func(err error)
}

// A TempFile is a temporary file without a name: closing it removes it.
type TempFile interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Truncate(size int64) error
}

// New returns a Reader of the layer that x is the index of. The caller closes it, and
// then the index.
func New(x *layerindex.Index, blob Blob, opts *Options) *Reader {
	r := &Reader{x: x, blob: blob}
	r.closing, r.close = context.WithCancel(context.Background())
	if opts != nil {
		r.opts = *opts
	}
	if r.opts.Cache == nil {
		r.opts.Cache = NewSpanCache(16 << 20)
	}
	if p := r.opts.Prover; p != nil {
		p.reader.Store(r)
		if c, ok := p.cuts.(*runCuts); ok {
			r.table.Store(c.l)
		}
	}
	return r
}

// Again returns another Reader of the same layer. It shares what r knows of the index, so
// it costs little. Each is closed for itself.
func (r *Reader) Again(blob Blob, opts *Options) *Reader {
	other := New(r.x, blob, opts)
	if l := r.table.Load(); l != nil {
		other.table.Store(l)
	}
	return other
}

// Size returns the length of the uncompressed tar in bytes.
func (r *Reader) Size() int64 { return r.x.Size() }

// ReadAt reads len(p) bytes from byte off of the uncompressed tar, like
// io.ReaderAt. If ctx ends first it returns ctx.Err(). Decoding that it began goes
// on if other readers wait for the same span, and is stopped otherwise. In contents
// space a read of bytes that no proof covers, like the padding between two files, gives
// an error that wraps layerindex.ErrIndex.
func (r *Reader) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	return r.ReadFileAt(ctx, p, off, r.x.Size())
}

// ReadFileAt is ReadAt for a file whose content ends at byte end of the tar.
// Nothing behind that byte is read ahead, unless the reader goes from file to file in
// the order of the tar. The read itself may go further.
func (r *Reader) ReadFileAt(ctx context.Context, p []byte, off, end int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("negative offset %d", off)
	}
	size := r.x.Size()
	if off >= size {
		return 0, io.EOF
	}
	want := p[:min(int64(len(p)), size-off)]
	n, err := r.read(ctx, want, off, end)
	if err == nil && len(want) < len(p) {
		err = io.EOF
	}
	return n, err
}

// read is ReadFileAt inside the bounds of the tar.
func (r *Reader) read(ctx context.Context, p []byte, off, fileEnd int64) (int, error) {
	now := fileRead{off, off + int64(len(p)), fileEnd}
	if r.x.Codec() == layerindex.Plain {
		r.readAhead(func() context.Context { return ctx }, blobMap{}, now)
		return r.blob.ReadAt(ctx, p, off)
	}
	l, err := r.layout()
	if err == nil {
		err = l.covered(off, now.end)
	}
	if err != nil {
		return 0, err
	}
	if len(p) > 0 {
		r.readAhead(func() context.Context { return ctx }, blobMap{l}, now)
	}
	n := 0
	for i := l.Find(off); n < len(p); i++ {
		start, _ := l.Start(i)
		end, _ := l.End(i)
		at := off + int64(n) - start
		part := p[n:min(int64(len(p)), end-off)]
		if end-start > maxSpanMemory {
			if err := r.readLong(ctx, l, i, part, at); err != nil {
				return n, err
			}
		} else {
			s := r.opts.Cache.get(spanKey{r, i}, func() *span { return r.newSpan(l, i) })
			if err := s.read(ctx, part, at); err != nil {
				return n, err
			}
		}
		n += len(part)
	}
	return n, nil
}

// ReadHeld is ReadFileAt for bytes that are decoded and in memory. It reports
// whether it filled p. If it did not, the caller still has to read, and this call
// does not count as a read. ReadHeld does not wait. It allocates nothing unless it
// begins to decode ahead: then it calls ctx and decodes with the values of that
// context.
func (r *Reader) ReadHeld(p []byte, off, end int64, ctx func() context.Context) bool {
	if off < 0 || len(p) == 0 || off > r.x.Size()-int64(len(p)) || r.x.Codec() == layerindex.Plain {
		return false
	}
	l, err := r.layout()
	if err != nil || l.covered(off, off+int64(len(p))) != nil {
		return false // ReadFileAt tells
	}
	n := 0
	for i := l.Find(off); n < len(p); i++ {
		spanStart, _ := l.Start(i)
		spanEnd, _ := l.End(i)
		at := off + int64(n)
		part := p[n:min(int64(len(p)), spanEnd-off)]
		s := r.opts.Cache.held(spanKey{r, i})
		if s == nil || !s.held(part, at-spanStart) {
			return false
		}
		n += len(part)
	}
	r.readAhead(ctx, blobMap{l}, fileRead{off, off + int64(len(p)), end})
	return true
}

// Source returns the places where decoding of the tar from off to end begins and
// ends: it begins at byte out of the tar, and reads the blob from in to about inEnd.
func (r *Reader) Source(off, end int64) (out, in, inEnd int64, err error) {
	if off < 0 || end <= off || end > r.x.Size() {
		return 0, 0, 0, fmt.Errorf("no bytes %d to %d in a tar of %d", off, end, r.x.Size())
	}
	if r.x.Codec() == layerindex.Plain {
		return off, off, end, nil
	}
	l, err := r.layout()
	if err != nil {
		return 0, 0, 0, err
	}
	out, in = l.Start(l.Find(off))
	return out, in, max(in, blobMap{l}.in(end)), nil
}

// Close stops decoding ahead and the decoding of spans that are too long for memory,
// and frees their temporary files. Reads that wait for such spans fail.
func (r *Reader) Close() error {
	r.close()
	if p := r.opts.Prover; p != nil {
		p.reader.CompareAndSwap(r, nil)
	}
	r.stopAhead()
	r.mu.Lock()
	defer r.mu.Unlock()
	var err error
	for _, l := range r.longs {
		err = errors.Join(err, l.Close())
	}
	r.opts.Cache.parts.drop(r)
	return err
}

// layout returns the pieces that the layer is decoded in. When they are in memory that
// allocates nothing.
func (r *Reader) layout() (*layout, error) {
	if l := r.table.Load(); l != nil {
		return l, nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if l := r.table.Load(); l != nil {
		return l, nil
	}
	l, err := newLayout(r.x)
	if err == nil {
		r.table.Store(l)
	}
	return l, err
}

// newSpan returns span i, nothing of it decoded.
func (r *Reader) newSpan(l *layout, i int) *span {
	start, startIn := l.Start(i)
	out, in := l.End(i)
	return &span{
		r: r, l: l, i: i, in: in,
		size:  out - start,
		ratio: float64(in-startIn) / float64(out-start),
	}
}

// A blobStream reads a blob from some offset on, for a decoder. It asks for
// as much at once as is expected to be needed.
type blobStream struct {
	blob Blob
	off  int64
	end  int64 // where the span's input ends: more is read only if asked for
	// ctx and hint are set for one stretch of decoding at a time: a Decoder
	// reads through io.Reader, which has no room for them.
	ctx  context.Context
	hint int64 // bytes still expected to be needed

	buf []byte // read and not yet handed on
	mem []byte // what buf is a part of
	// failed: the decoder has been given an error, which it may keep for
	// after what it puts out first.
	failed bool
}

// Done is for decoders that wait for memory.
func (s *blobStream) Done() <-chan struct{} { return s.ctx.Done() }

const streamPiece = 64 << 10

var _ io.ReadSeeker = (*blobStream)(nil)

func (s *blobStream) Read(p []byte) (int, error) {
	if len(s.buf) == 0 {
		if err := s.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(p, s.buf)
	s.buf = s.buf[n:]
	return n, nil
}

// Seek goes forward without reading: a decoder that enters a DEFLATE block in
// its middle reads the block's header and then leaves out what is between.
func (s *blobStream) Seek(n int64, whence int) (int64, error) {
	if whence != io.SeekCurrent || n < 0 {
		return 0, fmt.Errorf("seek by %d from %d", n, whence)
	}
	held := min(n, int64(len(s.buf)))
	s.buf = s.buf[held:]
	s.off += n - held
	return s.off - int64(len(s.buf)), nil
}

// fill reads the next piece of the blob.
func (s *blobStream) fill() error {
	n := max(s.hint, streamPiece)
	if left := s.end - s.off; left > 0 {
		n = min(n, left)
	} else {
		n = streamPiece
	}
	n = min(n, s.blob.Size()-s.off)
	if n <= 0 {
		return io.EOF
	}
	n = min(n, maxSpanMemory)
	if int64(cap(s.mem)) < n || int64(cap(s.mem)) > 4*n {
		s.mem = make([]byte, n)
	}
	buf := s.mem[:n]
	k, err := s.blob.ReadAt(s.ctx, buf, s.off)
	if k == 0 && err != nil {
		s.failed = true
		return err
	}
	s.off += int64(k)
	s.hint -= int64(k)
	s.buf = buf[:k]
	return nil
}
