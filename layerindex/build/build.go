// Package build makes the index of a layer by reading all of it once: a tar, plain
// or compressed with gzip or zstd.
//
//	x, err := build.Index(ctx, layer, blob, nil)
//
// The index is in memory. It is enough to read any part of the layer later with
// package reader, and to check the bytes that are read.
package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/layerindex/internal/decoders"
	"github.com/imgfs/imgfs/layerindex/internal/nestedsum"
	"github.com/imgfs/imgfs/layerindex/internal/tarscan"
	"github.com/opencontainers/go-digest"
)

// Options are the choices of Index. Nil and zero mean the defaults.
type Options struct {
	// ChunkSize is the size in bytes of the pieces of the blob that get a
	// checksum each: a multiple of 4,096. Default: DefaultChunkSize.
	ChunkSize int64
	// SpanSize is how many bytes of output lie between checkpoints, about.
	// Default: 1 MiB.
	SpanSize int64
	// MaxSize bounds the bytes of the uncompressed layer. Index fails at the
	// first byte beyond, without reading the rest of the blob. Zero means no
	// bound.
	MaxSize int64
	// NoDigests leaves out the digest of every file's content.
	NoDigests bool
	// Budget, if not nil, bounds what names, attributes and entries take. Passes
	// over layers of the same image share one.
	Budget *layerindex.Budget
	// Progress, if not nil, is called now and then with the number of bytes
	// of the blob that have been read.
	Progress func(in int64)
}

// DefaultChunkSize is that of Options.ChunkSize, in bytes.
const DefaultChunkSize = 64 << 10

const (
	// pieceSize is how much the stages of the pipeline hand on at a time,
	// about.
	pieceSize = 256 << 10
	// piecesInFlight bounds the memory of a stage of the pipeline.
	piecesInFlight = 8
	// tarBlock is the unit that a tar is padded to.
	tarBlock = 512
	// padding is how many zero bytes behind a tar its diff_id may cover.
	padding = 10240
)

// Index reads the whole blob of a layer from src once and makes its index. It
// checks the size and the digest of the blob and the diff_id, and fails if one of
// them is wrong or if the tar or the compressed stream is damaged.
//
// Errors wrap ErrDigest, ErrDiffID, ErrCompressed, ErrTar, ErrTooBig, ErrMetadata
// or ErrEntries of package layerindex, io.ErrUnexpectedEOF, or the error of src. If
// the blob is not the one that the manifest names, the error is ErrDigest, whatever
// else is wrong with it. A layer that is out of bounds is not read to its end.
//
// The stages (fetching, hashing the blob, decoding, hashing and reading the tar)
// run side by side. All of them have ended when Index returns.
func Index(ctx context.Context, l layerindex.Layer, src io.Reader, opts *Options) (*layerindex.Index, error) {
	if opts == nil {
		opts = &Options{}
	}
	p := &pass{layer: l, opts: *opts, index: layerindex.NewWriter(&layerindex.WriterOptions{Budget: opts.Budget, NoDigests: opts.NoDigests})}
	defer p.index.Close()
	if p.opts.ChunkSize == 0 {
		p.opts.ChunkSize = DefaultChunkSize
	}
	if p.opts.ChunkSize < 0 || p.opts.ChunkSize%4096 != 0 || p.opts.ChunkSize > 1<<30 {
		return nil, fmt.Errorf("chunk size %d is not a multiple of 4096", p.opts.ChunkSize)
	}
	for _, d := range []digest.Digest{l.Digest, l.DiffID} {
		if d.Validate() != nil || d.Algorithm() != digest.SHA256 {
			return nil, fmt.Errorf("%q is not a sha256 digest, the only kind supported", d)
		}
	}
	if l.Size < 0 || l.Size > layerindex.MaxSize {
		return nil, fmt.Errorf("%w: a blob of %d bytes", layerindex.ErrDigest, l.Size)
	}
	return p.run(ctx, src)
}

