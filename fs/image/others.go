package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/layerindex/estargz"
	"github.com/imgfs/imgfs/layerindex/soci"
	"github.com/imgfs/imgfs/layerindex/zstdchunked"
	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache/indexes"
)

// others finds the indexes that somebody else made of the layers of an image. It is
// safe for concurrent use.
type others struct {
	*opener
	img *Resolved

	bound   once[*soci.Manifest]   // the SOCI index that the image's manifest names
	unbound once[unboundSOCI]      // one that only says that it is of this image
	tocs    once[*remote.Artifact] // the image with the tables of contents of this one
	// published has what is published in the index repositories, and beside what is
	// published in the image's own.
	published once[[]*publication]
	beside    once[*publication]
}

// A once is a value that the first one to ask finds, for all.
type once[T any] struct {
	do  sync.Once
	val T
	err error
}

func (o *once[T]) get(find func() (T, error)) (T, error) {
	o.do.Do(func() { o.val, o.err = find() })
	return o.val, o.err
}

// of yields the candidates for a layer, those first that are to be preferred. To know
// them may take requests; nothing of a layer is read.
func (o *others) of(ctx context.Context, l remote.Layer) iter.Seq[*candidate] {
	toc := func() *candidate { return o.boundTOC(l) }
	ztoc := func() *candidate { return o.boundSOCI(ctx, l) }
	referring := func() *candidate { return o.referringSOCI(ctx, l) }
	atEnd := func() *candidate { return o.unboundTOC(l) }
	trust := o.opts.IndexTrust
	return func(yield func(*candidate) bool) {
		each := func(find ...func() *candidate) bool {
			for i, f := range find {
				stop := headStart(ctx, find[i+1:])
				c := f()
				if stop(); c != nil && !yield(c) {
					return false
				}
			}
			return true
		}
		if trust == TrustLocal {
			return
		}
		if trust != TrustRepositories && (!each(toc, ztoc) || trust == TrustBound) {
			return
		}
		var unbound []func() *candidate
		for _, p := range o.repositories() {
			unbound = append(unbound, func() *candidate { return o.publishedIndex(ctx, p, l) })
		}
		if trust == TrustPublished {
			unbound = append(unbound, func() *candidate { return o.publishedIndex(ctx, o.own(), l) }, referring, atEnd)
		}
		each(unbound...)
	}
}

// headStartTime is how long a place is asked for indexes before the next one is, too.
const headStartTime = time.Second

// headStart has each of find look for a candidate, one after the other, while another
// place is silent: several such take little longer than one. What they find they keep.
func headStart(ctx context.Context, find []func() *candidate) (stop context.CancelFunc) {
	ctx, stop = context.WithCancel(ctx)
	go func() {
		for _, f := range find {
			select {
			case <-time.After(headStartTime):
				go f()
			case <-ctx.Done():
				return
			}
		}
	}()
	return stop
}

// repositories returns what the index repositories have.
func (o *others) repositories() []*publication {
	list, _ := o.published.get(func() (list []*publication, _ error) {
		for _, name := range o.img.indexRepos {
			list = append(list, o.img.newPublication(name, o.unread()))
		}
		return list, nil
	})
	return list
}

// own returns what is published beside the image.
func (o *others) own() *publication {
	p, _ := o.beside.get(func() (*publication, error) { return o.img.newPublication("", o.unread()), nil })
	return p
}

// unread returns the layers of which there is no index that was made here.
func (o *others) unread() []digest.Digest {
	var list []digest.Digest
	for _, l := range o.img.Layers {
		x, err := o.store.Open(l.Digest())
		if err == nil {
			x.Close()
		} else if !slices.Contains(list, l.Digest()) {
			list = append(list, l.Digest())
		}
	}
	return list
}

// publishedIndex returns the index of a layer that was published, nil if there is none.
func (o *others) publishedIndex(ctx context.Context, p *publication, l remote.Layer) *candidate {
	x := p.of(ctx, l.Digest())
	if x == nil {
		return nil
	}
	return &candidate{
		by: VouchedByRegistry, what: "the index in " + x.Repository, from: x.Repository + "@" + x.IndexBlob.Digest().String(), key: indexes.FarKey(x.Header),
		published: x,
		far:       func(ctx context.Context) (*layerindex.Index, error) { return o.far(ctx, l, p, x) },
	}
}

