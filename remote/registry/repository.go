package registry

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/remote"
)

// A Repository is an image in a registry: a repository with the tag or digest
// asked for. It is safe for concurrent use.
type Repository struct {
	client    *Client
	ref       remote.Reference
	endpoints func(context.Context) ([]*endpoint, error)

	received atomic.Int64 // see TakeReceived

	mu    sync.Mutex
	blobs map[digest.Digest]*blob
	kept  []byte // the manifest that Resolve had to get to know its digest
	// said is what HEAD said last that the tag names, and doubted that there was
	// something else in its place.
	said    digest.Digest
	doubted bool
	extras  extras
}

var (
	_ remote.ArtifactSource = (*Repository)(nil)
	_ remote.Counted        = (*Repository)(nil)
)

// Name returns the reference in its canonical form.
func (r *Repository) Name() string { return r.ref.String() }

// TakeReceived implements remote.Counted: it counts manifests, configs and lists of
// tags. Blobs count for themselves.
func (r *Repository) TakeReceived() (int64, bool) { return r.received.Swap(0), true }

// Repository returns the registry and repository, "docker.io/library/fedora".
func (r *Repository) Repository() string { return r.ref.Name() }

// Resolve asks the registry, or a mirror that configuration lets resolve tags,
// for the descriptor of the tag or digest. Its size is what the registry says,
// which Fetch does not go by. If Fetch finds that what was said is not so, the
// next Resolve gets the manifest itself.
func (r *Repository) Resolve(ctx context.Context) (ocispec.Descriptor, error) {
	r.mu.Lock()
	doubt := r.doubted
	r.mu.Unlock()
	var desc ocispec.Descriptor
	resolutions := make(map[*endpoint]*resolution)
	err := r.retry(ctx, r.Name(), r.ref.Digest == "", func(ctx context.Context, e *endpoint) (err error) {
		if resolutions[e] == nil {
			resolutions[e] = new(resolution)
		}
		var kept []byte
		desc, kept, err = e.resolve(ctx, resolutions[e], doubt)
		if err == nil {
			r.keep(desc, kept)
		}
		return err
	})
	if err != nil {
		return ocispec.Descriptor{}, wrap(r.Name(), err)
	}
	return desc, nil
}

// Fetch returns the content of a manifest, image index or config. It has desc's
// digest, and may have another size than desc says.
func (r *Repository) Fetch(ctx context.Context, desc ocispec.Descriptor) ([]byte, error) {
	what := fmt.Sprintf("%s of %s", desc.Digest, r.Repository())
	if err := checkDescriptor(desc); err != nil {
		return nil, wrap(what, err)
	}
	if desc.Size > maxDocument {
		return nil, fmt.Errorf("%s: %w: %d bytes, and %d are the most for a document", what, remote.ErrUnsupported, desc.Size, maxDocument)
	}
	if found := r.takeFound(desc.Digest); found != nil {
		return found, nil
	}
	r.mu.Lock()
	kept, said := r.kept, r.said == desc.Digest
	r.mu.Unlock()
	if kept != nil && desc.Digest.Algorithm().FromBytes(kept) == desc.Digest {
		return slices.Clone(kept), nil
	}
	path, accept := "blobs/", "*/*"
	if slices.Contains(manifestTypes(), desc.MediaType) {
		// Some registries have nothing that has another type than those that are
		// asked for, whatever its descriptor says.
		path, accept = "manifests/", strings.Join(manifestTypes(), ", ")
	}
	var content []byte
	get := func(ctx context.Context, e *endpoint) error {
		got, resp, err := e.document(ctx, path+desc.Digest.String(), accept)
		if err == nil {
			err = checkContent(desc.Digest, got, resp)
		}
		content = got
		return err
	}
	var err error
	if r.isExtra(desc.Digest) {
		if err = r.seek(ctx, r, what, false, get); err == nil {
			r.noteExtras(blobsOf(content)...)
		}
	} else {
		err = r.retry(ctx, what, false, get)
	}
	if err != nil {
		if said && (errors.Is(err, remote.ErrNotFound) || errors.Is(err, remote.ErrDigest)) {
			r.doubt()
		}
		return nil, wrap(what, err)
	}
	return content, nil
}

// Blob returns a reader of the blob that desc describes. It asks no one for
// anything. All readers of a digest share the knowledge of where it is.
func (r *Repository) Blob(desc ocispec.Descriptor) (remote.Blob, error) {
	if err := checkDescriptor(desc); err != nil {
		return nil, wrap(fmt.Sprintf("blob %s of %s", desc.Digest, r.Repository()), err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	b := r.blobs[desc.Digest]
	if b == nil || b.size != desc.Size {
		b = newBlob(r, desc)
		r.blobs[desc.Digest] = b
	}
	return b, nil
}

// retry tries a request for metadata. It soon gives up a registry that is not
// there: mounting an image waits for it.
func (r *Repository) retry(ctx context.Context, what string, resolve bool, f func(context.Context, *endpoint) error) error {
	w := &failover{repo: r, what: what, budget: newRetryBudget(r.client.opts, false), resolve: resolve}
	w.budget.received = &r.received
	return w.run(ctx, f)
}

// keep keeps the manifest that resolving brought, or what was said of it.
func (r *Repository) keep(desc ocispec.Descriptor, content []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if content == nil {
		r.said = desc.Digest
		return
	}
	r.kept, r.said, r.doubted = content, "", false
}

// doubt has the next Resolve get the manifest: what HEAD said that the tag
// names is not there.
func (r *Repository) doubt() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.doubted = true
}

func checkDescriptor(desc ocispec.Descriptor) error {
	if err := desc.Digest.Validate(); err != nil {
		return fmt.Errorf("%w: %v", remote.ErrDigest, err)
	}
	if desc.Size < 0 {
		return fmt.Errorf("%w: size %d", remote.ErrDigest, desc.Size)
	}
	return nil
}

// wrap adds the name of a thing to its error, unless a context ended.
func wrap(what string, err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return fmt.Errorf("%s: %w", what, err)
}
