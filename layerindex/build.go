package layerindex

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/imgfs/imgfs/layerindex/internal/codec"
	"github.com/imgfs/imgfs/layerindex/internal/nestedsum"
	"github.com/opencontainers/go-digest"
)

// Errors of Build that say which claim about a layer did not hold.
var (
	// ErrDigest: the blob does not have the digest or the size that the
	// manifest gives it.
	ErrDigest = errors.New("blob is not what the manifest says")
	// ErrDiffID: the uncompressed layer is not what the config says.
	ErrDiffID = errors.New("uncompressed layer is not what the config says")
	// ErrTooBig: the uncompressed layer is bigger than BuildOptions allow.
	ErrTooBig = errors.New("bigger than allowed")
	// ErrCompressed: the compressed stream is damaged.
	ErrCompressed = codec.ErrFormat
)

// A Layer is what manifest and config say of a layer.
type Layer struct {
	Digest digest.Digest // of the blob
	Size   int64         // of the blob, in bytes
	DiffID digest.Digest // of the uncompressed tar
}

// BuildOptions are the choices of Build. Nil and zero mean the defaults.
type BuildOptions struct {
	// ChunkSize is the size in bytes of the pieces of the blob that get a
	// checksum each: a multiple of 4,096. Default: 64 KiB.
	ChunkSize int64
	// SpanSize is how many bytes of output lie between checkpoints, about.
	// Default: 1 MiB.
	SpanSize int64
	// MaxSize bounds the bytes of the uncompressed layer. Build ends when there
	// is one more, without reading the rest of the blob. Zero means no bound.
	MaxSize int64
	// NoDigests leaves out the digest of every file's content.
	NoDigests bool
	// Budget, if not nil, bounds what names, attributes and entries take. Passes
	// over layers of the same image share one.
	Budget *Budget
	// Progress, if not nil, is called now and then with the number of bytes
	// of the blob that have been read.
	Progress func(in int64)
}

const (
	defaultChunkSize = 64 << 10
	// pieceSize is how much the stages of the pipeline hand on at a time,
	// about.
	pieceSize = 256 << 10
	// piecesInFlight bounds the memory of a stage of the pipeline.
	piecesInFlight = 8
)

// Build reads the whole blob of a layer from src once and makes its index. It
// checks the blob's size and digest and the diff_id; if any of them does not
// hold, or the tar or the compressed stream is damaged, there is no index.
// Errors wrap ErrDigest, ErrDiffID, ErrCompressed, ErrTar, ErrTooBig,
// ErrMetadata, ErrEntries, io.ErrUnexpectedEOF or what src returned. A blob that
// is not what the manifest says is reported as that, whatever else is wrong with
// it; but a layer that is out of bounds is not read to its end.
//
// The stages (fetching, hashing the blob, decoding, hashing and reading the
// tar) run side by side; when Build returns all have ended.
func Build(ctx context.Context, l Layer, src io.Reader, opts *BuildOptions) (*Index, error) {
	if opts == nil {
		opts = &BuildOptions{}
	}
	p := &pass{layer: l, opts: *opts}
	if p.opts.ChunkSize == 0 {
		p.opts.ChunkSize = defaultChunkSize
	}
	if p.opts.ChunkSize < 0 || p.opts.ChunkSize%4096 != 0 || p.opts.ChunkSize > 1<<30 {
		return nil, fmt.Errorf("chunk size %d is not a multiple of 4096", p.opts.ChunkSize)
	}
	for _, d := range []digest.Digest{l.Digest, l.DiffID} {
		if d.Validate() != nil || d.Algorithm() != digest.SHA256 {
			return nil, fmt.Errorf("%q is not a sha256 digest, the only kind supported", d)
		}
	}
	if l.Size < 0 || l.Size > maxSize {
		return nil, fmt.Errorf("%w: a blob of %d bytes", ErrDigest, l.Size)
	}
	p.draft.cols.budget, p.draft.spans.budget = p.opts.Budget, p.opts.Budget
	defer p.draft.spans.close()
	return p.run(ctx, src)
}

