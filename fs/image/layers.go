package image

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	iofs "io/fs"
	"path"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/layerindex/reader"
	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache"
	"github.com/imgfs/imgfs/remote/cache/blobs"
	"github.com/imgfs/imgfs/remote/cache/indexes"
	"github.com/imgfs/imgfs/remote/cache/meta"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"
)

// Layers are the open layers of an image, not merged.
type Layers struct {
	from *Resolved
	all  []*Layer
}

// All returns the layers, the base first. One that the image has more than once
// is in it as often, as the same Layer.
func (l *Layers) All() []*Layer { return slices.Clone(l.all) }

// Resolved returns the image. It is not the caller's to close.
func (l *Layers) Resolved() *Resolved { return l.from }

// Close closes the layers and what they are read from. It is not to be called
// after Merge.
func (l *Layers) Close() error {
	closeLayers(l.all)
	if l.from == nil {
		return nil
	}
	return l.from.Close()
}

// Fill fetches what the cache lacks of the layers, each once and the base first, but
// before that what FetchFirst does, while there are no reads. It is Cache.Fill, which says how it ends. What is
// there already is not fetched again, so Fill can be ended at any time and begun
// anew. Layers that are on this machine are not cached, and left out.
//
// progress, if not nil, is called with how many bytes of all are there.
func (l *Layers) Fill(ctx context.Context, progress func(have, all int64)) error {
	if len(l.all) == 0 {
		return nil
	}
	blobs := make([]*blobs.Blob, len(l.all))
	for i, layer := range l.all {
		blobs[i] = layer.state.Load().blob
	}
	err := l.FetchFirst(ctx)
	if err == nil {
		err = l.from.disk.Blobs.Fill(ctx, blobs, progress)
	}
	if err != nil && l.from.Source != nil {
		err = l.from.advise(l.from.Source, err)
	}
	return err
}

// A Layer is a layer that can be listed and read.
type Layer struct {
	remote.Layer
	// Index is the one that it was opened with.
	Index *layerindex.Index
	// Built says that the index was made when the layer was opened, and not
	// loaded.
	Built bool

	cache  *cache.Cache
	opener *opener
	number int // in the image, the base is 0
	// opened is the state that the layer had when the tree was made.
	opened *layerState
	state  atomic.Pointer[layerState]
	mend   mender
}

// Indexed returns how many bytes came over the network so that the layer could be
// indexed, whether or not they were kept: none if its index was there, or its
// bytes were.
func (l *Layer) Indexed() int64 { return l.opener.received(l.Digest()).Load() }

// CurrentIndex returns the index that the layer is read by now. The layer closes it.
func (l *Layer) CurrentIndex() *layerindex.Index { return l.state.Load().index }

// Use returns which index the layer is read by now.
func (l *Layer) Use() IndexUse { return l.state.Load().use }

// verified says how the layer's bytes are checked.
func (l *Layer) verified() meta.Verification {
	s := l.state.Load()
	v := s.blob.Verification()
	if err := s.refuted(); v == meta.VerifiedWrong || err != nil && !errors.Is(err, iofs.ErrClosed) {
		return meta.VerifiedWrong
	}
	if s.use.Vouched == VouchedByRegistry {
		return meta.VerifiedByPublisher
	}
	// All that is read is checked against an index that the manifest binds, or that
	// was made of the whole blob.
	return max(v, meta.VerifiedByChunk)
}

// OpenLayers loads or makes the index of every layer, without merging them, and
// notes in the cache that the image is used. It takes r over: Layers.Close closes
// it, and so does OpenLayers if it fails. A layer that the image has more than
// once is opened once. Of several processes that open the same new image at the
// same time one reads each layer, and the others wait for its index.
//
// progress, if not nil, is called in place of Options.Progress.
func (r *Resolved) OpenLayers(ctx context.Context, progress func(Progress)) (*Layers, error) {
	if progress != nil {
		r.opts.Progress = progress
	}
	layers, err := r.openLayers(ctx)
	if err == nil {
		return &Layers{r, layers}, nil
	}
	r.Close()
	if r.Source != nil {
		err = r.advise(r.Source, fmt.Errorf("%s: %w", r.Name(), err))
	}
	return nil, err
}

func (r *Resolved) openLayers(ctx context.Context) ([]*Layer, error) {
	if n := len(r.Layers); n > fs.MaxLayers {
		return nil, fmt.Errorf("%w: %d layers, more than %d", fs.ErrTooLarge, n, fs.MaxLayers)
	}
	for _, l := range r.Layers {
		if err := checkDigests(l); err != nil {
			return nil, layerError(l.Digest(), err)
		}
	}
	o := r.newOpener()
	layers, err := o.all(ctx, r.Layers)
	if err != nil && isTooMuch(err) && o.unbound.Load() && ctx.Err() == nil {
		o.warnf("%v: an index that nothing binds may be false; the image is opened without such", err)
		o = r.newOpener()
		if o.opts.IndexTrust = TrustBound; r.opts.IndexTrust == TrustRepositories {
			o.opts.IndexTrust = TrustLocal
		}
		layers, err = o.all(ctx, r.Layers)
	}
	if err != nil {
		return nil, err
	}
	o.opened.Store(true)
	if r.Source != nil && r.whole == nil && !r.passing { // else it has no name, or is another image
		r.disk.Meta.NoteImage(noteOf(r.Image, layers))
	}
	return layers, nil
}

