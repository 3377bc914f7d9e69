package image

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/indexrepo"
	"github.com/imgfs/imgfs/remote/registry"
)

// ErrNotPublished says that indexes cannot be published: there is no registry to put them
// into, or none that was made here. It comes wrapped.
var ErrNotPublished = errors.New("nothing to publish")

// PublishOptions are the choices of Publish. Nil and zero values mean the defaults.
type PublishOptions struct {
	// Repository is an index repository, as HOST/PATH. Default: the indexes go beside
	// the image, into its own repository.
	Repository string
	// Once publishes nothing if there is nothing to publish, which then is no error, or
	// if that was done before, as far as the cache remembers, and all indexes were there
	// when the layers were opened.
	Once bool
	// Version is what the published manifests say of the program.
	Version string
	// Progress, if not nil, is told how many bytes of how many are in the repository.
	// Calls may come from any goroutine, one at a time.
	Progress func(done, all int64)
}

// Publish puts the layers' indexes into a registry, unless they are there, and returns
// what happened to each, the base first. Only indexes that were made here of all of
// a layer are published: others have no more to vouch for them than where they came
// from. Those that came from the same repository stay there, and are named with the others
// as indexes of the image. The layers must not be closed meanwhile.
//
// The errors are ErrNotPublished, and those of the registry, which wrap an *Error if
// somebody can do something about them; what was put before stays.
func (l *Layers) Publish(ctx context.Context, opts *PublishOptions) ([]indexrepo.Result, error) {
	return l.from.publish(ctx, l.all, opts)
}

// CheckPublish returns an error if Publish cannot publish the image's indexes in a
// repository, or beside the image for "", whatever its layers are. Nothing is asked of a
// registry.
func (r *Resolved) CheckPublish(repository string) error {
	_, err := r.publishTo(repository)
	return err
}

// IndexRepositories returns the index repositories that are asked for indexes of the
// image's layers, in that order: those of Options.IndexRepos and those that configuration
// files name.
func (r *Resolved) IndexRepositories() []string { return slices.Clone(r.indexRepos) }

// Publish is Layers.Publish. The image must not be closed meanwhile.
func (i *Image) Publish(ctx context.Context, opts *PublishOptions) ([]indexrepo.Result, error) {
	return i.layers.Publish(ctx, opts)
}

func (r *Resolved) publish(ctx context.Context, layers []*Layer, opts *PublishOptions) ([]indexrepo.Result, error) {
	if opts == nil {
		opts = &PublishOptions{}
	}
	if opts.Once && r.opts.Offline {
		return nil, nil
	}
	to, err := r.publishTo(opts.Repository)
	if err != nil {
		return nil, err
	}
	mark := to.Repository() + ":published." + r.Descriptor.Digest.String()
	if opts.Once && !slices.ContainsFunc(layers, func(l *Layer) bool { return l.Built }) {
		if _, done := r.disk.Meta.Reference(mark); done {
			return nil, nil
		}
	}
	img := &indexrepo.Image{Manifest: r.Descriptor, Beside: opts.Repository == "", Version: opts.Version, Progress: opts.Progress}
	var temps []io.Closer
	defer func() {
		for _, t := range temps {
			t.Close()
		}
	}()
	made := false
	seen := map[digest.Digest]bool{}
	for _, layer := range layers {
		if seen[layer.Digest()] {
			continue
		}
		seen[layer.Digest()] = true
		s := layer.state.Load()
		if x := s.published; x != nil && x.Repository == to.Repository() {
			img.Layers = append(img.Layers, indexrepo.Index{Description: x.Description})
			continue
		}
		if s.use.Vouched != VouchedHere || s.refuted() != nil {
			continue
		}
		x, files, err := r.published(ctx, layer.Digest(), s.index)
		temps = append(temps, files...)
		if err != nil {
			return nil, layerError(layer.Digest(), err)
		}
		img.Layers = append(img.Layers, *x)
		made = true
	}
	if !made && opts.Once {
		return nil, nil
	}
	if !made {
		return nil, fmt.Errorf("%s: %w: none of its layers was read here", r.Name(), ErrNotPublished)
	}
	results, err := indexrepo.Publish(ctx, to, img)
	if err != nil {
		return results, r.advisePush(to, err)
	}
	r.disk.Meta.KeepReference(mark, r.Descriptor)
	return results, nil
}

