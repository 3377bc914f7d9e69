package image

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache"
	"github.com/imgfs/imgfs/remote/cache/indexes"
	"github.com/imgfs/imgfs/remote/indexrepo"
)

// A layer that nobody here has read may have an index that somebody else made. Those
// that may be used are tried in the order of how much vouches for them, and the first
// one that can be read is taken. One that fails in any way costs time alone: what is
// left is to read the layer.

// A candidate is an index of a layer that somebody else made.
type candidate struct {
	by Voucher
	// what names it in messages, as "the eStargz table of contents".
	what string
	from string
	// key is what the store of indexes calls it.
	key string
	// make reads it. The error wraps indexes.ErrNone if there is none after all.
	make func(ctx context.Context) (*layerindex.Index, error)
	// far is not nil for an index that stays where it is, but for what was needed of
	// it, in place of make.
	far func(ctx context.Context) (*layerindex.Index, error)
	// published is where that index is.
	published *indexrepo.Published
}

// foreign returns what a layer is read by, with an index that somebody else made; nil if
// none is of use.
func (o *opener) foreign(ctx context.Context, i int, l remote.Layer) *layerState {
	defer o.watchIndex(i, l)()
	contradictory := false
	for c := range o.others.of(ctx, l) {
		if contradictory && c.by == VouchedByManifest {
			continue
		}
		s, err := o.use(ctx, c, l)
		if err == nil {
			return s
		}
		if ctx.Err() != nil {
			break
		}
		o.tellUnused(fmt.Sprintf("layer %s: %s", l.Digest(), c.what), c.by, err)
		contradictory = contradictory || errors.Is(err, errTwoBound)
	}
	return nil
}

// indexPause is the time between two reports of how much of an index has come.
const indexPause = 100 * time.Millisecond

// watchIndex reports now and then how many bytes have come of the indexes of a layer that
// others made, until stop is called.
func (o *opener) watchIndex(i int, l remote.Layer) (stop func()) {
	if o.opts.Progress == nil {
		return func() {}
	}
	ended, over := make(chan struct{}), make(chan struct{})
	came := o.received(l.Digest())
	go func() {
		defer close(over)
		for {
			select {
			case <-time.After(indexPause):
				o.progress(Progress{Layer: i, Size: l.Size(), Read: came.Load(), Index: true})
			case <-ended:
				return
			}
		}
	}()
	return func() {
		close(ended)
		<-over
	}
}

// use returns what a layer is read by, with one index.
func (o *opener) use(ctx context.Context, c *candidate, l remote.Layer) (*layerState, error) {
	if c.by == VouchedByRegistry {
		o.unbound.Store(true) // reading it takes metadata, too
	}
	x, err := o.take(ctx, c, l)
	if err != nil {
		return nil, err
	}
	if err = o.others.contradiction(ctx, c, x, l); err == nil {
		err = o.knownFalse(l.Digest(), c.key, x)
	}
	var s *layerState
	if err == nil {
		s, err = o.connect(l, x, useOf(x, c.by, c.from))
	}
	if err == nil {
		err = s.blob.Refuted() // it was found to be false before
	}
	if err == nil {
		err = o.admit(x)
	}
	if err != nil {
		x.Close()
		return nil, err
	}
	s.key, s.again, s.published = c.key, c.make, c.published
	return s, nil
}

// errTwoBound: two indexes that a manifest binds to one layer are not the same.
var errTwoBound = errors.New("the manifest names two indexes of the layer that differ")

// contradiction returns an error that wraps errTwoBound if the manifest binds another
// index of the layer that says something else than x, which c is.
func (o *others) contradiction(ctx context.Context, c *candidate, x *layerindex.Index, l remote.Layer) error {
	if c.by != VouchedByManifest || x.Origin() == layerindex.OriginSOCI {
		return nil // tables of contents come first
	}
	other := o.boundSOCI(ctx, l)
	if other == nil {
		return nil
	}
	y, err := o.take(ctx, other, l)
	if err != nil {
		return nil // it says nothing
	}
	defer y.Close()
	if err := (&comparison{theirs: x, ours: y, hides: true}).run(ctx); errors.Is(err, errDisagree) {
		return fmt.Errorf("%w: %s has it otherwise: %v", errTwoBound, other.what, err)
	}
	return ctx.Err()
}

// tellUnused says why an index is not used: what, which by vouches for.
func (o *opener) tellUnused(what string, by Voucher, err error) {
	tell := o.debugf
	// What the manifest promises should be there, and right.
	if by == VouchedByManifest && !errors.Is(err, layerindex.ErrLossy) && !errors.Is(err, remote.ErrWhole) && !(o.opts.Offline && errors.Is(err, remote.ErrUnavailable)) {
		tell = o.warnf
	}
	tell("%s is not used: %v", what, err)
}

// take reads one index, or finds that it was read before.
func (o *opener) take(ctx context.Context, c *candidate, l remote.Layer) (*layerindex.Index, error) {
	if c.far != nil {
		return c.far(ctx)
	}
	claim := claimOf(l)
	x, err := o.store.LoadKey(ctx, claim, c.key)
	if c.key == "" || errors.Is(err, indexes.ErrNone) {
		if x, err = c.make(ctx); err == nil {
			x = o.keepKey(ctx, x, claim, c.key)
		}
	}
	return x, err
}

// admit counts an index among the metadata of the image.
func (o *opener) admit(x *layerindex.Index) error {
	part := o.metadata().Part()
	err := x.TakeMetadata(part)
	if err != nil {
		part.Undo()
	}
	return err
}

// keepKey is keep for an index that somebody else made.
func (o *opener) keepKey(ctx context.Context, x *layerindex.Index, claim layerindex.Layer, key string) *layerindex.Index {
	err := o.notKept()
	if o.cache.MakeRoom(x.EncodedSize()) {
		err = o.store.SaveKey(ctx, x, key)
	}
	if err == nil {
		var kept *layerindex.Index
		if kept, err = o.store.LoadKey(ctx, claim, key); err == nil {
			if kept.Equal(x) {
				return kept
			}
			kept.Close()
			return x
		}
	}
	if ctx.Err() == nil && cache.IsFull(err) {
		o.cache.WarnDisk(err)
	}
	return x // it is read again the next time, which takes little
}

func (o *opener) debugf(format string, args ...any) {
	if o.opts.Debugf != nil {
		o.opts.Debugf(format, args...)
	}
}