// boundTOC returns the table of contents that the manifest has the digest of. If it has
// two there is none: nobody could say which of them is right.
func (o *others) boundTOC(l remote.Layer) *candidate {
	c := &candidate{by: VouchedByManifest}
	toc := digest.Digest(l.Annotations[estargz.TOCDigestAnnotation])
	chunked, err := zstdchunked.Annotated(l.Annotations)
	switch {
	case err == nil:
		c.what, c.key = "its zstd:chunked table of contents", keyOf(chunked.ManifestChecksum)
		c.make = func(ctx context.Context) (*layerindex.Index, error) {
			return o.direct(l, func(blob layerBlob, b *layerindex.Budget) (*layerindex.Index, error) {
				return zstdchunked.Index(ctx, claimOf(l), blob, &zstdchunked.Options{
					Annotations: chunked, TOCDigest: toc, Budget: b, MaxSize: o.opts.MaxLayer,
				})
			})
		}
	case !errors.Is(err, zstdchunked.ErrNone):
		c.what = "its zstd:chunked table of contents"
		c.make = func(context.Context) (*layerindex.Index, error) { return nil, err }
	case toc != "":
		c.what, c.key = "its eStargz table of contents", keyOf(toc.String())
		c.make = func(ctx context.Context) (*layerindex.Index, error) { return o.estargz(ctx, l, toc) }
	default:
		return nil
	}
	return c
}

// unboundTOC returns the table of contents that the end of the blob may have.
func (o *others) unboundTOC(l remote.Layer) *candidate {
	if hidesTOC(l) { // the manifest binds one
		return nil // it is known by now that it is of no use
	}
	return &candidate{
		by: VouchedByRegistry, what: "a table of contents in the layer", key: keyOf("stargz " + l.Digest().String()),
		make: func(ctx context.Context) (*layerindex.Index, error) { return o.estargz(ctx, l, "") },
	}
}

func (o *others) estargz(ctx context.Context, l remote.Layer, toc digest.Digest) (*layerindex.Index, error) {
	return o.direct(l, func(blob layerBlob, b *layerindex.Budget) (*layerindex.Index, error) {
		return estargz.Index(ctx, claimOf(l), blob, &estargz.Options{
			TOCDigest: toc, Budget: b, MaxSize: o.opts.MaxLayer,
			External: func(ctx context.Context) ([]byte, error) { return o.externalTOC(ctx, l) },
		})
	})
}

// A layerBlob is what the formats of others are read from.
type layerBlob interface {
	ReadAt(ctx context.Context, p []byte, off int64) (int, error)
	Size() int64
}

// direct makes an index of what it reads of a layer past the cache: if that is wrong, once
// more of another place. What names and attributes take is counted when the index is
// admitted.
func (o *others) direct(l remote.Layer, read func(blob layerBlob, b *layerindex.Budget) (*layerindex.Index, error)) (*layerindex.Index, error) {
	try := func(blob remote.Blob) (*layerindex.Index, error) {
		budget := o.metadata().Part()
		defer budget.Undo()
		return read(o.cache.Blobs.Direct(blob, o.received(l.Digest())), budget)
	}
	blob := l.Blob
	if w, ok := blob.(remote.WholeBlob); ok {
		blob = rangesOnly{w}
	}
	x, err := try(blob)
	if e, ok := l.Blob.(remote.ElsewhereBlob); ok && errors.Is(err, layerindex.ErrIndex) {
		if y, again := try(elsewhere{e}); again == nil {
			o.warnf("layer %s: %v; the second time it was right", l.Digest(), err)
			return y, nil
		}
	}
	return x, err
}

// rangesOnly is a layer of which no more is read than is asked for: from a server that
// sends all of it, it is better read once by a pass.
type rangesOnly struct{ remote.WholeBlob }

// ReadAt implements remote.Blob. The error may wrap remote.ErrWhole.
func (b rangesOnly) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	return b.ReadAtProgress(ctx, p, off, nil)
}

// ReadAtProgress implements remote.ProgressBlob as ReadAt does remote.Blob.
func (b rangesOnly) ReadAtProgress(ctx context.Context, p []byte, off int64, arrived func(n int)) (int, error) {
	n, err := b.ReadRange(ctx, p, off, arrived)
	if n == len(p) && !errors.Is(err, remote.ErrWhole) {
		err = nil
	}
	return n, err
}

