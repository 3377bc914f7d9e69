// Package estargz makes the index of an eStargz or stargz layer without reading the
// layer: of the table of contents (TOC) that such a layer has at its end.
//
//	x, err := estargz.Index(ctx, layer, blob, &estargz.Options{TOCDigest: d})
//
// Such a layer is a gzip file like any other, in which every file begins a gzip member
// of its own (or, with a minimum size of chunks, several share one). Its specification
// is docs/estargz.md of github.com/containerd/stargz-snapshotter.
//
// # Trust
//
// With TOCDigest, which the image's manifest has in an annotation, the TOC is what the
// image's publisher wrote: all of the JSON text is compared with the digest. Without it
// whoever wrote the blob's end is believed. Either way contents are
// proven by the digests in the TOC, while names and attributes, and what the tar says of
// both, are only known when the whole blob was read.
//
// # Limits
//
// A TOC says less than the tar. Times are in whole seconds (layerindex.LossSubSecond), and
// old programs leave out attributes without a value (layerindex.LossEmptyXattrs). Names that are not UTF-8 give layerindex.ErrLossy. A sparse file of the tar is one in
// full in the TOC, which cannot be seen in it: the tar is not valid then, and a pass
// over the blob refuses it.
package estargz

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/layerindex/internal/tarscan"
	"github.com/imgfs/imgfs/layerindex/internal/toc"
	"github.com/opencontainers/go-digest"
)

const (
	// TOCDigestAnnotation is the annotation of a layer's descriptor that has the
	// digest of the TOC's JSON text.
	TOCDigestAnnotation = "containerd.io/snapshot/stargz/toc.digest"
	// TOCName is the file of the tar that has the TOC, in its root.
	TOCName = "stargz.index.json"
)

// ErrNone says that a layer has no TOC, or one that does not tell what the layer's
// contents hash to. It comes wrapped.
var ErrNone = toc.ErrNone

// Options are the choices of Index. Nil and zero mean the defaults.
type Options struct {
	// Budget, if not nil, bounds what names, attributes, entries and checkpoints
	// take.
	Budget *layerindex.Budget
	// TOCDigest is what the manifest's annotation says. Default: the TOC is taken as
	// it is, and the file of the tar that it is in is an entry of the index.
	TOCDigest digest.Digest
	// MaxTOC bounds the bytes of the TOC, uncompressed. Default: 150 MiB.
	MaxTOC int64
	// MaxSize bounds the bytes of the contents, padded to 512. Zero means no bound.
	MaxSize int64
	// External returns the blob of a TOC that is not in the layer, but in an image of
	// its own: the one layer of the image with the tag of this one and "-esgztoc".
	// It is called for layers that say so, if they have a TOCDigest. Default: there is none.
	External func(ctx context.Context) ([]byte, error)
}

// Blob is the compressed layer. Nothing in it has to be checked before.
type Blob = toc.Blob

// The end of the blob that is read first has most TOCs: a fraction of the blob, in
// bounds. TOCs take 1 to 3 % of a layer.
const (
	tailFraction = 40
	tailLeast    = 64 << 10
	tailMost     = 4 << 20
)

