package indexrepo

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
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
	p := newPublisher(to, img)
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

func newPublisher(to *registry.Repository, img *Image) *publisher {
	return &publisher{target: to, img: img, has: make(map[digest.Digest]bool), sent: make(map[digest.Digest]int64)}
}

// A blob is what a manifest leads to. It has no Digest if there is none, and no content if
// that need not be put.
type blob struct {
	ocispec.Descriptor
	content io.ReaderAt
}

// put puts the manifest of some indexes under the tag of a digest, with its blobs,
// and reports whether it was not there.
func (p *publisher) put(ctx context.Context, named digest.Digest, all []*Index, subject *ocispec.Descriptor) (bool, error) {
	tag, ok := Tag(named)
	if !ok {
		return false, nil
	}
	descriptors := []ocispec.Descriptor{}
	var blobs []blob
	for _, x := range all {
		descriptors = append(descriptors, x.descriptors()...)
		blobs = append(blobs, blob{x.Index, x.IndexContent}, blob{x.Digests, x.DigestsContent})
	}
	content, err := encodeManifest(ArtifactType, descriptors, subject, p.img.Version)
	if err != nil {
		return false, err
	}
	if len(content) > maxManifest {
		return false, nil // readers would not take it
	}
	return p.putManifest(ctx, tag, content, blobs, func(a *remote.Artifact) bool {
		found, err := describe(a)
		return err == nil && !slices.ContainsFunc(all, func(x *Index) bool {
			d := found[x.Layer]
			return d == nil || !d.same(&x.Description)
		})
	})
}

// putManifest puts a manifest under a tag, with its blobs, unless what is there is the same,
// and reports whether it was not.
func (p *publisher) putManifest(ctx context.Context, tag string, content []byte, blobs []blob, same func(*remote.Artifact) bool) (bool, error) {
	// docker-registry 2.8 answers 500 as long as somebody else writes the tag. To put
	// what may be there does no harm.
	there, err := p.there(ctx, tag, same)
	if err != nil && !errors.Is(err, remote.ErrUnavailable) {
		return false, err
	}
	if there {
		for _, b := range blobs {
			p.note(b.Descriptor)
		}
		return false, nil
	}
	for try := 1; ; try++ {
		if err = p.putBlobs(ctx, blobs); err == nil {
			_, err = p.target.PutManifest(ctx, ocispec.MediaTypeImageManifest, content, tag)
		}
		if try == pushTries || !errors.Is(err, remote.ErrNotFound) {
			return true, err
		}
		p.forget(blobs)
	}
}

// there reports whether a tag leads to the same.
func (p *publisher) there(ctx context.Context, tag string, same func(*remote.Artifact) bool) (bool, error) {
	desc, err := p.target.ResolveTag(ctx, tag)
	var a *remote.Artifact
	if err == nil {
		a, err = remote.OpenArtifact(ctx, p.target, desc)
	}
	if isNone(err) {
		return false, nil
	}
	return err == nil && same(a), err
}

// putBlobs uploads blobs, and the config, as far as they are not there.
func (p *publisher) putBlobs(ctx context.Context, blobs []blob) error {
	config := ocispec.Descriptor{MediaType: ocispec.MediaTypeEmptyJSON, Digest: digest.FromBytes(emptyConfig), Size: int64(len(emptyConfig))}
	if err := p.putBlob(ctx, config, bytes.NewReader(emptyConfig)); err != nil {
		return err
	}
	for _, b := range blobs {
		if err := p.putBlob(ctx, b.Descriptor, b.content); err != nil {
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

// forget has the place asked again whether it has some blobs.
func (p *publisher) forget(blobs []blob) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, b := range blobs {
		delete(p.has, b.Digest)
	}
	delete(p.has, digest.FromBytes(emptyConfig))
}
