package fs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/blobcache"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"
)

// Options are the choices of New and OpenLayers. Fields that are zero mean
// their defaults.
type Options struct {
	// Cache keeps blobs and layer indexes. It must be set, and stay open as
	// long as the tree is used.
	Cache *blobcache.Cache
	// SpanMemory bounds the memory in bytes that decoded pieces of layers
	// take. Default: 64 MiB.
	SpanMemory int64
	// BuildMemory is about how many bytes the layers that are indexed side
	// by side may take: it decides how many at a time. Default: 64 MiB.
	BuildMemory int64
	// Progress, if not nil, is called while layers are opened. Calls may
	// come from several goroutines, but one at a time for each layer.
	Progress func(Progress)
	// Warnf, if not nil, is told what was not as it should be and did no
	// harm: a damaged index file that is made again.
	Warnf func(format string, args ...any)
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

// An OpenLayer is a layer that can be listed and read.
type OpenLayer struct {
	remote.Layer
	Index *layerindex.Index
	// Built says that the index was made by this call, and not loaded.
	Built bool

	reader *layerindex.Reader
}

// New opens an image: it loads the layer indexes that the cache has, makes
// the others by reading those layers once, all side by side, and merges the
// layers. A layer that is not what manifest and config say fails it, and
// leaves nothing in the cache.
func New(ctx context.Context, img *remote.Image, opts *Options) (*Tree, error) {
	layers, err := OpenLayers(ctx, img, opts)
	if err != nil {
		return nil, err
	}
	return MergeLayers(layers)
}

// MergeLayers makes one tree of opened layers, the base first. It closes
// them when it fails.
func MergeLayers(layers []*OpenLayer) (*Tree, error) {
	parts := make([]Layer, len(layers))
	var group errgroup.Group
	for i, l := range layers {
		group.Go(func() error {
			entries, marked, err := l.Index.EntriesAnd(whiteoutPrefix)
			if err != nil {
				return layerError(l.Digest(), err)
			}
			parts[i] = Layer{Name: l.Digest().String(), Entries: entries, Marked: marked, Count: l.Index.NumEntries(), Content: l.reader}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		closeLayers(layers)
		return nil, err
	}
	t, err := Merge(parts)
	if err != nil {
		closeLayers(layers)
		return nil, err
	}
	t.layers = layers
	return t, nil
}

// Close closes the layers of a tree that New or MergeLayers made. Nothing may
// be read from it any more; names and attributes stay.
func (t *Tree) Close() error {
	closeLayers(t.layers)
	return nil
}

// OpenLayers loads or makes the index of every layer of an image, without
// merging them. A layer that the image has more than once is opened once.
func OpenLayers(ctx context.Context, img *remote.Image, opts *Options) ([]*OpenLayer, error) {
	o := opener{opts: *opts}
	if o.opts.SpanMemory == 0 {
		o.opts.SpanMemory = 64 << 20
	}
	if o.opts.BuildMemory == 0 {
		o.opts.BuildMemory = 64 << 20
	}
	o.memory = semaphore.NewWeighted(o.opts.BuildMemory)
	store, err := layerindex.OpenStore(filepath.Join(o.opts.Cache.Dir(), "indexes"))
	if err != nil {
		return nil, err
	}
	o.store = store
	o.spool = filepath.Join(o.opts.Cache.Dir(), "tmp")
	o.spans = layerindex.NewSpanCache(o.opts.SpanMemory)
	return o.all(ctx, img.Layers)
}

type opener struct {
	opts  Options
	store *layerindex.Store
	spans *layerindex.SpanCache
	spool string
	// memory is shared by the layers that are being indexed.
	memory *semaphore.Weighted
}

// buildMemory is about how many bytes indexing a layer takes: the ranges of it
// in flight, the pipeline's pieces, and what its decoder remembers.
func (o *opener) buildMemory(l remote.Layer) int64 {
	const pipeline, gzipDecoder, zstdDecoder = 2 << 20, 1 << 20, 16 << 20
	n := min(l.Size(), 4<<20) + pipeline
	if strings.HasSuffix(l.MediaType, "zstd") {
		n += zstdDecoder
	} else {
		n += gzipDecoder
	}
	return min(n, o.opts.BuildMemory)
}

// all opens the layers, big ones first: they take longest.
func (o *opener) all(ctx context.Context, layers []remote.Layer) ([]*OpenLayer, error) {
	order := make([]int, len(layers))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(layers[b].Size(), layers[a].Size()) })
	var once sync.Map // digest and diff_id → func() (*OpenLayer, error)
	opened := make([]*OpenLayer, len(layers))
	group, ctx := errgroup.WithContext(ctx)
	for _, i := range order {
		l := layers[i]
		open, _ := once.LoadOrStore([2]digest.Digest{l.Digest(), l.DiffID}, sync.OnceValues(func() (*OpenLayer, error) {
			return o.open(ctx, i, l)
		}))
		group.Go(func() error {
			got, err := open.(func() (*OpenLayer, error))()
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

// closeLayers closes what was only read from: there is nothing to lose.
func closeLayers(layers []*OpenLayer) {
	for _, l := range layers {
		if l != nil {
			l.reader.Close()
			l.Index.Close()
		}
	}
}

func layerError(d digest.Digest, err error) error { return fmt.Errorf("layer %s: %w", d, err) }

func (o *opener) progress(p Progress) {
	if o.opts.Progress != nil {
		o.opts.Progress(p)
	}
}

// open loads the index of one layer, or makes it.
func (o *opener) open(ctx context.Context, i int, l remote.Layer) (*OpenLayer, error) {
	claim := layerindex.Layer{Digest: l.Digest(), Size: l.Size(), DiffID: l.DiffID}
	open := &OpenLayer{Layer: l}
	x, err := o.store.Load(claim)
	if errors.Is(err, layerindex.ErrNoIndex) {
		if errors.Is(err, layerindex.ErrIndex) && o.opts.Warnf != nil {
			o.opts.Warnf("%v; making it again", err)
		}
		if x, err = o.build(ctx, i, l, claim); err != nil {
			return nil, err
		}
		open.Built = true
	}
	if err != nil {
		return nil, err
	}
	open.Index = x
	if open.reader, err = o.reader(x, l); err != nil {
		x.Close()
		return nil, err
	}
	return open, nil
}

// build makes the index of a layer: of the bytes in the cache, if all of them
// are there, and else by reading the layer once, which puts them there.
// Nothing stays of a layer that fails.
func (o *opener) build(ctx context.Context, i int, l remote.Layer, claim layerindex.Layer) (*layerindex.Index, error) {
	need := o.buildMemory(l)
	if err := o.memory.Acquire(ctx, need); err != nil {
		return nil, err
	}
	defer o.memory.Release(need)
	if kept, ok := o.opts.Cache.Stored(l.Digest(), l.Size()); ok {
		x, err := o.pass(ctx, i, l, kept, claim, io.Discard)
		kept.Close()
		if !errors.Is(err, layerindex.ErrDigest) {
			return x, err
		}
	}
	rec, err := o.opts.Cache.Record(l.Blob)
	if err != nil {
		return nil, err
	}
	defer rec.Abort() // does nothing after Commit
	x, err := o.pass(ctx, i, l, l.Blob, claim, rec)
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

// pass reads a blob once, with a copy of its bytes to another place, and keeps
// its index.
func (o *opener) pass(ctx context.Context, i int, l remote.Layer, from remote.Blob, claim layerindex.Layer, to io.Writer) (*layerindex.Index, error) {
	blob := remote.NewStream(ctx, from, nil)
	defer blob.Close()
	x, err := layerindex.Build(ctx, claim, io.TeeReader(blob, to), &layerindex.BuildOptions{
		Progress: func(in int64) { o.progress(Progress{Layer: i, Size: l.Size(), Read: in}) },
	})
	if err != nil {
		return nil, err
	}
	if err := o.store.Save(x); err != nil {
		return nil, fmt.Errorf("keeping its index: %w", err)
	}
	// From the file, so that the memory of the one just made is free.
	return o.store.Load(claim)
}

func chunksOf(x *layerindex.Index) (blobcache.Chunks, error) {
	sums, err := x.ChunkSums()
	return blobcache.Chunks{Size: x.ChunkSize(), Sums: sums}, err
}

// reader puts the cache between a layer and its source.
func (o *opener) reader(x *layerindex.Index, l remote.Layer) (*layerindex.Reader, error) {
	chunks, err := chunksOf(x)
	if err != nil {
		return nil, err
	}
	blob, err := o.opts.Cache.Blob(l.Blob, chunks)
	if err != nil {
		return nil, err
	}
	return layerindex.NewReader(x, blob, &layerindex.ReaderOptions{Cache: o.spans, SpoolDir: o.spool}), nil
}
