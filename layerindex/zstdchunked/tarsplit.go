package zstdchunked

import (
	"errors"
	"fmt"
	"io"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/layerindex/internal/toc"
	"github.com/opencontainers/go-digest"
)

// errNoSplit says that a layer has no tar-split, or one that the TOC does not vouch for.
var errNoSplit = errors.New("no tar-split")

// addSplit adds the entries as the tar-split has them, with the contents that the TOC
// has for each.
func (r *indexer) addSplit(b *toc.Builder) (layerindex.Loss, error) {
	// What is to be trusted of it is at the end of the TOC.
	if err := r.readTOC(func(tr *toc.Reader) error {
		return toc.Each(r.ctx, tr, func(*toc.Entry) error { return nil })
	}); err != nil {
		return 0, err
	}
	if r.split.stored == 0 || r.tsDigest == "" {
		return 0, errNoSplit
	}
	if r.storedTS == nil {
		var err error
		if r.storedTS, err = toc.ReadRange(r.ctx, r.blob, r.held, r.split.off, r.split.end()); err != nil {
			return 0, fmt.Errorf("tar-split: %w", err)
		}
	}
	if got := digest.FromBytes(r.storedTS); got.String() != r.tsDigest {
		return 0, fmt.Errorf("%w: the digest of the tar-split is %s, not %q as the TOC has it", layerindex.ErrIndex, got, r.tsDigest)
	}
	return 0, r.readTOC(func(tr *toc.Reader) error { return r.join(b, tr) })
}

// join reads TOC and tar-split side by side.
func (r *indexer) join(b *toc.Builder, tr *toc.Reader) error {
	text, err := toc.NewSideText(r.ctx, r.storedTS, r.split.raw)
	if err != nil {
		return asIndexError(err)
	}
	defer text.Close()
	src := &summed{src: text}
	next := func() (*toc.Entry, error) { // the next entry that is no chunk
		for {
			e, err := tr.Next()
			if err != nil || !e.IsChunk() {
				return e, err
			}
			if err := b.AddAs(e, nil); err != nil {
				return nil, err
			}
		}
	}
	err = toc.ReadTarSplit(r.ctx, src, r.opts.Budget, func(as *layerindex.Entry) error {
		e, err := next()
		if err == io.EOF || err == nil && !agree(e, as) {
			return fmt.Errorf("%w: the TOC does not have the entry %q of the tar-split in its place", layerindex.ErrIndex, as.Name[:min(len(as.Name), 64)])
		}
		if err != nil {
			return err
		}
		b.Landmark(e)
		return b.AddAs(e, as)
	})
	if err != nil {
		return fmt.Errorf("tar-split: %w", err)
	}
	if src.n != r.split.raw {
		return fmt.Errorf("%w: the tar-split decodes to %d bytes, not to %d", layerindex.ErrIndex, src.n, r.split.raw)
	}
	switch e, err := next(); {
	case err == nil:
		return fmt.Errorf("%w: the tar-split ends before the entry %q of the TOC", layerindex.ErrIndex, e.Name)
	case err != io.EOF:
		return err
	}
	return nil
}

// agree reports whether an entry of the TOC is about what one of the tar is about. Bytes
// of names may be lost in the TOC.
func agree(e *toc.Entry, as *layerindex.Entry) bool {
	return e.Type == as.Type && e.Size == as.Size && (e.Lost || e.Name == as.Name && e.Linkname == as.Linkname)
}
