package soci

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/opencontainers/go-digest"
)

// MaxZtoc is the size in bytes of the largest ztoc that is read or made.
const MaxZtoc = 150 << 20

// Options are the choices of Index. Nil and zero mean the defaults.
type Options struct {
	// Budget, if not nil, bounds what names, attributes, entries and windows take.
	Budget *layerindex.Budget
	// MaxSize bounds the bytes of the uncompressed layer. Zero means no bound.
	MaxSize int64
	// First are spans to fetch before anything is read (ParsePrefetch). What is not
	// in the ztoc is ignored.
	First []SpanRange
}

// checkEvery is how many entries are read between two looks at a context.
const checkEvery = 1 << 10

// Index makes the index of a layer from its ztoc. It reads nothing of the layer: the
// index says what the ztoc says, and its proofs are the digests of the ztoc's spans.
// Whether the ztoc is the one that the image names is the caller's to check.
//
// Errors wrap ErrIndex of package layerindex if the ztoc is damaged, contradicts itself
// or is of another layer; ErrLossy if it does not tell all that the layer has;
// ErrMetadata, ErrEntries or ErrTooBig if the layer is out of bounds; or are ctx.Err().
func Index(ctx context.Context, l layerindex.Layer, b []byte, opts *Options) (*layerindex.Index, error) {
	if opts == nil {
		opts = &Options{}
	}
	sum := layerindex.Summary{BlobSize: l.Size, Codec: layerindex.Gzip, Space: layerindex.SpaceTar, Proof: layerindex.ProofBlob, Origin: layerindex.OriginSOCI}
	var err error
	if sum.Blob, err = sha256Of(l.Digest); err != nil {
		return nil, err
	}
	if sum.DiffID, err = sha256Of(l.DiffID); err != nil {
		return nil, err
	}
	if len(b) > MaxZtoc {
		return nil, fmt.Errorf("%w: ztoc of %d bytes, more than %d", layerindex.ErrIndex, len(b), MaxZtoc)
	}
	z, err := open(b)
	if err == nil && z.blobSize != l.Size {
		err = fmt.Errorf("of a layer of %d bytes, and this one has %d", z.blobSize, l.Size)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: ztoc: %w", layerindex.ErrIndex, err)
	}
	if opts.MaxSize > 0 && z.tarSize > opts.MaxSize {
		return nil, fmt.Errorf("%w: unpacked it has %d bytes, more than %d", layerindex.ErrTooBig, z.tarSize, opts.MaxSize)
	}
	held := int64(z.sums.n) * spanCost
	defer opts.Budget.Release(held)
	if err := opts.Budget.Take(held); err != nil {
		return nil, fmt.Errorf("ztoc of %d spans: %w", z.sums.n, err)
	}
	if err := z.readSpans(); err != nil {
		return nil, fmt.Errorf("%w: ztoc: %w", layerindex.ErrIndex, err)
	}
	if sum.TarSize = z.tarSize; z.plain {
		sum.Codec = layerindex.Plain
	}
	w := layerindex.NewWriter(&layerindex.WriterOptions{Budget: opts.Budget, NoDigests: true})
	defer w.Close()
	if err := z.addEntries(ctx, w); err != nil {
		return nil, err
	}
	if err := z.addSpans(ctx, w); err != nil {
		return nil, err
	}
	for _, r := range opts.First {
		if r.First >= 0 && r.First <= r.Last && r.Last < len(z.spans) {
			w.AddFirst(layerindex.Extent{Off: z.spans[r.First].off, Size: z.spans[r.Last].end - z.spans[r.First].off})
		}
	}
	return w.Finish(sum)
}

// sha256Of returns the bytes of a digest.
func sha256Of(d digest.Digest) (sum [32]byte, err error) {
	if d.Validate() != nil || d.Algorithm() != digest.SHA256 {
		return sum, fmt.Errorf("%q is not a sha256 digest, the only kind supported", d)
	}
	_, err = hex.Decode(sum[:], []byte(d.Encoded()))
	return sum, err
}

// addEntries hands the entries to the writer of an index.
func (z *ztoc) addEntries(ctx context.Context, w *layerindex.Writer) error {
	r := entryReader{z: z}
	for i := range z.entries.n {
		if i%checkEvery == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		e, err := r.read(i)
		if errors.Is(err, layerindex.ErrLossy) {
			return fmt.Errorf("ztoc: entry %d, %.64q: %w", i, e.Name, err)
		}
		if err != nil {
			return fmt.Errorf("%w: ztoc: entry %d, %.64q: %w", layerindex.ErrIndex, i, e.Name, err)
		}
		if err := w.AddEntry(e); err != nil {
			return err
		}
	}
	return nil
}

// addSpans hands checkpoints and digests to the writer of an index. Of checkpoints for
// the same byte of the tar, as an empty member or block gives them, the first is one of
// the index, and so is none behind the last byte of the tar.
func (z *ztoc) addSpans(ctx context.Context, w *layerindex.Writer) error {
	out := int64(-1)
	for i := range z.spans {
		if err := ctx.Err(); err != nil {
			return err
		}
		s := &z.spans[i]
		if err := w.AddProof(layerindex.Proof{Off: s.off, Size: s.end - s.off, Sum: s.sum}); err != nil {
			return err
		}
		if z.plain || s.point.Out == out || i > 0 && s.point.Out >= z.tarSize {
			continue
		}
		out = s.point.Out
		if err := w.AddCheckpoints([]layerindex.Checkpoint{s.point}); err != nil {
			return err
		}
	}
	return nil
}
