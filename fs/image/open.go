package image

import (
	"context"
	"errors"
	iofs "io/fs"
	"time"

	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/fs/image/internal/counters"
	"github.com/imgfs/imgfs/fs/image/internal/keptfile"
	"github.com/imgfs/imgfs/remote"
)

// Open opens an image by name, with all of its layers: it is Resolve,
// Resolved.OpenLayers and Layers.Merge. The indexes of layers that the cache has
// are loaded, the others made by reading those layers once, all side by side. A
// layer that is not what manifest and config say fails it, and leaves nothing in
// the cache. A disk that takes nothing does not: what could not be kept is made
// again the next time. nil opts are the defaults.
//
// Errors that somebody can do something about wrap an *Error.
func Open(ctx context.Context, name string, opts *Options) (*Image, error) {
	r, err := Resolve(ctx, name, opts)
	if err != nil {
		return nil, err
	}
	return r.open(ctx)
}

// New opens an image that the caller has resolved. It is otherwise like Open: nil
// opts are the defaults, and what they say of names, platforms and registries is
// not used.
func New(ctx context.Context, img *remote.Image, opts *Options) (*Image, error) {
	r, err := From(img, opts)
	if err != nil {
		return nil, err
	}
	return r.open(ctx)
}

// From returns an image that the caller has resolved, to open its layers.
// Resolved.Close leaves its source open. nil opts are the defaults.
func From(img *remote.Image, opts *Options) (*Resolved, error) {
	if img == nil {
		return nil, errNoImage
	}
	r, err := newResolved(opts)
	if err != nil {
		return nil, err
	}
	r.Image, r.found = img, img.Source
	if r.opts.Layers != 0 {
		if err := r.Upto(r.opts.Layers); err != nil {
			r.Close()
			return nil, err
		}
	}
	return r, nil
}

// errNoImage: there is nothing to be opened.
var errNoImage = errors.New("no image is given")

func (r *Resolved) open(ctx context.Context) (*Image, error) {
	layers, err := r.OpenLayers(ctx, nil)
	if err != nil {
		return nil, err
	}
	return layers.Merge(ctx)
}

// An Image is an open image. It is safe for concurrent use. The zero Image is not
// valid.
type Image struct {
	tree   *fs.Tree
	layers *Layers // as in tree; what Close closes

	counts  *counters.Counters
	kept    *keptfile.Files // nil if none are kept
	digests *digestTables
}

// Tree returns the merged layers.
func (i *Image) Tree() *fs.Tree { return i.tree }

// FS returns the tree as an io/fs file system whose reads end with ctx: see
// fs.Tree.WithContext.
func (i *Image) FS(ctx context.Context) iofs.FS { return i.tree.WithContext(ctx) }

// Resolved returns the image as it was resolved: its name, what manifest and
// config say, the cache. It is not the caller's to close.
func (i *Image) Resolved() *Resolved { return i.layers.from }

// Name returns the image's name as messages have it.
func (i *Image) Name() string { return i.layers.from.Name() }

// Layers returns the layers, the base first.
func (i *Image) Layers() []*Layer { return i.layers.All() }

// Fill brings into the cache what is missing of the image's layers: see
// Layers.Fill.
func (i *Image) Fill(ctx context.Context, progress func(have, all int64)) error {
	return i.layers.Fill(ctx, progress)
}

// FetchFirst fetches what is worth fetching before anything is read: see
// Layers.FetchFirst.
func (i *Image) FetchFirst(ctx context.Context) error { return i.layers.FetchFirst(ctx) }

// NoteUsed notes in the cache that the image was used until now, if the cache
// knows of it still. Opening has noted that its use began.
func (i *Image) NoteUsed() {
	img := i.Resolved()
	disk := img.Cache()
	if disk == nil { // no layers were merged
		return
	}
	images, err := disk.Meta.Images()
	if err != nil {
		return
	}
	for _, note := range images {
		if note.Manifest == img.Descriptor.Digest && note.Name == i.Name() {
			note.Used = time.Now()
			disk.Meta.NoteImage(note)
		}
	}
}

// Close closes the image with all that it is read from: its layers, the source,
// and the cache if that was opened for it. Reads of files fail from then on with
// an error that wraps fs.ErrClosed; names and attributes stay.
func (i *Image) Close() error {
	for _, l := range i.layers.all {
		l.interrupt()
	}
	i.closeOwn()
	return i.layers.Close()
}

// closeOwn is Close without the layers.
func (i *Image) closeOwn() {
	if i.kept != nil {
		i.kept.Close()
	}
	i.digests.cancel()
}