// publishTo returns the repository that indexes are put into: an index repository, or
// the image's own for "".
func (r *Resolved) publishTo(name string) (*registry.Repository, error) {
	if r.opts.Offline {
		return nil, fmt.Errorf("%s: %w offline: %w", r.Name(), ErrNotPublished, remote.ErrUnavailable)
	}
	if name != "" {
		return r.indexRepository(name)
	}
	own, ok := r.found.(*registry.Repository)
	if !ok {
		return nil, fmt.Errorf("%s: %w: it is in no registry", r.Name(), ErrNotPublished)
	}
	return own, nil
}

// indexRepository returns a repository of the registries that the image's options lead
// to. Nothing is asked of it yet.
func (r *Resolved) indexRepository(name string) (*registry.Repository, error) {
	ref, err := remote.ParseRepository(name)
	if err != nil {
		return nil, err
	}
	ref.Tag = "latest" // it is not asked for
	if err := r.configureFor(name); err != nil {
		return nil, err
	}
	client, err := r.registry()
	if err != nil {
		return nil, err
	}
	return client.Repository(ref), nil
}

// configureFor reads the configuration files, for a registry beside an image that none
// has.
func (r *Resolved) configureFor(name string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.opts.Registry.Sites != nil {
		return nil
	}
	_, err := r.configure("docker://"+name, name)
	return err
}

// published returns the index of a layer as it is published, and the files to close when
// it has been.
func (r *Resolved) published(ctx context.Context, layer digest.Digest, x *layerindex.Index) (*indexrepo.Index, []io.Closer, error) {
	index, err := r.newSummedFile()
	if err != nil {
		return nil, nil, err
	}
	files := []io.Closer{index.file}
	digests, err := r.newSummedFile()
	if err != nil {
		return nil, files, err
	}
	files = append(files, digests.file)
	p, err := x.Published(ctx)
	if err == nil {
		_, err = p.WriteTo(index)
	}
	if err == nil {
		err = x.WriteDigests(ctx, digests)
	}
	if err != nil {
		return nil, files, err
	}
	listing, err := listingOf(p)
	if err != nil {
		return nil, files, err
	}
	published := &indexrepo.Index{IndexContent: index.file, Description: indexrepo.Description{
		Layer: layer, Codec: x.Codec().String(), Header: p.HeaderSum(), Listing: listing, Index: index.descriptor(),
	}}
	if digests.size > 0 {
		published.Digests, published.DigestsContent = digests.descriptor(), digests.file
	}
	return published, files, nil
}

// listingOf returns how many bytes of a published index whoever lists the layer needs, up
// to the end of a piece.
func listingOf(x *layerindex.Index) (int64, error) {
	pieces, err := x.Pieces()
	if err != nil {
		return 0, err
	}
	end := x.ListingEnd()
	_, to, ok := pieces.Range(end-1, end)
	if !ok {
		return end, nil
	}
	_, end = pieces.Bounds(to - 1)
	return end, nil
}

// A summedFile is a temporary file that knows the digest of what was written to it.
type summedFile struct {
	file remote.TempFile
	sum  hash.Hash
	size int64
}

func (r *Resolved) newSummedFile() (*summedFile, error) {
	f, err := r.tempFile()
	return &summedFile{file: f, sum: sha256.New()}, err
}

// Write implements io.Writer.
func (f *summedFile) Write(p []byte) (int, error) {
	n, err := f.file.WriteAt(p, f.size)
	f.sum.Write(p[:n])
	f.size += int64(n)
	return n, err
}

// descriptor describes what was written.
func (f *summedFile) descriptor() ocispec.Descriptor {
	return ocispec.Descriptor{Digest: digest.NewDigestFromBytes(digest.SHA256, f.sum.Sum(nil)), Size: f.size}
}
