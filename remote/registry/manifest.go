package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/registry/internal/scrub"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
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
	maxSaid     = 4 << 20  // bytes of a manifest, if only HEAD says so
)

func manifestTypes() []string {
	return []string{
		ocispec.MediaTypeImageIndex, ocispec.MediaTypeImageManifest,
		dockerManifestList, dockerManifest, dockerSignedSchema1, dockerUnsignedSchema1,
	}
}

// A resolution is what one resolving has found out about an endpoint. It belongs
// to one goroutine.
type resolution struct {
	refused bool          // HEAD was, in whatever way
	other   digest.Digest // of what came under another digest
}

// resolve finds out what the reference names: by HEAD, or, where that is of no
// use, by getting the manifest, which it then returns as well.
func (e *endpoint) resolve(ctx context.Context, r *resolution, doubt bool) (ocispec.Descriptor, []byte, error) {
	if !r.refused && !doubt && !e.client.manners.headless(e.Host) {
		desc, err := e.head(ctx)
		if err == nil || ctx.Err() != nil || !classify(err).ofHead() {
			return desc, nil, err
		}
		// What is refused to HEAD may be served, and a refusal without a body
		// does not say why.
		r.refused = true
		attempt := attemptOf(ctx)
		attempt.spent = attempt.fresh
	}
	desc, content, err := e.resolveByGet(ctx, r)
	if err == nil && r.refused {
		e.client.manners.noteHeadless(e.Host)
	}
	return desc, content, err
}

// ofHead tells whether GET may get another answer than HEAD, of which this is
// the fault: not if nobody was asked, and not if a credential was refused.
func (f *fault) ofHead() bool { return f.head || f.broke || f.unmet }

// head resolves the reference without getting the manifest.
func (e *endpoint) head(ctx context.Context) (ocispec.Descriptor, error) {
	var none ocispec.Descriptor
	at, err := e.location(ctx, "manifests/"+e.reference())
	if err != nil {
		return none, err
	}
	attempt := attemptOf(ctx)
	attempt.probe = true
	defer func() { attempt.probe = false }()
	header := http.Header{"Accept": {strings.Join(manifestTypes(), ", ")}, "Accept-Encoding": {"identity"}}
	resp, at, err := e.ask(ctx, &request{method: http.MethodHead, header: header, actions: []string{actionPull}}, at)
	if err != nil {
		// It may be led to nowhere, or to where nothing is.
		if f := classify(err); f.led || f.verdict == odd || f.verdict != final && at != nil && !at.home {
			return none, f.ofHeadAlone()
		}
		return none, err
	}
	drain(resp.Body)
	if resp.StatusCode != http.StatusOK {
		return none, e.refusal(resp, at).ofHeadAlone()
	}
	mediaType, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	d := digest.Digest(resp.Header.Get("Docker-Content-Digest"))
	if e.Ref.Digest != "" {
		d = e.Ref.Digest
	}
	switch {
	case !slices.Contains(manifestTypes(), mediaType):
		return none, oddf("it is said to be a %s", scrub.Text(mediaType)).ofHeadAlone()
	case resp.ContentLength <= 0 || resp.ContentLength > maxSaid:
		return none, oddf("it is said to have %d bytes", resp.ContentLength).ofHeadAlone()
	case d.Validate() != nil:
		return none, oddf("its digest is said to be %s", scrub.Text(d.String())).ofHeadAlone()
	}
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: resp.ContentLength}, nil
}

// ofHeadAlone marks a fault as one that GET may not have.
func (f *fault) ofHeadAlone() *fault {
	marked := *f
	marked.head = true
	return &marked
}

