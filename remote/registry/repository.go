package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/registry"
	orasremote "oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/errcode"

	"github.com/imgfs/imgfs/remote"
)

// Media types that image-spec does not have. Schema 1 is asked for so that an
// image that exists only so can be refused by name.
const (
	dockerManifestList    = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerManifest        = "application/vnd.docker.distribution.manifest.v2+json"
	dockerSignedSchema1   = "application/vnd.docker.distribution.manifest.v1+prettyjws"
	dockerUnsignedSchema1 = "application/vnd.docker.distribution.manifest.v1+json"
)

const (
	maxDocument = 16 << 20 // bytes of a manifest, image index or config
	maxTagPages = 1000
)

func manifestTypes() []string {
	return []string{
		ocispec.MediaTypeImageIndex, ocispec.MediaTypeImageManifest,
		dockerManifestList, dockerManifest, dockerSignedSchema1, dockerUnsignedSchema1,
	}
}

// A Repository is an image in a registry: a repository with the tag or digest
// asked for. It is safe for concurrent use.
type Repository struct {
	client *Client
	ref    remote.Reference
	host   string // that serves the API
	auth   *auth.Client
	tokens *tokenCache

	mu    sync.Mutex
	blobs map[digest.Digest]*blob
	kept  []byte // the manifest that Resolve had to get to know its digest
}

var _ remote.Source = (*Repository)(nil)

// Name returns the reference in its canonical form.
func (r *Repository) Name() string { return r.ref.String() }

// Repository returns the registry and repository, "docker.io/library/fedora".
func (r *Repository) Repository() string { return r.ref.Name() }

// Resolve asks the registry what the tag or digest is.
func (r *Repository) Resolve(ctx context.Context) (ocispec.Descriptor, error) {
	var desc ocispec.Descriptor
	err := r.retry(ctx, r.Name(), func(ctx context.Context) (err error) {
		desc, err = r.head(ctx)
		var f *fault
		if errors.As(err, &f) && f.verdict == odd {
			desc, err = r.resolveByGet(ctx)
		}
		return err
	})
	if err != nil {
		return ocispec.Descriptor{}, wrap(r.Name(), err)
	}
	return desc, nil
}

// Fetch returns the content of a manifest, image index or config, checked
// against desc.
func (r *Repository) Fetch(ctx context.Context, desc ocispec.Descriptor) ([]byte, error) {
	what := fmt.Sprintf("%s of %s", desc.Digest, r.Repository())
	if err := checkDescriptor(desc); err != nil {
		return nil, wrap(what, err)
	}
	if desc.Size > maxDocument {
		return nil, fmt.Errorf("%s: %w: %d bytes, and %d are the most for a document", what, remote.ErrUnsupported, desc.Size, maxDocument)
	}
	r.mu.Lock()
	kept := r.kept
	r.mu.Unlock()
	if int64(len(kept)) == desc.Size && desc.Digest.Algorithm().FromBytes(kept) == desc.Digest {
		return slices.Clone(kept), nil
	}
	path, accept := "blobs/", "*/*"
	if slices.Contains(manifestTypes(), desc.MediaType) {
		path, accept = "manifests/", desc.MediaType
	}
	var content []byte
	err := r.retry(ctx, what, func(ctx context.Context) (err error) {
		content, _, err = r.document(ctx, path+desc.Digest.String(), accept, desc.Size)
		if err == nil {
			err = checkContent(desc, content)
		}
		return err
	})
	if err != nil {
		return nil, wrap(what, err)
	}
	return content, nil
}

// Tags returns all tags of the repository, in the registry's order.
func (r *Repository) Tags(ctx context.Context) ([]string, error) {
	var tags []string
	err := r.retry(ctx, r.Repository(), func(ctx context.Context) error {
		tags = nil
		repo, err := r.oras(ctx)
		if err != nil {
			return err
		}
		return repo.Tags(ctx, "", func(page []string) error {
			tags = append(tags, page...)
			return nil
		})
	})
	if err != nil {
		return nil, wrap("tags of "+r.Repository(), err)
	}
	return tags, nil
}

// Blob returns a reader of the blob that desc describes. All readers of a
// digest share what is known of where it is.
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

// retry tries a request for metadata. Its patience with a registry that is
// not there is short: who mounts an image waits for it.
func (r *Repository) retry(ctx context.Context, what string, f func(context.Context) error) error {
	return newPatience(r.client.opts, false).retry(ctx, what, f)
}

func (r *Repository) reference() string {
	if r.ref.Digest != "" {
		return r.ref.Digest.String()
	}
	return r.ref.Tag
}