// TakeReceived implements remote.Counted if the blob does.
func (b rangesOnly) TakeReceived() (int64, bool) {
	if c, ok := b.WholeBlob.(remote.Counted); ok {
		return c.TakeReceived()
	}
	return 0, false
}

// keyOf returns the key under which the store keeps the index that id names.
func keyOf(id string) string {
	d := digest.Digest(id)
	if d.Validate() != nil || d.Algorithm() != digest.SHA256 {
		d = digest.FromString(id)
	}
	return indexes.Key(d)
}

// What lies beside an image is waited for no longer than this: for manifests at all, and
// for a file while nothing comes of it. A mount can do without.
const lookTime, silence = 6 * time.Second, 6 * time.Second

// errSilent: nothing came for too long.
var errSilent = fmt.Errorf("%w: nothing came for %v", remote.ErrUnavailable, silence)

// patient returns a context to ask for manifests with.
func patient(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, lookTime, errSilent)
}

// artifacts returns the image's source, if that knows what lies beside the image.
func (o *others) artifacts() (remote.ArtifactSource, bool) {
	src, ok := o.img.Source.(remote.ArtifactSource)
	return src, ok
}

// externalTOC returns the blob of a table of contents that is in an image beside this
// one (stargz-snapshotter, docs/estargz.md, "External TOC").
func (o *others) externalTOC(ctx context.Context, l remote.Layer) ([]byte, error) {
	src, ok := o.artifacts()
	if !ok {
		return nil, fmt.Errorf("%w: nothing beside the image can be asked for", estargz.ErrNone)
	}
	a, err := o.tocs.get(func() (*remote.Artifact, error) { return besideTOC(ctx, src) })
	if err != nil {
		return nil, err
	}
	for _, d := range a.Layers {
		if d.Annotations["containerd.io/snapshot/stargz/layer.digest"] == l.Digest().String() {
			return o.file(ctx, src, d, l)
		}
	}
	return nil, fmt.Errorf("%w: the one beside the image is of other layers", estargz.ErrNone)
}

// besideTOC returns the image with the tables of contents of the image that src is of.
func besideTOC(ctx context.Context, src remote.ArtifactSource) (*remote.Artifact, error) {
	ctx, cancel := patient(ctx)
	defer cancel()
	ref, err := remote.ParseReference(src.Name())
	tag := ref.Tag
	if err != nil || tag == "" {
		tag = "latest" // as the one tool has it that makes them
	}
	desc, err := src.ResolveTag(ctx, tag+"-esgztoc")
	if err != nil {
		return nil, err
	}
	return remote.OpenArtifact(ctx, src, desc)
}

// maxFile is how many bytes a file of an index of others may have.
const maxFile = soci.MaxZtoc

// file reads a blob that is not a layer whole, and compares its digest. What comes is
// counted for a layer.
func (o *others) file(ctx context.Context, src remote.Source, desc ocispec.Descriptor, l remote.Layer) ([]byte, error) {
	if desc.Size > maxFile {
		return nil, fmt.Errorf("%w: %s has %d bytes, more than %d", layerindex.ErrIndex, desc.Digest, desc.Size, maxFile)
	}
	held := o.metadata().Part()
	defer held.Undo()
	if err := held.Take(desc.Size); err != nil {
		return nil, err
	}
	b, err := src.Blob(desc)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	timer := time.AfterFunc(silence, func() { cancel(errSilent) })
	defer timer.Stop()
	s := remote.NewStream(ctx, o.cache.Blobs.Direct(b, o.received(l.Digest())), &remote.StreamOptions{
		Arrived: func(int) { timer.Reset(silence) },
	})
	defer s.Close()
	data, err := io.ReadAll(io.LimitReader(s, desc.Size))
	if cause := context.Cause(ctx); err != nil && errors.Is(cause, errSilent) {
		err = fmt.Errorf("%s: %w", desc.Digest, cause)
	}
	if err != nil {
		return nil, err
	}
	if desc.Digest.Algorithm().FromBytes(data) != desc.Digest {
		return nil, fmt.Errorf("%s: %w", desc.Digest, remote.ErrDigest)
	}
	return data, nil
}
