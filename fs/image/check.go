package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache/blobs"
	"github.com/imgfs/imgfs/remote/cache/indexes"
	"github.com/imgfs/imgfs/remote/cache/meta"
	"github.com/opencontainers/go-digest"
)

// An index of others is proven by reading the whole layer: then it is known whether
// the blob has its digest, and what an index of it must say. If the index says the same
// the layer is read by our own from then on. If not it lied, and so may all that was
// shown of the layer: nothing of it is read any more.

// ErrLiar: an index that somebody else made of a layer says something else than the
// layer.
var ErrLiar = errors.New("the index that the layer is read by is false")

// Check reads those layers whole that are read by an index of somebody else, and
// compares. What the cache has is not fetched again. The errors of all layers are
// joined; one that wraps ErrLiar is of a layer that cannot be read any more.
func (l *Layers) Check(ctx context.Context) error {
	var errs []error
	for _, layer := range distinct(l.all) {
		if err := layer.check(ctx); err != nil {
			errs = append(errs, layerError(layer.Digest(), err))
		}
	}
	return errors.Join(errs...)
}

// distinct returns layers, each once.
func distinct(layers []*Layer) []*Layer {
	var list []*Layer
	seen := make(map[*Layer]bool)
	for _, l := range layers {
		if !seen[l] {
			seen[l] = true
			list = append(list, l)
		}
	}
	return list
}

// check is Check for one layer.
func (l *Layer) check(ctx context.Context) error {
	select {
	case l.mend.proving <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-l.mend.proving }()
	was := l.state.Load()
	if was.use.Vouched == VouchedHere || was.wrong != nil {
		return was.wrong
	}
	// It ends with the layer, too, which closes what it uses.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(l.mend.ctx, cancel)()
	s, err := l.prove(ctx, was, false)
	if err != nil {
		return err
	}
	l.mend.replace(l, was, s)
	return s.wrong
}

// prove returns a state by an index of our own in place of one by somebody else's, or
// one by which nothing can be read, as that lied. gone says that parts of that are known
// not to be had.
func (l *Layer) prove(ctx context.Context, was *layerState, gone bool) (*layerState, error) {
	o := l.opener
	x, err := l.ownIndex(ctx, was)
	if isContentError(err) && !outOfBounds(err) {
		// The blob is the layer's, and no index of it can be right.
		s := &layerState{index: was.index, blob: was.blob, prover: was.prover, reader: was.reader, use: was.use, key: was.key, mended: true}
		l.condemn(was, s, err)
		l.forget(was)
		return s, nil
	}
	if err != nil {
		return nil, err
	}
	s, err := o.connect(l.Layer, x, useHere())
	if err != nil {
		x.Close()
		return nil, err
	}
	s.mended, s.proven = true, true
	theirs, release, err := was.undamaged(ctx)
	if err == nil {
		s.places, err = agree(ctx, theirs, x, s.blob, hidesTOC(l.Layer), gone)
		release()
	}
	switch {
	case errors.Is(err, errDisagree):
		l.condemn(was, s, err)
	case err != nil:
		s.reader.Close()
		x.Close()
		return nil, err
	}
	l.forget(was)
	return s, nil
}

// undamaged returns the index of the state, or one that says the same if its file has
// been damaged: that is no fault of whoever made it. It is to be released.
func (s *layerState) undamaged(ctx context.Context) (x *layerindex.Index, release func(), err error) {
	none := func() {}
	if s.again == nil || s.index.CheckSums(ctx) == nil {
		return s.index, none, nil
	}
	if x, err = s.again(ctx); err != nil {
		return nil, nil, fmt.Errorf("its file is damaged: %w", err)
	}
	if x.HeaderSum() != s.index.HeaderSum() {
		x.Close()
		return nil, nil, errors.New("its file is damaged, and what it was made of says something else now")
	}
	return x, func() { x.Close() }, nil
}

// condemn makes s a state by which nothing can be read, as the index of was is false.
func (l *Layer) condemn(was, s *layerState, why error) {
	s.wrong = fmt.Errorf("layer %s: %w (%s): %w", l.Digest(), ErrLiar, was.use, why)
	if !sameChunks(was.index, s.index) { // else the layer is read by right ones
		was.blob.Condemn(s.wrong)
	}
	l.opener.noteFalse(l.Digest(), was.key, was.index)
	l.opener.warnf("%v; nothing of it can be read in this tree: %v", s.wrong, ErrReopen)
}

// noteFalse notes in the cache that an index of others is false: docs/cache-format.md,
// "Verification marks".
func (o *opener) noteFalse(layer digest.Digest, key string, x *layerindex.Index) {
	m := meta.Mark{Verification: meta.VerifiedWrong, When: time.Now(), Table: fmt.Sprintf("%x", x.HeaderSum())}
	o.cache.Meta.SetMark(layer, key, m, func(meta.Mark) bool { return true })
}