// head resolves the reference without getting the manifest. The fault is odd
// if the answer lacks what is needed.
func (r *Repository) head(ctx context.Context) (ocispec.Descriptor, error) {
	repo, err := r.oras(ctx)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	desc, err := repo.Resolve(ctx, r.reference())
	var (
		f        *fault
		response *errcode.ErrorResponse
	)
	switch {
	case err == nil && slices.Contains(manifestTypes(), desc.MediaType):
		return desc, nil
	case err == nil:
		return desc, oddf("it is said to be a %s", scrub(desc.MediaType))
	case errors.As(err, &f), errors.As(err, &response):
		return desc, classify(err)
	case classify(err).verdict != busy:
		return desc, err
	}
	// What oras-go itself says is that a header is missing or wrong.
	return desc, oddf("%s", scrub(err.Error()))
}

// resolveByGet resolves the reference by getting the manifest: some
// registries do not serve HEAD, or without the headers it is asked for.
func (r *Repository) resolveByGet(ctx context.Context) (ocispec.Descriptor, error) {
	content, header, err := r.document(ctx, "manifests/"+r.reference(), strings.Join(manifestTypes(), ", "), maxDocument)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	mediaType, err := manifestType(header.Get("Content-Type"), content)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(content), Size: int64(len(content))}
	expected := r.ref.Digest
	if expected == "" {
		expected = digest.Digest(header.Get("Docker-Content-Digest"))
	}
	// The digest of a signed schema 1 manifest is that of a part of it; it
	// gets no further than its media type.
	if expected.Validate() == nil && mediaType != dockerSignedSchema1 {
		desc.Digest = expected
		if err := checkContent(desc, content); err != nil {
			return ocispec.Descriptor{}, err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.kept = content
	return desc, nil
}

// manifestType tells from the content of a manifest what it is, if what the
// registry states does not. An artifact of some other type keeps the type
// stated, for Open to refuse.
func manifestType(stated string, content []byte) (string, error) {
	stated, _, _ = mime.ParseMediaType(stated)
	if slices.Contains(manifestTypes(), stated) {
		return stated, nil
	}
	var m struct {
		MediaType string
		Manifests []json.RawMessage
		Config    json.RawMessage
	}
	switch err := json.Unmarshal(content, &m); {
	case err != nil:
		return "", oddf("the answer, a %s, is not a manifest", scrub(stated))
	case slices.Contains(manifestTypes(), m.MediaType):
		return m.MediaType, nil
	case m.Manifests != nil:
		return ocispec.MediaTypeImageIndex, nil
	case m.Config != nil:
		return ocispec.MediaTypeImageManifest, nil
	}
	return stated, nil
}

// document gets one of the repository's documents of at most size bytes.
func (r *Repository) document(ctx context.Context, path, accept string, size int64) ([]byte, http.Header, error) {
	at, err := r.location(ctx, path)
	if err != nil {
		return nil, nil, err
	}
	resp, _, err := r.ask(ctx, http.MethodGet, at, http.Header{"Accept": {accept}, "Accept-Encoding": {"identity"}})
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, nil, responseFault(resp)
	}
	content, err := io.ReadAll(io.LimitReader(resp.Body, size+1))
	if err != nil {
		return nil, nil, err
	}
	if int64(len(content)) > size {
		return nil, nil, &fault{verdict: odd, class: remote.ErrDigest, text: fmt.Sprintf("more than %d bytes come", size)}
	}
	return content, resp.Header, nil
}

// oras returns oras-go's view of the repository, for what it does well.
func (r *Repository) oras(ctx context.Context) (*orasremote.Repository, error) {
	at, err := r.location(ctx, "")
	if err != nil {
		return nil, err
	}
	return &orasremote.Repository{
		Client:             orasClient{r},
		Reference:          registry.Reference{Registry: r.ref.Registry, Repository: r.ref.Repository},
		PlainHTTP:          at.url.Scheme == "http",
		ManifestMediaTypes: manifestTypes(),
		TagListMaxPages:    maxTagPages,
	}, nil
}

// An orasClient sends oras-go's requests the way of all others.
type orasClient struct{ r *Repository }

// Do is like http.Client's; its error is a *fault.
func (c orasClient) Do(req *http.Request) (*http.Response, error) {
	resp, _, err := c.r.ask(req.Context(), req.Method, &location{url: req.URL, home: true}, req.Header)
	if err != nil {
		return nil, classify(err)
	}
	return resp, nil
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

func checkContent(desc ocispec.Descriptor, content []byte) error {
	f := &fault{verdict: odd, class: remote.ErrDigest}
	if int64(len(content)) != desc.Size {
		f.text = fmt.Sprintf("%d bytes come instead of %d", len(content), desc.Size)
		return f
	}
	if got := desc.Digest.Algorithm().FromBytes(content); got != desc.Digest {
		f.text = fmt.Sprintf("what comes has digest %s", got)
		return f
	}
	return nil
}

// wrap names what failed. That a context ended is nothing's fault.
func wrap(what string, err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return fmt.Errorf("%s: %w", what, err)
}
