package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"strings"
	"sync"

	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/layerindex/build"
	"github.com/imgfs/imgfs/layerindex/reader"
	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache"
	"github.com/imgfs/imgfs/remote/cache/blobs"
	"github.com/imgfs/imgfs/remote/cache/indexes"
)

var _ fs.Stream = (*reader.Reader)(nil)

// notKept says why the cache makes no room for an index.
func (o *opener) notKept() error {
	if o.cache.ReadOnly() != nil { // of which it has warned
		return errors.New("the cache cannot be written")
	}
	return errors.New("the cache has no room for it")
}

// buildMemory is about how many bytes indexing a layer takes: the ranges of it
// in flight, the pipeline's pieces, and what its decoder remembers.
func (o *opener) buildMemory(l remote.Layer) int64 {
	const pipeline, gzipDecoder, zstdDecoder = 4 << 20, 1 << 20, 16 << 20
	n := min(l.Size(), 4<<20) + pipeline
	if strings.HasSuffix(l.MediaType, "zstd") {
		n += zstdDecoder
	} else {
		n += gzipDecoder
	}
	return min(n, o.opts.BuildMemory)
}

// open loads the index of one layer, or makes it.
func (o *opener) open(ctx context.Context, i int, l remote.Layer) (*Layer, error) {
	if err := o.checkBlob(l.Size()); err != nil {
		return nil, err
	}
	open := &Layer{Layer: l, cache: o.cache, opener: o, number: i}
	s, err := o.openState(ctx, open)
	if err != nil {
		return nil, err
	}
	open.Index = s.index
	open.start(s)
	if h := o.held.layer(i, open.Layer); h != nil && s.wrong == nil {
		if err := open.ownAgain(ctx, h); err != nil {
			open.close()
			return nil, err
		}
	}
	return open, nil
}

// openState returns what a layer is first read by: an index that is here, one that
// somebody else made, or one that is made now.
func (o *opener) openState(ctx context.Context, open *Layer) (*layerState, error) {
	if h := o.held.layer(open.number, open.Layer); h != nil {
		return o.reopen(ctx, open, h)
	}
	x, l, err := o.stored(ctx, open.Layer)
	built := false
	if errors.Is(err, indexes.ErrNone) {
		if s := o.foreign(ctx, open.number, l); s != nil {
			open.Layer = l
			return s, nil
		}
		x, built, l, err = o.obtain(ctx, open.number, l)
	}
	if err != nil {
		return nil, err
	}
	open.Layer, open.Built = l, built
	s, err := o.connect(l, x, useHere())
	if err != nil {
		x.Close()
		return nil, err
	}
	s.proven = built
	return s, nil
}

// stored loads the index of a layer. The manifest's word for the size of the blob gives
// way to that of an index, which was made of what has the digest. The layer returned has
// the right size.
func (o *opener) stored(ctx context.Context, l remote.Layer) (*layerindex.Index, remote.Layer, error) {
	x, err := o.load(ctx, claimOf(l), nil)
	blob, _ := l.Blob.(remote.SizedBlob)
	other := (*indexes.SizeError)(nil)
	if blob == nil || !errors.As(err, &other) {
		return x, l, err
	}
	if err := o.checkBlob(other.Size); err != nil {
		return nil, l, err
	}
	real := l
	real.Blob = blob.WithSize(other.Size)
	if x, again := o.load(ctx, claimOf(real), nil); again == nil {
		o.warnSize(l, other.Size)
		return x, real, nil
	}
	l.Blob = blob.WithSize(l.Size())
	return nil, l, err
}