// knownFalse returns an error if an index of others is known to be false.
func (o *opener) knownFalse(layer digest.Digest, key string, x *layerindex.Index) error {
	m := o.cache.Meta.Mark(layer, key)
	if m.Verification == meta.VerifiedWrong && m.Table == fmt.Sprintf("%x", x.HeaderSum()) {
		return fmt.Errorf("it was compared with the layer at %s, and is false", m.When.Format(time.RFC3339))
	}
	return nil
}

// sameChunks reports whether two indexes of a layer cut and check its blob in the same
// way.
func sameChunks(x, y *layerindex.Index) bool {
	if x.ProofKind() != layerindex.ProofChunks || y.ProofKind() != layerindex.ProofChunks || x.ChunkSize() != y.ChunkSize() {
		return false
	}
	a, err := x.ChunkSums()
	b, again := y.ChunkSums()
	return err == nil && again == nil && bytes.Equal(a, b)
}

// ownIndex returns our index of a layer, which is made of what the cache has of the
// blob and of what it lacks.
func (l *Layer) ownIndex(ctx context.Context, was *layerState) (*layerindex.Index, error) {
	o, claim := l.opener, claimOf(l.Layer)
	x, err := o.load(ctx, claim, nil)
	if !errors.Is(err, indexes.ErrNone) {
		return x, err
	}
	patched := l.Layer
	if !remote.IsLocal(l.Blob) {
		patched.Blob = was.blob.Patched()
	}
	x, _, err = o.make(ctx, l.number, patched, claim, nil)
	if errors.Is(err, layerindex.ErrDigest) && ctx.Err() == nil {
		// Bytes that nothing proves may be wrong in the cache.
		x, _, err = o.make(ctx, l.number, l.Layer, claim, nil)
	}
	return x, err
}

// forget removes from the cache what there is because of an index that is of no more
// use.
func (l *Layer) forget(was *layerState) {
	_ = l.opener.store.RemoveKey(l.Digest(), was.key) // or it goes when there is no room
	if was.index.ProofKind() != layerindex.ProofChunks {
		l.opener.cache.Blobs.RemoveCuts(l.Digest(), was.prover.Sum())
	}
}

const (
	// checkTick is how often CheckIdle looks.
	checkTick = 2 * time.Second
	// checkRest is how long it waits after a failure.
	checkRest = 10 * time.Minute
)

// CheckIdle checks the layers that are read by an index of somebody else, as Check
// does, until ctx ends or there are none: each when all of it that is proven has come,
// and one whose index nothing binds also when nothing was read and fetched for as long
// as idle. Then what it lacks is fetched first, as Fill does. What is found out is told
// by Options.Warnf.
func (i *Image) CheckIdle(ctx context.Context, idle time.Duration) {
	tick := time.NewTicker(checkTick)
	defer tick.Stop()
	var w idleWatch
	rest := make(map[*Layer]time.Time)
	for {
		left := 0
		quiet := w.since(i) >= idle
		for _, l := range distinct(i.layers.all) {
			s := l.state.Load()
			if s.use.Vouched == VouchedHere || s.wrong != nil {
				continue
			}
			left++
			switch {
			case time.Now().Before(rest[l]):
				continue
			case l.opener.knownFalse(l.Digest(), s.key, s.index) != nil: // as another mount has found out
			case !remote.IsLocal(l.Blob) && s.blob.Complete():
			case quiet && s.use.Vouched == VouchedByRegistry:
				if err := i.layers.from.disk.Blobs.Fill(ctx, []*blobs.Blob{s.blob}, nil); err != nil {
					rest[l] = time.Now().Add(checkRest)
					continue
				}
			default:
				continue
			}
			if err := l.check(ctx); err != nil && ctx.Err() == nil && !errors.Is(err, ErrLiar) {
				i.layers.from.warn([]string{layerError(l.Digest(), fmt.Errorf("its index, of %s, could not be checked: %w", s.use, err)).Error()})
				rest[l] = time.Now().Add(checkRest)
				if outOfBounds(err) {
					rest[l] = time.Now().AddDate(1, 0, 0) // it stays so
				}
			}
			w = idleWatch{} // that was not idle
		}
		if left == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// An idleWatch knows when something was last read or fetched.
type idleWatch struct {
	reads, requests int64
	last            time.Time
}

// since returns for how long nothing has been read of an image, and nothing fetched by
// its cache.
func (w *idleWatch) since(i *Image) time.Duration {
	reads, requests := i.Reads(), i.layers.from.disk.Blobs.Counts().Requests
	if w.last.IsZero() || reads != w.reads || requests != w.requests {
		*w = idleWatch{reads, requests, time.Now()}
	}
	return time.Since(w.last)
}
