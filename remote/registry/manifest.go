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

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/registry/remote/errcode"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/registry/internal/scrub"
)

// Media types that image-spec does not have. Schema 1 is asked for so that an
// image that exists only so can be refused by name.
const (
	dockerManifestList    = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerManifest        = "application/vnd.docker.distribution.manifest.v2+json"
	dockerSignedSchema1   = "application/vnd.docker.distribution.manifest.v1+prettyjws"
	dockerUnsignedSchema1 = "application/vnd.docker.distribution.manifest.v1+json"
)

const maxDocument = 16 << 20 // bytes of a manifest, image index or config

func manifestTypes() []string {
	return []string{
		ocispec.MediaTypeImageIndex, ocispec.MediaTypeImageManifest,
		dockerManifestList, dockerManifest, dockerSignedSchema1, dockerUnsignedSchema1,
	}
}

// head resolves the reference without getting the manifest. The fault is odd if
// a header that is needed is missing.
func (e *endpoint) head(ctx context.Context) (ocispec.Descriptor, error) {
	repo, err := e.oras(ctx)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	desc, err := repo.Resolve(ctx, e.reference())
	var (
		f        *fault
		response *errcode.ErrorResponse
	)
	switch {
	case err == nil && slices.Contains(manifestTypes(), desc.MediaType):
		return desc, nil
	case err == nil:
		return desc, oddf("it is said to be a %s", scrub.Text(desc.MediaType))
	case errors.As(err, &f), errors.As(err, &response):
		return desc, classify(err)
	case classify(err).verdict != busy:
		return desc, err
	}
	// oras-go's own errors are about headers that are missing or wrong.
	return desc, oddf("%s", scrub.Text(err.Error()))
}

// resolveByGet resolves the reference by getting the manifest: some
// registries do not serve HEAD, or without the headers it is asked for.
func (e *endpoint) resolveByGet(ctx context.Context) (ocispec.Descriptor, []byte, error) {
	content, header, err := e.document(ctx, "manifests/"+e.reference(), strings.Join(manifestTypes(), ", "), maxDocument)
	if err != nil {
		return ocispec.Descriptor{}, nil, err
	}
	mediaType, err := manifestType(header.Get("Content-Type"), content)
	if err != nil {
		return ocispec.Descriptor{}, nil, err
	}
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(content), Size: int64(len(content))}
	expected := e.Ref.Digest
	if expected == "" {
		expected = digest.Digest(header.Get("Docker-Content-Digest"))
	}
	// The digest of a signed schema 1 manifest is that of a part of it; it
	// gets no further than its media type.
	if expected.Validate() == nil && mediaType != dockerSignedSchema1 {
		desc.Digest = expected
		if err := checkContent(desc, content); err != nil {
			return ocispec.Descriptor{}, nil, err
		}
	}
	return desc, content, nil
}

// manifestType returns the media type of a manifest: the one that the registry
// states, or, if that is none of a manifest, the one that the content shows. An
// artifact of some other type keeps the type stated, for Open to refuse.
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
		return "", oddf("the answer, a %s, is not a manifest", scrub.Text(stated))
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
func (e *endpoint) document(ctx context.Context, path, accept string, size int64) ([]byte, http.Header, error) {
	at, err := e.location(ctx, path)
	if err != nil {
		return nil, nil, err
	}
	resp, _, err := e.ask(ctx, get(http.Header{"Accept": {accept}, "Accept-Encoding": {"identity"}}), at)
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