// obtain makes the index of a layer. The manifest's word for the size of the blob gives
// way to what the server says and the digest confirms. The layer returned has the right
// size.
func (o *opener) obtain(ctx context.Context, i int, l remote.Layer) (*layerindex.Index, bool, remote.Layer, error) {
	blob, _ := l.Blob.(remote.SizedBlob)
	x, built, err := o.make(ctx, i, l, claimOf(l), nil)
	if err == nil || blob == nil || ctx.Err() != nil || !isSizeError(err) {
		return x, built, l, err
	}
	size, ok := blob.SaidSize(ctx)
	if !ok {
		return nil, false, l, err
	}
	if err := o.checkBlob(size); err != nil {
		return nil, false, l, err
	}
	real := l
	real.Blob = blob.WithSize(size)
	x, built, again := o.make(ctx, i, real, claimOf(real), nil)
	if again != nil {
		return nil, false, l, fmt.Errorf("%w; with the %d bytes that the registry says it has: %v", err, size, again)
	}
	o.warnSize(l, size)
	return x, built, real, nil
}

// isSizeError reports whether a layer may fail for its manifest stating a wrong size.
func isSizeError(err error) bool {
	return errors.Is(err, layerindex.ErrDigest) || errors.Is(err, remote.ErrUnavailable) || errors.Is(err, remote.ErrDigest)
}

// warnSize says that a manifest states a wrong size.
func (o *opener) warnSize(l remote.Layer, size int64) {
	o.warnf("layer %s is said to have %d bytes and has %d; its digest decides", l.Digest(), l.Size(), size)
}

// checkBlob refuses a blob that is bigger than allowed, before anything of it
// is asked for.
func (o *opener) checkBlob(size int64) error {
	if limit := o.opts.MaxBlob; limit > 0 && size > limit {
		return fmt.Errorf("%w: as it is sent it has %d bytes, more than %d", layerindex.ErrTooBig, size, limit)
	}
	return nil
}

// checkTar refuses a layer whose tar is bigger than allowed: its index may have
// been made when more was allowed.
func (o *opener) checkTar(size int64) error {
	if limit := o.opts.MaxLayer; limit > 0 && size > limit {
		return fmt.Errorf("%w: unpacked it has %d bytes, more than %d", layerindex.ErrTooBig, size, limit)
	}
	return nil
}

// load loads the index of a layer. One that says the same as doubted, if that is
// not nil, and one that is known to be wrong, count as none.
func (o *opener) load(ctx context.Context, claim layerindex.Layer, doubted *layerindex.Index) (*layerindex.Index, error) {
	x, err := o.store.Load(ctx, claim)
	if err != nil {
		return nil, err
	}
	chunks, err := chunksOf(x)
	if err == nil {
		err = o.cache.Blobs.CheckCuts(claim.Digest, claim.Size, chunks)
	}
	switch {
	case err != nil:
		err = fmt.Errorf("%w: %w: %w", indexes.ErrNone, layerindex.ErrIndex, err)
	case doubted != nil && doubted.Equal(x):
		err = fmt.Errorf("%w of %s that is beyond doubt", indexes.ErrNone, claim.Digest)
	default:
		err = x.TakeMetadata(o.metadata())
	}
	if err != nil {
		x.Close()
		return nil, err
	}
	return x, nil
}

// metadata returns the budget of all layers' metadata. An index that is made again
// once they are open has one of its own, as it takes no more than before.
func (o *opener) metadata() *layerindex.Budget {
	if o.opened.Load() {
		return layerindex.NewBudget(o.opts.MaxMetadata, nil)
	}
	return o.budget
}

// make makes the index of a layer that has none, unless another process, or
// another mount of this one, does so first. For doubted see load.
func (o *opener) make(ctx context.Context, i int, l remote.Layer, claim layerindex.Layer, doubted *layerindex.Index) (x *layerindex.Index, built bool, err error) {
	// The claim comes before the memory: a layer that has memory waits for
	// nothing else, so two processes cannot wait for each other.
	release, err := o.cache.Claim(ctx, l.Digest())
	if err != nil {
		return nil, false, err
	}
	defer release()
	x, err = o.load(ctx, claim, doubted)
	if !errors.Is(err, indexes.ErrNone) {
		return x, false, err
	}
	if errors.Is(err, layerindex.ErrIndex) {
		o.warnf("%v; making it again", err)
	}
	need := o.buildMemory(l)
	if err := o.memory.Acquire(ctx, need); err != nil {
		return nil, false, err
	}
	defer o.memory.Release(need)
	if x, err = o.build(ctx, i, l, claim); err != nil {
		return nil, false, err
	}
	if chunks, err := chunksOf(x); err == nil {
		o.cache.Blobs.SetVerifiedWhole(l.Digest(), chunks)
	}
	return o.keep(ctx, x, claim), true, nil
}

