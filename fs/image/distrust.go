package image

import (
	"context"
	"errors"

	"golang.org/x/sync/errgroup"

	"github.com/imgfs/imgfs/layerindex"
)

// An index of others may be well formed and say what no image can be made of: names that
// no tree has, or more than an image may take. Nobody has seen anything of it by then, and
// so the image is opened as if it were not there.

// distrust has those layers read by our own indexes that are read by indexes of others,
// as no tree can be made of all, and reports whether there are any. It is for layers
// that nobody reads yet.
func (l *Layers) distrust(ctx context.Context, why error) bool {
	if ctx.Err() != nil {
		return false
	}
	group, ctx := errgroup.WithContext(ctx)
	any := false
	for _, layer := range distinct(l.all) {
		if layer.Use().Vouched == VouchedHere {
			continue
		}
		if !any {
			layer.opener.warnf("%v: an index that somebody else made may be false; what is read by such is read whole now", why)
		}
		any = true
		group.Go(func() error { return layer.readHere(ctx) })
	}
	if err := group.Wait(); err != nil {
		return false
	}
	return any
}

// readHere has a layer that nobody reads yet read by our own index.
func (l *Layer) readHere(ctx context.Context) error {
	was := l.state.Load()
	x, built, real, err := l.opener.obtain(ctx, l.number, l.Layer)
	if err != nil {
		return err
	}
	s, err := l.opener.connect(real, x, useHere())
	if err != nil {
		x.Close()
		return err
	}
	s.proven = built
	l.Layer, l.Index, l.Built = real, x, built
	l.mend.replace(l, was, s)
	l.opened = s
	l.forget(was)
	return nil
}

// isTooMuch reports whether layers cannot be opened because all their indexes together
// take more than an image may.
func isTooMuch(err error) bool {
	return errors.Is(err, layerindex.ErrMetadata) || errors.Is(err, layerindex.ErrEntries)
}
