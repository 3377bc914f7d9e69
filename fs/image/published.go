package image

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/layerindex/build"
	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache/indexes"
	"github.com/imgfs/imgfs/remote/indexrepo"
)

// A publication is what one place has published of the indexes of an image's layers. The
// place is asked when somebody first wants to know, for all layers at once. It is safe for
// concurrent use.
type publication struct {
	finder indexrepo.Finder
	// open returns the place. Nothing is asked of it yet.
	open     func() (remote.ArtifactSource, error)
	beside   bool            // the place is the image's own repository
	manifest digest.Digest   // of the image, for one platform
	layers   []digest.Digest // those to ask for

	once  sync.Once
	found map[digest.Digest]*indexrepo.Published
}

// newPublication returns the publication of an index repository, or of the image's own
// repository for "".
func (r *Resolved) newPublication(repository string, layers []digest.Digest) *publication {
	p := &publication{
		finder: indexrepo.Finder{Meta: r.disk.Meta, Offline: r.opts.Offline, Debugf: r.opts.Debugf},
		beside: repository == "", manifest: r.Descriptor.Digest, layers: layers,
	}
	p.finder.Warnf = r.opts.Warnf
	if p.beside { // which nobody named
		p.finder.Warnf = r.opts.Debugf
	}
	p.open = func() (remote.ArtifactSource, error) { return r.indexPlace(repository) }
	return p
}

// indexPlace returns an index repository, or the image's own repository for "".
func (r *Resolved) indexPlace(repository string) (remote.ArtifactSource, error) {
	if repository != "" {
		return r.indexRepository(repository)
	}
	if src, ok := r.found.(remote.ArtifactSource); ok {
		return src, nil
	}
	return nil, remote.ErrUnsupported
}

// of returns what is published of a layer, nil if nothing is. Waiting for a place that
// says nothing ends after indexrepo.Patience.
func (p *publication) of(ctx context.Context, layer digest.Digest) *indexrepo.Published {
	p.once.Do(func() {
		src, err := p.open()
		if err == nil {
			p.found = p.finder.Find(ctx, indexrepo.Place{Source: src, Beside: p.beside}, p.manifest, p.layers)
		} else if p.finder.Debugf != nil {
			p.finder.Debugf("no published indexes: %v", err)
		}
	})
	return p.found[layer]
}

// far returns a published index of a layer, which stays where it is but for what is needed
// of it. One that is gone, or not what was announced, is looked for anew the next time.
func (o *opener) far(ctx context.Context, l remote.Layer, p *publication, x *indexrepo.Published) (*layerindex.Index, error) {
	came := o.received(l.Digest())
	digests := x.DigestsBlob
	if digests != nil {
		digests = o.cache.Blobs.Direct(digests, came)
	}
	open, err := o.store.Far(ctx, claimOf(l), &indexes.FarOptions{
		Header: x.Header, Listing: x.Listing, Index: o.cache.Blobs.Direct(x.IndexBlob, came), Digests: digests,
		MakeRoom: o.cache.MakeRoom, DiskFailed: o.cache.WarnDisk,
	})
	if err == nil {
		if err = checkChunks(open); err == nil {
			err = o.listable(ctx, open)
		}
		if err != nil {
			open.Close()
		}
	}
	if errors.Is(err, layerindex.ErrIndex) || errors.Is(err, remote.ErrNotFound) {
		p.finder.Forget(x)
	}
	if err != nil {
		return nil, err
	}
	return open, nil
}

// checkChunks refuses an index with chunks of another size than ours: each read takes a
// whole one, and the file of a blob has one size of chunks, so that two mounts would make
// it anew in turns.
func checkChunks(x *layerindex.Index) error {
	if n := x.ChunkSize(); n != build.DefaultChunkSize {
		return fmt.Errorf("%w: its chunks have %d bytes, and not %d", layerindex.ErrIndex, n, build.DefaultChunkSize)
	}
	return nil
}

// listable checks that the entries of an index are well formed. A tree is made of them
// later, when it is too late for another index.
func (o *opener) listable(ctx context.Context, x *layerindex.Index) error {
	budget := o.metadata().Part()
	defer budget.Undo()
	_, err := x.List(ctx, budget)
	return err
}