// build makes the index of a layer: of the bytes in the cache, if all of them
// are there, and else by reading the layer once, which puts them there.
// Nothing stays of a layer that fails.
func (o *opener) build(ctx context.Context, i int, l remote.Layer, claim layerindex.Layer) (*layerindex.Index, error) {
	if remote.IsLocal(l.Blob) {
		// There it is found again: recording it would only take room.
		return o.pass(ctx, i, l.Blob, claim, io.Discard)
	}
	if kept, ok := o.cache.Blobs.Stored(l.Digest(), l.Size()); ok {
		x, err := o.pass(ctx, i, kept, claim, io.Discard)
		kept.Close()
		if err == nil || ctx.Err() != nil || isContentError(err) {
			return x, err
		}
	}
	x, err := o.fetch(ctx, i, l.Blob, claim)
	if blob, ok := l.Blob.(remote.ElsewhereBlob); ok && errors.Is(err, layerindex.ErrDigest) && ctx.Err() == nil {
		// A mirror may be wrong, or a cache on the way.
		from, wrong := elsewhere{blob}, err
		if again := from.avoidLast(ctx); again != nil {
			err = fmt.Errorf("%w; asked once more: %v", wrong, again)
		} else {
			if x, err = o.fetch(ctx, i, from, claim); err == nil {
				o.warnf("layer %s: %v; the second time it was right", l.Digest(), wrong)
			}
		}
	}
	return x, err
}

// elsewhere is a blob, read from another place than the first.
type elsewhere struct{ remote.ElsewhereBlob }

func (b elsewhere) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	return b.ReadElsewhere(ctx, p, off)
}

// TakeReceived implements remote.Counted if the blob does.
func (b elsewhere) TakeReceived() (int64, bool) {
	if c, ok := b.ElsewhereBlob.(remote.Counted); ok {
		return c.TakeReceived()
	}
	return 0, false
}

// avoidLast makes the blob avoid the place that its end was read from last.
func (b elsewhere) avoidLast(ctx context.Context) error {
	if b.Size() == 0 {
		return nil
	}
	_, err := b.ReadElsewhere(ctx, make([]byte, 1), b.Size()-1)
	return err
}

// fetch makes the index of a layer while it is read into the cache.
func (o *opener) fetch(ctx context.Context, i int, from remote.Blob, claim layerindex.Layer) (*layerindex.Index, error) {
	rec, err := o.cache.Blobs.Record(from)
	if err != nil {
		return nil, err
	}
	defer func() {
		rec.Abort() // does nothing after Commit
		o.received(claim.Digest).Add(rec.Came())
	}()
	x, err := o.pass(ctx, i, from, claim, rec)
	if errors.Is(err, remote.ErrUnavailable) {
		return nil, fmt.Errorf("it is not in the cache: %w", err)
	}
	if err != nil {
		return nil, err
	}
	chunks, err := chunksOf(x)
	if err == nil {
		err = rec.Commit(chunks)
	}
	if err != nil {
		x.Close()
		return nil, err
	}
	return x, nil
}

// isContentError reports whether a pass failed for what the right bytes mean, so
// that it would fail with the bytes of another place too.
func isContentError(err error) bool {
	return errors.Is(err, layerindex.ErrDiffID) || errors.Is(err, layerindex.ErrCompressed) || errors.Is(err, layerindex.ErrTar) || outOfBounds(err)
}

// outOfBounds reports whether a layer asks for more than is allowed here.
func outOfBounds(err error) bool {
	return errors.Is(err, layerindex.ErrTooBig) || errors.Is(err, layerindex.ErrMetadata) || errors.Is(err, layerindex.ErrEntries)
}

