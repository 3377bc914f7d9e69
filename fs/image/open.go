package image

import (
	"cmp"
	"context"
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
	"github.com/imgfs/imgfs/remote/cache/indexes"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"
)

// What an image may take if Options say nothing else, in bytes.
const (
	DefaultMaxMetadata = 1 << 30
	DefaultMaxLayer    = 64 << 30
	DefaultMaxBlob     = 16 << 30
)

// Options are the choices of New and OpenLayers. Fields that are zero mean
// their defaults.
type Options struct {
	// Cache keeps blobs and layer indexes. It must be set, and stay open as
	// long as the tree is used.
	Cache *cache.Cache
	// SpanMemory bounds the memory in bytes that decoded pieces of layers
	// take. Default: 32 MiB.
	SpanMemory int64
	// BuildMemory is about how many bytes the layers that are indexed side
	// by side may take: it decides how many at a time. Default: 64 MiB.
	BuildMemory int64
	// MaxMetadata bounds the bytes of memory that the names, link targets,
	// attributes, extents and entries of all layers of the image take
	// together. Default: 1 GiB. Negative: no bound.
	MaxMetadata int64
	// Metadata, if not nil, is told now and then how many bytes that is by now,
	// while layers are opened and while they are merged. Calls may come from
	// several goroutines.
	Metadata func(used int64)
	// MaxLayer bounds the bytes of a layer's tar, MaxBlob those of its blob.
	// Defaults: 64 GiB and 16 GiB. Negative: no bound.
	MaxLayer, MaxBlob int64
	// NoContents keeps no contents of files on disk, and uses none.
	NoContents bool
	// Progress, if not nil, is called while layers are opened. Calls may
	// come from several goroutines, but one at a time for each layer.
	Progress func(Progress)
	// Warnf, if not nil, is told what was not as it should be and did no
	// harm: a damaged index file that is made again, a disk without room for
	// an index. Calls may come from several goroutines.
	Warnf func(format string, args ...any)
}

// withDefaults returns the options with their defaults, and 0 for no bound.
func (opts *Options) withDefaults() Options {
	o := *opts
	for _, f := range []struct {
		n    *int64
		zero int64
	}{
		{&o.SpanMemory, 32 << 20}, {&o.BuildMemory, 64 << 20}, {&o.MaxMetadata, DefaultMaxMetadata},
		{&o.MaxLayer, DefaultMaxLayer}, {&o.MaxBlob, DefaultMaxBlob},
	} {
		if *f.n == 0 {
			*f.n = f.zero
		}
		*f.n = max(*f.n, 0)
	}
	return o
}

// Progress tells how far a layer is.
type Progress struct {
	Layer int // position in the image, the base is 0
	Size  int64
	// Read is how many bytes of the blob have been read by now.
	Read int64
	// Done says that the layer is ready. Built says that it was read and
	// indexed now, and not before.
	Done, Built bool
}

// An Layer is a layer that can be listed and read.
type Layer struct {
	remote.Layer
	// Index is the one that it was opened with.
	Index *layerindex.Index
	// Built says that the index was made by this call, and not loaded.
	Built bool

	cache  *cache.Cache
	opener *opener
	number int // in the image, the base is 0
	state  atomic.Pointer[layerState]
	mend   mender

	noContents bool
}

// verified says how the layer's bytes are checked.
func (l *Layer) verified() cache.Verification {
	v := l.state.Load().blob.Verification()
	if v == cache.VerifiedWrong || l.state.Load().refuted() != nil {
		return cache.VerifiedWrong
	}
	// An index of our own format was made from the whole blob, if nobody
	// remembers where: all that is read is checked against it.
	return max(v, cache.VerifiedByChunk)
}

// New opens an image: it loads the layer indexes that the cache has, makes
// the others by reading those layers once, all side by side, and merges the
// layers. A layer that is not what manifest and config say fails it, and
// leaves nothing in the cache. A disk that takes nothing does not: what could
// not be kept is made again the next time.
func New(ctx context.Context, img *remote.Image, opts *Options) (*Image, error) {
	layers, err := OpenLayers(ctx, img, opts)
	if err != nil {
		return nil, err
	}
	return MergeLayers(ctx, layers)
}