// A pass is the state of one Build. Each stage alone writes its own fields
// until it has ended.
type pass struct {
	layer Layer
	opts  BuildOptions
	draft draft
	// refuse ends the pass, as the layer is out of bounds.
	refuse context.CancelCauseFunc

	blobSum *nestedsum.Hash // the stage of the blob
	in      int64

	decodeErr error // the stage of decoding
	tarSize   int64

	tarSum  *nestedsum.Hash // the stage of the tar
	scanErr error
}

func (p *pass) run(ctx context.Context, src io.Reader) (*Index, error) {
	ctx, p.refuse = context.WithCancelCause(ctx)
	defer p.refuse(nil)
	p.blobSum = nestedsum.New()
	// A piece is a number of whole chunks. A small blob is one piece, with
	// room for the byte too many.
	piece := max(1, pieceSize/p.opts.ChunkSize) * p.opts.ChunkSize
	blob := newFan(int(min(piece, max(p.layer.Size, 0)+1)), 2)
	tar := newFan(pieceSize, 1)
	done := make(chan struct{}, 3)
	stage := func(run func()) {
		go func() {
			defer func() { done <- struct{}{} }()
			run()
		}()
	}
	stage(func() { blob.each(0, p.hashBlob) })
	stage(func() { p.decode(ctx, blob.reader(1), tar); tar.close() })
	stage(func() { p.scan(tar) })

	err := p.fetch(ctx, src, blob)
	blob.close()
	for range cap(done) {
		<-done
	}
	if cause := context.Cause(ctx); outOfBounds(cause) {
		return nil, cause
	}
	if err != nil {
		return nil, err
	}
	if err := p.verify(); err != nil {
		return nil, err
	}
	p.draft.head.chunkSize = uint32(p.opts.ChunkSize)
	p.draft.head.blobSize, p.draft.head.tarSize = p.in, p.tarSize
	return p.draft.finish(!p.opts.NoDigests)
}

// fetch reads src to its end, a piece at a time. It reads one byte more than
// the blob should have, to notice one that is too long.
func (p *pass) fetch(ctx context.Context, src io.Reader, to *fan) error {
	src = io.LimitReader(src, p.layer.Size+1)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		piece := to.get()
		n, err := io.ReadFull(src, piece.buf)
		p.in += int64(n)
		to.put(piece, n)
		if p.opts.Progress != nil {
			p.opts.Progress(p.in)
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return ctx.Err()
		}
		if err != nil {
			return err
		}
	}
}

func (p *pass) hashBlob(piece []byte) {
	for chunk := range slices.Chunk(piece, int(p.opts.ChunkSize)) {
		p.blobSum.Begin()
		p.blobSum.WritePart(chunk)
		sum := p.blobSum.SumPart()
		p.draft.chunks = append(p.draft.chunks, sum[:]...)
	}
}

// decode decodes the blob into pieces of the tar. When it fails it leaves the
// rest of the blob to be hashed only.
func (p *pass) decode(ctx context.Context, src io.Reader, to *fan) {
	defer io.Copy(io.Discard, src)
	dec, c, err := newIndexer(src, p.opts.SpanSize)
	if err != nil {
		p.decodeErr = err
		return
	}
	// zstd's decoders share the memory for their largest windows.
	if shared, ok := dec.(io.Closer); ok {
		defer shared.Close()
	}
	p.draft.head.codec = c
	for {
		// A little input can decode to very much.
		if p.decodeErr = ctx.Err(); p.decodeErr != nil {
			return
		}
		out, err := dec.Next()
		if err := p.draft.spans.add(dec.Checkpoints()); err != nil {
			p.refuse(err)
			p.decodeErr = err
			return
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			p.decodeErr = err
			return
		}
		p.tarSize += int64(len(out))
		if p.opts.MaxSize > 0 && p.tarSize > p.opts.MaxSize {
			p.decodeErr = fmt.Errorf("%w: unpacked it has more than %d bytes", ErrTooBig, p.opts.MaxSize)
			p.refuse(p.decodeErr)
			return
		}
		for len(out) > 0 {
			piece := to.get()
			n := copy(piece.buf, out)
			to.put(piece, n)
			out = out[n:]
		}
	}
}