// resolveByGet resolves the reference by getting the manifest: some
// registries do not serve HEAD, or without the headers it is asked for. What
// comes counts, and not what is said of it.
func (e *endpoint) resolveByGet(ctx context.Context, r *resolution) (ocispec.Descriptor, []byte, error) {
	content, resp, err := e.document(ctx, "manifests/"+e.reference(), strings.Join(manifestTypes(), ", "))
	if err != nil {
		return ocispec.Descriptor{}, nil, err
	}
	mediaType, err := manifestType(resp, content)
	if err != nil {
		return ocispec.Descriptor{}, nil, err
	}
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(content), Size: int64(len(content))}
	stated := e.Ref.Digest
	if stated == "" {
		stated = digest.Digest(resp.Header.Get("Docker-Content-Digest"))
	}
	// The digest of a signed schema 1 manifest is that of a part of it.
	signed := mediaType == dockerSignedSchema1 && (e.Ref.Digest == "" || checkContent(stated, signedPayload(content), resp) == nil)
	if stated.Validate() != nil || signed {
		return desc, content, nil
	}
	wrong := checkContent(stated, content, resp)
	switch {
	case wrong == nil:
		if e.Ref.Digest != "" {
			desc.Digest = stated // of its algorithm
		}
	case e.Ref.Digest != "" || desc.Digest != r.other:
		// It may have been damaged on its way.
		r.other = desc.Digest
		return ocispec.Descriptor{}, nil, wrong
	default:
		e.client.opts.Warnf("%s:%s: the registry says that its digest is %s, and what comes, again and again, has %s: going by that",
			e.original, e.Ref.Tag, stated, desc.Digest)
	}
	return desc, content, nil
}

// manifestType returns the media type of a manifest: the one that the registry
// states, or, if that is none of a manifest, the one that the content shows. An
// artifact of some other type keeps the type stated, for Open to refuse.
func manifestType(resp *http.Response, content []byte) (string, error) {
	stated, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	var m struct {
		MediaType string
		Manifests []json.RawMessage
		Config    json.RawMessage
	}
	switch err := json.Unmarshal(content, &m); {
	case !json.Valid(content):
		text := "the answer is not a manifest"
		if isPage(content) {
			text = "the answer is a web page" + pageTitle(resp, content)
		} else if stated != "" {
			text = "the answer, a " + scrub.Text(stated) + ", is not a manifest"
		}
		return "", oddf("%s%s", text, encoded(resp.Header))
	case slices.Contains(manifestTypes(), stated):
		return stated, nil
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

// document gets one of the repository's documents, whatever its size is said to
// be, as long as that can be true. The answer's body is closed.
func (e *endpoint) document(ctx context.Context, path, accept string) ([]byte, *http.Response, error) {
	at, err := e.location(ctx, path)
	if err != nil {
		return nil, nil, err
	}
	return e.documentOf(ctx, at, accept, maxDocument)
}

// documentOf is document for a location, and up to most bytes.
func (e *endpoint) documentOf(ctx context.Context, at *location, accept string, most int64) ([]byte, *http.Response, error) {
	resp, at, err := e.ask(ctx, get(http.Header{"Accept": {accept}, "Accept-Encoding": {"identity"}}), at)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, nil, e.refusal(resp, at).ofStorage(at)
	}
	content, err := io.ReadAll(io.LimitReader(resp.Body, most+1))
	if err != nil {
		return nil, nil, e.blame(err, at, "")
	}
	if int64(len(content)) > most {
		return nil, nil, (&fault{verdict: odd, class: remote.ErrDigest, text: fmt.Sprintf("more than %d bytes come", most)}).by(e.speaker(at))
	}
	return content, resp, nil
}

// checkContent checks that what came with an answer has a digest.
func checkContent(d digest.Digest, content []byte, resp *http.Response) error {
	if got := d.Algorithm().FromBytes(content); got != d {
		text := fmt.Sprintf("what comes has digest %s", got)
		if isPage(content) {
			text += "; it is a web page" + pageTitle(resp, content)
		}
		return &fault{verdict: odd, class: remote.ErrDigest, text: text + encoded(resp.Header)}
	}
	return nil
}

// encoded says of bytes that are not what they should be that they are said to
// be encoded. Identity is asked for, but servers keep the label for bytes that
// are as they should be: so it counts only where these are not.
func encoded(header http.Header) string {
	if e := encoding(header); e != "" {
		return "; it is said to be encoded (Content-Encoding: " + scrub.Text(e) + "), which was not asked for"
	}
	return ""
}

// encoding returns the Content-Encoding of an answer, "" if that is none.
func encoding(header http.Header) string {
	e := strings.TrimSpace(strings.Join(header.Values("Content-Encoding"), ", "))
	if strings.EqualFold(e, "identity") {
		return ""
	}
	return e
}