// An Image is an open image. It is safe for concurrent use.
type Image struct {
	tree   *fs.Tree
	layers []*Layer // the base first, as in tree; what Close closes

	counts   *counters
	digests  *digestTables
	contents *contents // nil if none are kept
}

// Tree returns the merged layers.
func (t *Image) Tree() *fs.Tree { return t.tree }

// FS returns the tree as an io/fs file system whose reads end with ctx: see
// fs.Tree.WithContext.
func (t *Image) FS(ctx context.Context) iofs.FS { return t.tree.WithContext(ctx) }

// Close closes the layers. Nothing may be read from the tree any more; names and
// attributes stay.
func (t *Image) Close() error {
	if t.contents != nil {
		t.contents.close()
	}
	t.digests.cancel()
	closeLayers(t.layers)
	return nil
}

// OpenLayers loads or makes the index of every layer of an image, without
// merging them, and notes in the cache that the image is used. A layer that the
// image has more than once is opened once. Of several processes that open the
// same new image at the same time one reads each layer, and the others wait
// for its index.
func OpenLayers(ctx context.Context, img *remote.Image, opts *Options) ([]*Layer, error) {
	o := &opener{opts: opts.withDefaults()}
	if len(img.Layers) > fs.MaxLayers {
		return nil, fmt.Errorf("%w: %d layers, more than %d", fs.ErrTooLarge, len(img.Layers), fs.MaxLayers)
	}
	o.budget = layerindex.NewBudget(o.opts.MaxMetadata, o.opts.Metadata)
	o.memory = semaphore.NewWeighted(o.opts.BuildMemory)
	o.store = indexes.New(o.opts.Cache.Indexes())
	o.spans = reader.NewSpanCache(o.opts.SpanMemory)
	layers, err := o.all(ctx, img.Layers)
	if err != nil {
		return nil, err
	}
	o.opened.Store(true)
	if img.Source != nil { // else it has no name
		o.opts.Cache.NoteImage(noteOf(img))
	}
	return layers, nil
}

// noteOf is what the cache remembers of an image.
func noteOf(img *remote.Image) cache.Image {
	note := cache.Image{Name: img.Source.Name(), Manifest: img.Descriptor.Digest, Used: time.Now()}
	note.Platform = path.Join(img.Platform.OS, img.Platform.Architecture, img.Platform.Variant)
	for _, l := range img.Layers {
		note.Layers = append(note.Layers, cache.ImageLayer{Digest: l.Digest(), Size: l.Size(), DiffID: l.DiffID})
	}
	return note
}

type opener struct {
	opts  Options
	store *indexes.Store
	spans *reader.SpanCache
	// memory is shared by the layers that are being indexed.
	memory *semaphore.Weighted
	// budget is what the metadata of all layers may take.
	budget *layerindex.Budget
	// full lets only the first index that cannot be kept be told of.
	full sync.Once
	// opened: what is made from then on is no progress.
	opened atomic.Bool
}

// all opens the layers, big ones first: they take longest.
func (o *opener) all(ctx context.Context, layers []remote.Layer) ([]*Layer, error) {
	order := make([]int, len(layers))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(layers[b].Size(), layers[a].Size()) })
	var once sync.Map // digest and diff_id → func() (*Layer, error)
	opened := make([]*Layer, len(layers))
	group, ctx := errgroup.WithContext(ctx)
	for _, i := range order {
		l := layers[i]
		open, _ := once.LoadOrStore([2]digest.Digest{l.Digest(), l.DiffID}, sync.OnceValues(func() (*Layer, error) {
			return o.open(ctx, i, l)
		}))
		group.Go(func() error {
			got, err := open.(func() (*Layer, error))()
			if err != nil {
				return layerError(l.Digest(), err)
			}
			opened[i] = got
			o.progress(Progress{Layer: i, Size: l.Size(), Read: l.Size(), Done: true, Built: got.Built})
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		closeLayers(opened)
		return nil, err
	}
	return opened, nil
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