// scan reads the tar's entries. After an error it only lets the pieces pass.
func (p *pass) scan(from *fan) {
	s := NewScanner(p.draft.cols.add, &ScanOptions{NoDigests: p.opts.NoDigests, Budget: p.opts.Budget, MaxSize: p.opts.MaxSize})
	defer s.release()
	p.tarSum = s.sums
	from.each(0, func(b []byte) {
		if p.scanErr == nil {
			if _, p.scanErr = s.Write(b); outOfBounds(p.scanErr) {
				p.refuse(p.scanErr)
			}
		}
	})
	if p.scanErr == nil && p.decodeErr == nil {
		p.scanErr = s.Close()
	}
}

// verify compares what was read with what the layer should be.
func (p *pass) verify() error {
	h := &p.draft.head
	h.blob = p.blobSum.Sum()
	switch got := sha256Digest(h.blob[:]); {
	case p.in > p.layer.Size:
		return fmt.Errorf("%w: it has more than %d bytes", ErrDigest, p.layer.Size)
	case p.in < p.layer.Size:
		return fmt.Errorf("%w: it ends after %d of %d bytes", ErrDigest, p.in, p.layer.Size)
	case got != p.layer.Digest && p.decodeErr != nil:
		// Not wrapped: what is wrong is the blob, and this says where.
		return fmt.Errorf("%w: its digest is %s; %v", ErrDigest, got, p.decodeErr)
	case got != p.layer.Digest:
		return fmt.Errorf("%w: its digest is %s", ErrDigest, got)
	case p.decodeErr != nil:
		return p.decodeErr
	case p.scanErr != nil:
		return p.scanErr
	}
	return p.verifyDiffID()
}

// verifyDiffID compares the tar's digest, also as if padded: "Padding" in
// docs/index-format.md.
func (p *pass) verifyDiffID() error {
	h := &p.draft.head
	h.diffID = p.tarSum.Sum()
	first := sha256Digest(h.diffID[:])
	zeros := make([]byte, tarBlock)
	for pad := 0; sha256Digest(h.diffID[:]) != p.layer.DiffID; pad += tarBlock {
		if pad == padding {
			return fmt.Errorf("%w: its digest is %s, not %s", ErrDiffID, first, p.layer.DiffID)
		}
		p.tarSum.Write(zeros)
		h.diffID = p.tarSum.Sum()
	}
	return nil
}

// magics are the first bytes of compressed formats.
var magics = []struct {
	name  string
	bytes []byte
	codec Codec
	known bool
}{
	{"gzip", []byte{0x1f, 0x8b}, Gzip, true},
	{"zstd", []byte{0x28, 0xb5, 0x2f, 0xfd}, Zstd, true},
	{"xz", []byte{0xfd, '7', 'z', 'X', 'Z', 0}, 0, false},
	{"bzip2", []byte("BZh"), 0, false},
	{"lz4", []byte{0x04, 0x22, 0x4d, 0x18}, 0, false},
}

// newIndexer starts the decoder that the first bytes of a blob ask for. The
// media type is not asked: docker and containerd go by the bytes as well.
func newIndexer(src io.Reader, span int64) (codec.Indexer, Codec, error) {
	r := bufio.NewReaderSize(src, 4096)
	head, err := r.Peek(8)
	if err != nil && err != io.EOF {
		return nil, 0, err
	}
	for _, m := range magics {
		if !bytes.HasPrefix(head, m.bytes) {
			continue
		}
		if !m.known {
			return nil, 0, fmt.Errorf("%w: %s is not a compression of layers", ErrCompressed, m.name)
		}
		return openIndexer(m.codec, r, span), m.codec, nil
	}
	if len(head) >= 4 && head[0]&0xf0 == 0x50 && bytes.Equal(head[1:4], []byte{0x2a, 0x4d, 0x18}) {
		return openIndexer(Zstd, r, span), Zstd, nil // a skippable frame first
	}
	return openIndexer(Plain, r, span), Plain, nil
}