func (r *Resolved) newOpener() *opener {
	o := &opener{
		opts: r.opts, cache: r.disk,
		budget: layerindex.NewBudget(r.opts.MaxMetadata, r.opts.Metadata),
		memory: semaphore.NewWeighted(r.opts.BuildMemory),
		store:  indexes.New(r.disk.Indexes()),
		held:   r.held,
		spans:  reader.NewSpanCache(r.opts.SpanMemory),
	}
	o.others = &others{opener: o, img: r}
	return o
}

// checkDigests refuses a layer whose blob or tar cannot be compared with what the
// image says, before anything of it is looked for.
func checkDigests(l remote.Layer) error {
	switch {
	case !isSHA256(l.DiffID):
		return fmt.Errorf("%w: its diff_id %q is none of sha256, the only kind that imgfs reads layers by", remote.ErrUnsupported, l.DiffID)
	case !isSHA256(l.Digest()):
		return fmt.Errorf("%w: its digest is none of sha256, the only kind that imgfs reads layers by", remote.ErrUnsupported)
	}
	return nil
}

func isSHA256(d digest.Digest) bool { return d.Validate() == nil && d.Algorithm() == digest.SHA256 }

// noteOf is what the cache remembers of an image with its layers.
func noteOf(img *remote.Image, layers []*Layer) meta.Image {
	note := meta.Image{Name: img.Source.Name(), Manifest: img.Descriptor.Digest, Used: time.Now()}
	note.Platform = path.Join(img.Platform.OS, img.Platform.Architecture, img.Platform.Variant)
	for _, l := range layers {
		note.Layers = append(note.Layers, meta.ImageLayer{Digest: l.Digest(), Size: l.Size(), DiffID: l.DiffID})
	}
	return note
}

type opener struct {
	opts  Options
	cache *cache.Cache
	store *indexes.Store
	held  *heldImage // nil: nothing is
	spans *reader.SpanCache
	// memory is shared by the layers that are being indexed.
	memory *semaphore.Weighted
	// budget bounds the metadata of all layers.
	budget *layerindex.Budget
	// came counts for each layer the bytes that were fetched to index it.
	came sync.Map // digest → *atomic.Int64
	// others finds the indexes that somebody else made.
	others *others
	// unbound is set when a layer is to be read by an index that nothing binds.
	unbound atomic.Bool
	// full limits the warnings of indexes that cannot be kept to one.
	full sync.Once
	// opened is set when all layers are open: then no more progress is
	// reported.
	opened atomic.Bool
}

// all opens the layers, big ones first: they take longest.
func (o *opener) all(ctx context.Context, layers []remote.Layer) ([]*Layer, error) {
	order := make([]int, len(layers))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(layers[b].Size(), layers[a].Size()) })
	var once sync.Map // digest, diff_id and what is hidden → func() (*Layer, error)
	opened := make([]*Layer, len(layers))
	group, ctx := errgroup.WithContext(ctx)
	for _, i := range order {
		l := layers[i]
		// What a manifest says of a layer twice need not be the same.
		key := [3]string{l.Digest().String(), l.DiffID.String(), fmt.Sprint(hidesTOC(l))}
		open, _ := once.LoadOrStore(key, sync.OnceValues(func() (*Layer, error) {
			return o.open(ctx, i, l)
		}))
		group.Go(func() error {
			got, err := open.(func() (*Layer, error))()
			if err != nil {
				return layerError(l.Digest(), err)
			}
			opened[i] = got
			o.progress(Progress{Layer: i, Size: got.Size(), Read: got.Size(), Done: true, Built: got.Built})
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		closeLayers(opened)
		return nil, err
	}
	return opened, nil
}

// received returns the count of the bytes that were fetched to index a layer.
func (o *opener) received(d digest.Digest) *atomic.Int64 {
	n, _ := o.came.LoadOrStore(d, new(atomic.Int64))
	return n.(*atomic.Int64)
}

// closeLayers closes layers, some of which may be there more than once.
func closeLayers(layers []*Layer) {
	for _, l := range layers {
		if l != nil {
			l.close()
		}
	}
}

func layerError(d digest.Digest, err error) error { return fmt.Errorf("layer %s: %w", d, err) }

func (o *opener) warnf(format string, args ...any) {
	if o.opts.Warnf != nil {
		o.opts.Warnf(format, args...)
	}
}

func (o *opener) progress(p Progress) {
	if o.opts.Progress != nil && !o.opened.Load() {
		o.opts.Progress(p)
	}
}
