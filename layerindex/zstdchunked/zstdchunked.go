// Package zstdchunked makes the index of a zstd:chunked layer without reading the layer:
// of the table of contents (TOC) that such a layer has in a skippable frame at its end,
// and of its tar-split.
//
//	a, err := zstdchunked.Annotated(descriptor.Annotations)
//	x, err := zstdchunked.Index(ctx, layer, blob, &zstdchunked.Options{Annotations: a})
//
// Such a layer is a zstd stream like any other, in which the content of every file is a
// frame of its own, or several: chunks. The format is that of
// go.podman.io/storage/pkg/chunked, and of the package zstdchunked of stargz-snapshotter's
// estargz.
//
// # Trust
//
// Where the TOC is, and its digest, the manifest says in annotations; the footer of the
// layer says the same, and is not looked at. So the TOC is what the image's publisher
// wrote, and with it the tar-split if the TOC has its digest. Contents are proven by the
// digests in the TOC. What the tar itself says is only known when the whole blob was
// read.
//
// # What a TOC cannot say
//
// JSON holds no names that are not UTF-8. The tar-split has the tar's headers as they
// are, and is used instead if the TOC's names may have lost bytes, or if reading it costs
// nothing. A layer that needs one and has none, as those of the programs before 2024,
// gives layerindex.ErrLossy. So does a sparse file, which the programs write
// in full, to a tar that is not valid then: but without the tar-split none is seen.
package zstdchunked

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/layerindex/internal/toc"
	"github.com/opencontainers/go-digest"
)

// ErrNone says that a layer has no TOC, or one that does not tell what the layer's
// contents hash to. It comes wrapped.
var ErrNone = toc.ErrNone

// Options are the choices of Index.
type Options struct {
	// Annotations are those of the layer. They must be given.
	Annotations Annotations
	// TOCDigest, if not "", is what the annotation of eStargz says, which layers of
	// stargz-snapshotter have besides: the digest of the TOC's JSON text.
	TOCDigest digest.Digest
	// Budget, if not nil, bounds what names, attributes, entries and checkpoints
	// take.
	Budget *layerindex.Budget
	// MaxSize bounds the bytes of the contents, padded to 512. Zero means no bound.
	MaxSize int64
}

// Blob is the compressed layer. Nothing in it has to be checked before.
type Blob = toc.Blob

// smallSplit is how long a tar-split may be to be read with the TOC in any case.
const smallSplit = 64 << 10

// Index returns the index of a layer by its TOC. It reads a range of the blob, and
// another one if it needs a long tar-split. The index is in memory, in the space of
// contents, and its proofs are of output. Nobody has compared the layer's DiffID with
// anything.
//
// The error wraps ErrNone if the TOC is of no use, layerindex.ErrLossy if the tar-split is
// needed and not to be had, or tells of sparse files, layerindex.ErrIndex if something
// is wrong, layerindex.ErrMetadata, ErrEntries or ErrTooBig if it is out of bounds, or is
// the error of blob or of ctx.
func Index(ctx context.Context, l layerindex.Layer, blob Blob, opts *Options) (*layerindex.Index, error) {
	r := &indexer{ctx: ctx, layer: l, blob: blob}
	if opts != nil {
		r.opts = *opts
	}
	if err := toc.CheckLayer(l, blob); err != nil {
		return nil, err
	}
	r.held = r.opts.Budget.Part()
	defer r.held.Undo()
	x, err := r.run()
	if err != nil {
		return nil, fmt.Errorf("TOC of zstd:chunked: %w", err)
	}
	return x, nil
}

// An indexer is the state of one call of Index.
type indexer struct {
	ctx   context.Context
	layer layerindex.Layer
	blob  Blob
	opts  Options
	held  *layerindex.Budget

	toc, split position        // stored is 0 if there is no tar-split
	stored     []byte          // the TOC as it is in the blob
	storedTS   []byte          // the tar-split likewise, once it is read
	tsDigest   string          // as the TOC has it
	lacks      layerindex.Loss // what no entry of the TOC has
}

func (r *indexer) run() (*layerindex.Index, error) {
	if err := r.positions(); err != nil {
		return nil, err
	}
	if err := r.readStored(); err != nil {
		return nil, err
	}
	if r.storedTS != nil {
		x, err := r.build(r.addSplit)
		if !errors.Is(err, errNoSplit) {
			return x, err
		}
	}
	x, err := r.build(r.addTOC)
	if !errors.Is(err, layerindex.ErrLossy) || r.storedTS != nil {
		return x, err
	}
	x, splitErr := r.build(r.addSplit)
	if errors.Is(splitErr, errNoSplit) {
		return nil, err // it says what is lost
	}
	return x, splitErr
}