// pass reads a blob once, with a copy of its bytes to another place, and makes
// its index, in memory.
func (o *opener) pass(ctx context.Context, i int, from remote.Blob, claim layerindex.Layer, to io.Writer) (*layerindex.Index, error) {
	p := passed{report: func(read int64) { o.progress(Progress{Layer: i, Size: claim.Size, Read: read}) }}
	p.report(0)
	blob := remote.NewStream(ctx, from, &remote.StreamOptions{Arrived: p.arrived})
	defer blob.Close()
	budget := o.metadata().Part()
	x, err := build.Index(ctx, claim, io.TeeReader(blob, to), &build.Options{
		MaxSize:  o.opts.MaxLayer,
		Budget:   budget,
		Progress: p.read,
	})
	if err != nil {
		budget.Undo() // another place may have it right
	}
	return x, err
}

// passed reports how far a pass is: what has come of the blob, which may be more than
// has been looked at.
type passed struct {
	report func(read int64)

	mu   sync.Mutex
	came int64
	most int64 // that was reported
}

func (p *passed) arrived(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.came += int64(n)
	p.tell(p.came)
}

func (p *passed) read(in int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tell(in)
}

// tell reports n bytes unless more were reported. The caller holds mu.
func (p *passed) tell(n int64) {
	if n > p.most {
		p.most = n
		p.report(n)
	}
}

// keep puts an index that was just made on disk, and returns it as it is read
// from there, so that its memory is free. Where the disk does not take it, the
// one in memory does as well for as long as this process lives.
func (o *opener) keep(ctx context.Context, x *layerindex.Index, claim layerindex.Layer) *layerindex.Index {
	err := o.notKept()
	if o.cache.MakeRoom(x.EncodedSize()) {
		err = o.store.Save(ctx, x)
	}
	if err == nil {
		var kept *layerindex.Index
		if kept, err = o.store.Load(ctx, claim); err == nil && kept.Equal(x) {
			return kept
		}
		if err == nil { // another process has put its own there
			kept.Close()
			return x
		}
	}
	if ctx.Err() != nil {
		return x // the image is not wanted any more: the disk is not to blame
	}
	if errors.Is(err, iofs.ErrNotExist) {
		return x // a foreign file lies in its place: the cache has warned of it
	}
	if cache.IsFull(err) {
		o.cache.WarnDisk(err) // one warning is enough for all that a full disk costs
		return x
	}
	o.full.Do(func() {
		o.warnf("layer %s: its index is not kept: %v; layers whose index is missing are read whole the next time, too", claim.Digest, err)
	})
	return x
}

func chunksOf(x *layerindex.Index) (blobs.Chunks, error) {
	sums, err := x.ChunkSums()
	return blobs.Chunks{Size: x.ChunkSize(), Sums: sums}, err
}

// connect puts the cache between a layer and its source. x is an index of the layer.
func (o *opener) connect(l remote.Layer, x *layerindex.Index, use IndexUse) (*layerState, error) {
	if err := o.checkTar(x.Size()); err != nil {
		return nil, err
	}
	var cuts blobs.Cuts
	var prover *reader.Prover
	var err error
	if x.ProofKind() == layerindex.ProofChunks {
		cuts, err = chunksOf(x) // the cache knows how to check those
	} else {
		prover, err = reader.NewProver(x)
		cuts = prover
	}
	if err != nil {
		return nil, err
	}
	blob, err := o.cache.Blobs.Blob(l.Blob, cuts)
	if err != nil {
		return nil, err
	}
	r := reader.New(x, readerBlob{blob}, &reader.Options{
		Cache:       o.spans,
		NewTemp:     newTemp(o.cache, false),
		SpoolFailed: o.cache.WarnDisk,
		Prover:      prover,
	})
	return &layerState{index: x, blob: blob, prover: prover, reader: r, use: use}, nil
}

// newTemp returns a function that makes temporary files within a cache's budget.
// Files for a copy take room only from what is idle.
func newTemp(c *cache.Cache, forCopy bool) func(size int64) (reader.TempFile, error) {
	return func(size int64) (reader.TempFile, error) {
		f, err := c.NewTempFile(&cache.TempOptions{Size: size, Copy: forCopy})
		if err != nil {
			return nil, err
		}
		return f, nil
	}
}
