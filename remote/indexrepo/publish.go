package indexrepo

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/registry"
)

const (
	// pushTries is how often a manifest is put, with the blobs that the registry
	// says it lacks: it may have lost them since.
	pushTries = 3
	// maxPushed is how many layers are pushed side by side.
	maxPushed = 4
)

// An Index is the published form of a layer's index. Who publishes it must have
// proven it: made it by a pass over the whole blob, or compared it with one.
type Index struct {
	Description
	// IndexContent and DigestsContent are the blobs. They are nil of an index that was
	// found in the place that it is to be put into, and DigestsContent is nil if there
	// are no content digests. Several goroutines may read them.
	IndexContent, DigestsContent io.ReaderAt
}

// An Image is what Publish publishes.
type Image struct {
	// Layers has the indexes of layers, each once, in the image's order.
	Layers []Index
	// Manifest describes the image's manifest for one platform. If its Digest is "",
	// only single layers are published.
	Manifest ocispec.Descriptor
	// Beside says that it goes into the image's own repository, and not into an index
	// repository.
	Beside bool
	// Version is the program that publishes, for people.
	Version string
	// Progress, if not nil, is told how many bytes of how many are in the place, by any
	// goroutine, one at a time.
	Progress func(done, all int64)
}

// A Result is what happened to the index of a layer.
type Result struct {
	Description
	// Bytes is the size of the index and its content digests.
	Bytes int64
	// Pushed says that something was sent of it: a blob, or a manifest that has it.
	// Else all was there.
	Pushed bool
}

// Publish puts indexes into a place, unless they are there: into an index repository
// those of each layer, and then those of the image; beside an image those of the
// image, which refer to it. The results have the order of img.Layers.
//
// Several may publish at the same time, also the same. What is there and leads to
// other indexes of the same layers is replaced. The error is the first of the
// place's; what was published before that stays.
func Publish(ctx context.Context, to *registry.Repository, img *Image) ([]Result, error) {
	p := &publisher{target: to, img: img, has: make(map[digest.Digest]bool), sent: make(map[digest.Digest]int64)}
	results := make([]Result, len(img.Layers))
	all := make([]*Index, len(img.Layers))
	for i := range img.Layers {
		x := &img.Layers[i]
		all[i] = x
		results[i] = Result{Description: x.Description, Bytes: x.Index.Size + x.Digests.Size}
		p.total += results[i].Bytes
	}
	if !img.Beside {
		group, ctx := errgroup.WithContext(ctx)
		group.SetLimit(maxPushed)
		for i, x := range all {
			group.Go(func() (err error) {
				results[i].Pushed, err = p.put(ctx, x.Layer, []*Index{x}, nil)
				return err
			})
		}
		if err := group.Wait(); err != nil {
			return results, err
		}
	}
	if img.Manifest.Digest == "" || len(all) == 0 {
		return results, nil
	}
	var subject *ocispec.Descriptor
	if img.Beside {
		m := bare(img.Manifest)
		subject = &m
	}
	pushed, err := p.put(ctx, img.Manifest.Digest, all, subject)
	if img.Beside {
		for i := range results {
			results[i].Pushed = pushed
		}
	}
	return results, err
}

// A publisher is one Publish.
type publisher struct {
	target *registry.Repository
	img    *Image
	total  int64 // bytes of all blobs but the config

	mu   sync.Mutex
	has  map[digest.Digest]bool  // the blobs that the place has
	sent map[digest.Digest]int64 // how many bytes of each
	done int64                   // the sum of sent
}