// positions reads the annotations.
func (r *indexer) positions() error {
	a := r.opts.Annotations
	var kind int64
	var err error
	if r.toc, err = parsePosition(a.ManifestPosition, r.layer.Size, &kind); err != nil {
		return err
	}
	if kind != tocType {
		return fmt.Errorf("%w: a TOC of type %d", layerindex.ErrIndex, kind)
	}
	if r.toc.raw > toc.MaxText {
		return fmt.Errorf("%w: it decodes to %d bytes, more than the %d that it may have", layerindex.ErrIndex, r.toc.raw, toc.MaxText)
	}
	if a.TarSplitPosition == "" {
		return nil
	}
	if r.split, err = parsePosition(a.TarSplitPosition, r.layer.Size); err == nil && r.split.off < r.toc.end() && r.toc.off < r.split.end() {
		err = fmt.Errorf("%w: the tar-split at %d overlaps the TOC at %d", layerindex.ErrIndex, r.split.off, r.toc.off)
	}
	if err == nil && r.split.raw > toc.MaxText {
		r.split = position{} // the TOC may do without
	}
	return err
}

// readStored reads the TOC, and the tar-split if it is short and not far from it.
func (r *indexer) readStored() error {
	end := r.toc.end()
	along := r.split.off >= end && r.split.end()-end <= smallSplit
	if along {
		end = r.split.end()
	}
	p, err := toc.ReadRange(r.ctx, r.blob, r.held, r.toc.off, end)
	if err != nil {
		return err
	}
	r.stored = p[:r.toc.stored]
	if along {
		r.storedTS = p[r.split.off-r.toc.off:]
	}
	if got := digest.FromBytes(r.stored); got.String() != r.opts.Annotations.ManifestChecksum {
		return fmt.Errorf("%w: its digest is %s, not the annotation's %q", layerindex.ErrIndex, got, r.opts.Annotations.ManifestChecksum)
	}
	return nil
}

// build makes an index of what add adds to it.
func (r *indexer) build(add func(*toc.Builder) (layerindex.Loss, error)) (*layerindex.Index, error) {
	budget := r.opts.Budget.Part()
	w := layerindex.NewWriter(&layerindex.WriterOptions{Budget: budget})
	defer w.Close()
	limit := r.toc.off
	if r.split.stored > 0 {
		limit = min(limit, r.split.off)
	}
	b := toc.NewBuilder(w, limit, r.opts.MaxSize)
	losses, err := add(b)
	var x *layerindex.Index
	if err == nil {
		x, err = b.Finish(r.layer, layerindex.Summary{Codec: layerindex.Zstd, Origin: layerindex.OriginZstdChunked, Losses: losses})
	}
	if err != nil {
		budget.Undo()
		return nil, err
	}
	return x, nil
}

// addTOC adds the entries as the TOC has them.
func (r *indexer) addTOC(b *toc.Builder) (layerindex.Loss, error) {
	err := r.readTOC(func(tr *toc.Reader) error {
		return toc.Each(r.ctx, tr, func(e *toc.Entry) error {
			b.Landmark(e)
			return b.Add(e)
		})
	})
	switch {
	case r.opts.Annotations.First:
		// stargz-snapshotter rounds times, and podman dropped empty attributes.
		return r.lacks, err
	case r.tsDigest == "":
		return r.lacks & layerindex.LossEmptyXattrs, err // podman of 2023
	}
	return 0, err
}

// readTOC calls read with the TOC, which it must read to its end, and checks it then.
func (r *indexer) readTOC(read func(*toc.Reader) error) error {
	text, err := toc.NewText(r.ctx, layerindex.Zstd, r.stored, r.toc.raw)
	if err != nil {
		return asIndexError(err)
	}
	defer text.Close()
	src := &summed{src: text}
	if r.opts.TOCDigest != "" {
		src.sum = sha256.New()
	}
	tr := toc.NewReader(src)
	if err := read(tr); err != nil {
		return asIndexError(err)
	}
	r.tsDigest, r.lacks = tr.TarSplitDigest(), tr.Lacks()
	if src.n != r.toc.raw {
		return fmt.Errorf("%w: it decodes to %d bytes, not to %d", layerindex.ErrIndex, src.n, r.toc.raw)
	}
	if src.sum != nil {
		if got := digest.NewDigest(digest.SHA256, src.sum); got != r.opts.TOCDigest {
			return fmt.Errorf("%w: the annotation of eStargz names another TOC: %q, not %s", layerindex.ErrIndex, r.opts.TOCDigest, got)
		}
	}
	return nil
}

// asIndexError makes the end of a text, too early, an error of an index.
func asIndexError(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: %w", layerindex.ErrIndex, err)
	}
	return err
}

// A summed reader counts what it reads, and hashes it if sum is not nil.
type summed struct {
	src io.Reader
	sum hash.Hash
	n   int64
}

func (s *summed) Read(p []byte) (int, error) {
	n, err := s.src.Read(p)
	if s.sum != nil {
		s.sum.Write(p[:n])
	}
	s.n += int64(n)
	return n, err
}