// A pass is the state of one call of Index. Each stage alone writes its own fields
// until it has ended.
type pass struct {
	layer layerindex.Layer
	opts  Options
	index *layerindex.Writer
	found layerindex.Summary
	// refuse ends the pass, as the layer is out of bounds.
	refuse context.CancelCauseFunc

	blobSum *nestedsum.Hash // the stage of the blob
	in      int64

	decodeErr error // the stage of decoding
	tarSize   int64

	tarSum  *nestedsum.Hash // the stage of the tar
	scanErr error
}

func (p *pass) run(ctx context.Context, src io.Reader) (*layerindex.Index, error) {
	ctx, p.refuse = context.WithCancelCause(ctx)
	defer p.refuse(nil)
	p.blobSum, p.tarSum = nestedsum.New(), nestedsum.New()
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
	p.found.ChunkSize, p.found.BlobSize, p.found.TarSize = p.opts.ChunkSize, p.in, p.tarSize
	return p.index.Finish(p.found)
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
		p.index.AddChunk(p.blobSum.SumPart())
	}
}

// decode decodes the blob into pieces of the tar. When it fails it leaves the
// rest of the blob to be hashed only.
func (p *pass) decode(ctx context.Context, src io.Reader, to *fan) {
	defer io.Copy(io.Discard, src)
	dec, c, err := decoders.Start(src, p.opts.SpanSize)
	if err != nil {
		p.decodeErr = err
		return
	}
	// zstd's decoders share the memory for their largest windows.
	if shared, ok := dec.(io.Closer); ok {
		defer shared.Close()
	}
	p.found.Codec = c
	for {
		// A little input can decode to very much.
		if p.decodeErr = ctx.Err(); p.decodeErr != nil {
			return
		}
		out, err := dec.Next()
		if err := p.index.AddCheckpoints(dec.Checkpoints()); err != nil {
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
			p.decodeErr = fmt.Errorf("%w: unpacked it has more than %d bytes", layerindex.ErrTooBig, p.opts.MaxSize)
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
	s := tarscan.New(p.index.AddEntry, &tarscan.Options{Sums: p.tarSum, NoDigests: p.opts.NoDigests, Budget: p.opts.Budget, MaxSize: p.opts.MaxSize})
	defer s.Release()
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
	p.found.Blob = p.blobSum.Sum()
	switch got := asDigest(p.found.Blob); {
	case p.in > p.layer.Size:
		return fmt.Errorf("%w: it has more than %d bytes", layerindex.ErrDigest, p.layer.Size)
	case p.in < p.layer.Size:
		return fmt.Errorf("%w: it ends after %d of %d bytes", layerindex.ErrDigest, p.in, p.layer.Size)
	case got != p.layer.Digest && p.decodeErr != nil:
		// Not wrapped: what is wrong is the blob, and this says where.
		return fmt.Errorf("%w: its digest is %s; %v", layerindex.ErrDigest, got, p.decodeErr)
	case got != p.layer.Digest:
		return fmt.Errorf("%w: its digest is %s", layerindex.ErrDigest, got)
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
	p.found.DiffID = p.tarSum.Sum()
	first := asDigest(p.found.DiffID)
	zeros := make([]byte, tarBlock)
	for pad := 0; asDigest(p.found.DiffID) != p.layer.DiffID; pad += tarBlock {
		if pad == padding {
			return fmt.Errorf("%w: its digest is %s, not %s", layerindex.ErrDiffID, first, p.layer.DiffID)
		}
		p.tarSum.Write(zeros)
		p.found.DiffID = p.tarSum.Sum()
	}
	return nil
}

func asDigest(sum [32]byte) digest.Digest {
	return digest.NewDigestFromBytes(digest.SHA256, sum[:])
}

// outOfBounds reports whether an error is of a layer that asks for too much.
func outOfBounds(err error) bool {
	return errors.Is(err, layerindex.ErrMetadata) || errors.Is(err, layerindex.ErrEntries) || errors.Is(err, layerindex.ErrTooBig)
}
