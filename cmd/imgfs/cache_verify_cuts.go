package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/layerindex/reader"
	"github.com/imgfs/imgfs/remote/cache/blobs"
	"github.com/imgfs/imgfs/remote/cache/indexes"
)

// A blob may be cached by the cuts of indexes that others made, in a file for each of
// them. They are compared with these indexes.

// files verifies what is cached of a blob, and tells how much of it by now.
func (v *verifier) files(ctx context.Context, h blobs.Holding, progress func(done int64)) error {
	cuts, err := v.cutsOf(h)
	if err != nil {
		return err
	}
	done, unknown := int64(0), false
	for _, part := range h.Cuts {
		if part.Cached == 0 {
			continue
		}
		if c := cuts[part.Key]; c == nil {
			unknown = true
		} else if err := v.cuts(ctx, h, c, func(n int64) { progress(done + min(n, part.Cached)) }); err != nil {
			return err
		}
		done += part.Cached
		progress(done)
	}
	if h.Cached -= done; h.Cached > 0 {
		if err := v.blob(ctx, h, cuts[""], func(n int64) { progress(done + n) }); err != nil {
			return err
		}
	}
	if unknown && !slices.Contains(v.report.Unknown, h.Digest) {
		v.report.Unknown = append(v.report.Unknown, h.Digest)
	}
	return nil
}

// cutsOf returns the cuts of the indexes of a blob that others made, by their keys;
// that of chunks of one size is "". An index of which not all is here that would be needed
// has none.
func (v *verifier) cutsOf(h blobs.Holding) (map[string]blobs.Cuts, error) {
	all := make(map[string]blobs.Cuts)
	for _, f := range v.keyed[h.Digest] {
		x, err := v.store.OpenKey(f.Digest, f.Key)
		if errors.Is(err, indexes.ErrNone) {
			if size, sums, err := v.store.FarChunks(f.Digest, f.Key); err == nil {
				all[""] = blobs.Chunks{Size: size, Sums: sums}
			}
			continue
		}
		if err != nil {
			return nil, err
		}
		if c, err := cutsOf(x); err == nil {
			all[blobs.Key(c)] = c
		}
		x.Close()
	}
	return all, nil
}

// cutsOf returns how an index cuts its blob.
func cutsOf(x *layerindex.Index) (blobs.Cuts, error) {
	if x.ProofKind() == layerindex.ProofChunks {
		return chunksOf(x)
	}
	return reader.NewProver(x)
}

// cuts verifies what is cached by some cuts.
func (v *verifier) cuts(ctx context.Context, h blobs.Holding, c blobs.Cuts, progress func(done int64)) error {
	check, err := v.cache.Blobs.Verify(ctx, h.Digest, h.Size, c, progress)
	if err != nil {
		return err
	}
	for _, part := range h.Cuts {
		if part.Key == blobs.Key(c) {
			v.report.Bytes += part.Cached
		}
	}
	v.bad(h, check)
	return nil
}

// otherChunks is blob with the chunks of an index that another made. That they are not the
// layer's is no damage of that index's file, which says what it was made to say.
func (v *verifier) otherChunks(ctx context.Context, h blobs.Holding, others blobs.Cuts, progress func(done int64)) error {
	check, err := v.cache.Blobs.Verify(ctx, h.Digest, h.Size, others, progress)
	if err == nil {
		v.report.Bytes += h.Cached
		v.bad(h, check)
	}
	return err
}

// bad reports the chunks that were wrong.
func (v *verifier) bad(h blobs.Holding, check blobs.Check) {
	if check.Bad > 0 {
		v.wrong(wrongThing{Kind: "blob", Digest: h.Digest, Chunks: check.Bad, Bytes: check.BadBytes,
			Why: fmt.Sprintf("%d of %d chunks are not what the index says", check.Bad, check.Checked)})
	}
}