// put puts the manifest of some indexes under the tag of a digest, with its blobs,
// and reports whether it was not there.
func (p *publisher) put(ctx context.Context, named digest.Digest, all []*Index, subject *ocispec.Descriptor) (bool, error) {
	tag, ok := Tag(named)
	if !ok {
		return false, nil
	}
	content, err := encodeManifest(all, subject, p.img.Version)
	if err != nil {
		return false, err
	}
	if len(content) > maxManifest {
		return false, nil // readers would not take it
	}
	// docker-registry 2.8 answers 500 as long as somebody else writes the tag. To put
	// what may be there does no harm.
	if there, err := p.there(ctx, tag, all); there || err != nil && !errors.Is(err, remote.ErrUnavailable) {
		return false, err
	}
	for try := 1; ; try++ {
		if err = p.putBlobs(ctx, all); err == nil {
			_, err = p.target.PutManifest(ctx, ocispec.MediaTypeImageManifest, content, tag)
		}
		if try == pushTries || !errors.Is(err, remote.ErrNotFound) {
			return true, err
		}
		p.forget(all)
	}
}

// there reports whether a tag leads to these indexes. Then their blobs count as
// there.
func (p *publisher) there(ctx context.Context, tag string, all []*Index) (bool, error) {
	desc, err := p.target.ResolveTag(ctx, tag)
	var found map[digest.Digest]*Description
	if err == nil {
		found, err = p.read(ctx, desc)
	}
	if isNone(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	for _, x := range all {
		if d := found[x.Layer]; d == nil || !d.same(&x.Description) {
			return false, nil
		}
	}
	for _, x := range all {
		p.note(x.Index)
		p.note(x.Digests)
	}
	return true, nil
}

// read reads a manifest of the place.
func (p *publisher) read(ctx context.Context, desc ocispec.Descriptor) (map[digest.Digest]*Description, error) {
	a, err := remote.OpenArtifact(ctx, p.target, desc)
	if err != nil {
		return nil, err
	}
	return describe(a)
}

// putBlobs uploads the blobs of some indexes, and the config, as far as they are not
// there.
func (p *publisher) putBlobs(ctx context.Context, all []*Index) error {
	config := ocispec.Descriptor{MediaType: ocispec.MediaTypeEmptyJSON, Digest: digest.FromBytes(emptyConfig), Size: int64(len(emptyConfig))}
	if err := p.putBlob(ctx, config, bytes.NewReader(emptyConfig)); err != nil {
		return err
	}
	for _, x := range all {
		if err := p.putBlob(ctx, x.Index, x.IndexContent); err != nil {
			return err
		}
		if err := p.putBlob(ctx, x.Digests, x.DigestsContent); err != nil {
			return err
		}
	}
	return nil
}

// putBlob uploads a blob, unless it is there.
func (p *publisher) putBlob(ctx context.Context, desc ocispec.Descriptor, content io.ReaderAt) error {
	if desc.Digest == "" || content == nil || p.isThere(desc.Digest) {
		return nil
	}
	err := p.target.PutBlob(ctx, desc, content, &registry.PutOptions{Progress: func(n int64) { p.progress(desc, n) }})
	if err == nil {
		p.note(desc)
	}
	return err
}

func (p *publisher) isThere(d digest.Digest) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.has[d]
}

// note notes that the place has a blob.
func (p *publisher) note(desc ocispec.Descriptor) {
	if desc.Digest == "" {
		return
	}
	p.mu.Lock()
	p.has[desc.Digest] = true
	p.mu.Unlock()
	p.progress(desc, desc.Size)
}

// progress notes that the place has n bytes of a blob.
func (p *publisher) progress(desc ocispec.Descriptor, n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if desc.MediaType == ocispec.MediaTypeEmptyJSON || n <= p.sent[desc.Digest] {
		return
	}
	p.done += n - p.sent[desc.Digest]
	p.sent[desc.Digest] = n
	if p.img.Progress != nil {
		p.img.Progress(p.done, p.total)
	}
}

// forget has the place asked again whether it has the blobs of some indexes.
func (p *publisher) forget(all []*Index) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, x := range all {
		delete(p.has, x.Index.Digest)
		delete(p.has, x.Digests.Digest)
	}
	delete(p.has, digest.FromBytes(emptyConfig))
}