// Index returns the index of a layer by its TOC. It reads the end of the blob, once for
// most layers. The index is in memory, in the space of contents, and its proofs are of
// output. Nobody has compared the layer's DiffID with anything.
//
// The error wraps ErrNone if the layer has no TOC of use, layerindex.ErrLossy if the
// TOC cannot have all of the names, layerindex.ErrIndex if it is wrong,
// layerindex.ErrMetadata, ErrEntries or ErrTooBig if it is out of bounds, or is the
// error of blob or of ctx.
func Index(ctx context.Context, l layerindex.Layer, blob Blob, opts *Options) (*layerindex.Index, error) {
	r := &indexer{ctx: ctx, layer: l, blob: blob}
	if opts != nil {
		r.opts = *opts
	}
	if r.opts.MaxTOC <= 0 || r.opts.MaxTOC > toc.MaxText {
		r.opts.MaxTOC = toc.MaxText
	}
	if err := toc.CheckLayer(l, blob); err != nil {
		return nil, err
	}
	if d := r.opts.TOCDigest; d != "" && (d.Validate() != nil || d.Algorithm() != digest.SHA256) {
		return nil, fmt.Errorf("%w: the annotation's %q is not a sha256 digest", layerindex.ErrIndex, d)
	}
	// What is read of the blob is held until the index is made.
	r.held = r.opts.Budget.Part()
	defer r.held.Undo()
	x, err := r.run()
	if err != nil {
		return nil, fmt.Errorf("TOC of eStargz: %w", err)
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

	tail    []byte // the end of the blob
	footer  footer
	head    []byte // of the TOC's tar: the headers before the text
	entry   layerindex.Entry
	builder *toc.Builder
	lacks   layerindex.Loss // what no entry has
}

func (r *indexer) run() (*layerindex.Index, error) {
	if err := r.readFooter(); err != nil {
		return nil, err
	}
	stored, err := r.readStored()
	if err != nil {
		return nil, err
	}
	w := layerindex.NewWriter(&layerindex.WriterOptions{Budget: r.opts.Budget})
	defer w.Close()
	limit := r.layer.Size - r.footer.size
	if !r.footer.external {
		limit = r.footer.toc
	}
	r.builder = toc.NewBuilder(w, limit, r.opts.MaxSize)
	if err := r.readTOC(stored); err != nil {
		return nil, err
	}
	if r.opts.TOCDigest == "" {
		if err := r.addTOC(); err != nil {
			return nil, err
		}
	}
	return r.builder.Finish(r.layer, layerindex.Summary{
		Codec: layerindex.Gzip, Origin: layerindex.OriginEStargz, Losses: layerindex.LossSubSecond | r.lacks,
	})
}

// readFooter reads the end of the blob.
func (r *indexer) readFooter() error {
	size := r.layer.Size
	n := min(max(size/tailFraction, tailLeast), tailMost, size)
	var err error
	if r.tail, err = toc.ReadRange(r.ctx, r.blob, r.held, size-n, size); err != nil {
		return err
	}
	var ok bool
	if r.footer, ok = parseFooter(r.tail); !ok {
		if r.opts.TOCDigest != "" {
			return fmt.Errorf("%w: the layer has no footer", layerindex.ErrIndex)
		}
		return fmt.Errorf("%w: the layer has no footer", ErrNone)
	}
	return nil
}

// readStored returns the gzip member with the TOC.
func (r *indexer) readStored() ([]byte, error) {
	if r.footer.external {
		if r.opts.External == nil || r.opts.TOCDigest == "" {
			return nil, fmt.Errorf("%w: the TOC is in another image", ErrNone)
		}
		return r.opts.External(r.ctx)
	}
	return r.read(r.footer.toc, r.layer.Size-r.footer.size)
}

// read returns the bytes of the blob from off to end, of which the tail need not be
// read again.
func (r *indexer) read(off, end int64) ([]byte, error) {
	tailAt := r.layer.Size - int64(len(r.tail))
	switch {
	case off >= end:
		return nil, fmt.Errorf("%w: the footer says that the TOC begins at %d of %d bytes", layerindex.ErrIndex, off, r.layer.Size)
	case off >= tailAt:
		return r.tail[off-tailAt : end-tailAt], nil
	case end <= tailAt:
		return toc.ReadRange(r.ctx, r.blob, r.held, off, end)
	}
	p, err := toc.ReadRange(r.ctx, r.blob, r.held, off, tailAt)
	if err != nil {
		return nil, err
	}
	return append(p, r.tail[:end-tailAt]...), nil
}

// readTOC reads the tar in which the TOC is and adds its entries to the index.
func (r *indexer) readTOC(stored []byte) error {
	tar, err := toc.NewText(r.ctx, layerindex.Gzip, stored, r.opts.MaxTOC+maxHead+tarBlock)
	if err != nil {
		return err
	}
	defer tar.Close()
	scan := tarscan.New(func(e *layerindex.Entry) error {
		r.entry = *e
		r.entry.Xattrs = append([]layerindex.Xattr(nil), e.Xattrs...)
		return nil
	}, &tarscan.Options{NoDigests: true})
	defer scan.Release()
	size, err := r.readHead(tar, scan)
	if err != nil {
		return err
	}
	text := &summed{src: io.LimitReader(tar, size), sum: sha256.New()}
	tr := toc.NewReader(text)
	if err := toc.Each(r.ctx, tr, r.add); err != nil {
		return asIndexError(err)
	}
	r.lacks = tr.Lacks()
	if text.n != size {
		return fmt.Errorf("%w: it ends after %d of %d bytes", layerindex.ErrIndex, text.n, size)
	}
	if err := scan.Skip(size); err != nil || r.entry.Type != layerindex.TypeReg || r.entry.Name != TOCName || r.entry.Sparse != nil {
		return fmt.Errorf("%w: %q is no TOC", layerindex.ErrIndex, r.entry.Name)
	}
	r.entry.Digest, r.entry.HasDigest = [32]byte(text.sum.Sum(nil)), true
	if got := digest.NewDigestFromBytes(digest.SHA256, r.entry.Digest[:]); r.opts.TOCDigest != "" && got != r.opts.TOCDigest {
		return fmt.Errorf("%w: its digest is %s, not the annotation's %s", layerindex.ErrIndex, got, r.opts.TOCDigest)
	}
	return nil
}

const (
	tarBlock = 512
	// maxHead bounds the headers before a TOC: they are one block.
	maxHead = 16 << 10
)

// readHead reads the headers before the TOC's text and returns the length of that.
func (r *indexer) readHead(tar io.Reader, scan *tarscan.Scanner) (int64, error) {
	for len(r.head) < maxHead && scan.Content() == 0 {
		r.head = append(r.head, make([]byte, tarBlock)...)
		block := r.head[len(r.head)-tarBlock:]
		_, err := io.ReadFull(tar, block)
		if err == nil {
			_, err = scan.Write(block)
		}
		if err != nil {
			return 0, asIndexError(err)
		}
	}
	switch size := scan.Content(); {
	case size == 0:
		return 0, fmt.Errorf("%w: no file with a TOC", layerindex.ErrIndex)
	case size > r.opts.MaxTOC:
		return 0, fmt.Errorf("%w: it has %d bytes, more than the %d that it may have", layerindex.ErrIndex, size, r.opts.MaxTOC)
	default:
		return size, nil
	}
}

// add adds an entry of the TOC.
func (r *indexer) add(e *toc.Entry) error {
	r.builder.Landmark(e)
	return r.builder.Add(e)
}

// asIndexError makes the end of a TOC, and what is wrong with the tar that it is in, an
// error of an index.
func asIndexError(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, layerindex.ErrTar) {
		return fmt.Errorf("%w: %w", layerindex.ErrIndex, err)
	}
	return err
}

// A summed reader hashes what it reads.
type summed struct {
	src io.Reader
	sum hash.Hash
	n   int64
}

func (s *summed) Read(p []byte) (int, error) {
	n, err := s.src.Read(p)
	s.sum.Write(p[:n])
	s.n += int64(n)
	return n, err
}
