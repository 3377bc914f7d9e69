package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/remote"
)

// What lies beside an image, or in an index repository, is there for some images, at
// some places. So a mirror that does not have it goes on being asked for the image,
// and nobody waits long for a server that does not answer.

// seekTries is how often in a row a server may fail to answer what is asked for
// beside an image. It has Options.MirrorTimeout for an answer.
const seekTries = 2

// The limits of a list of referrers.
const (
	maxReferrersPage  = 4 << 20 // bytes
	maxReferrersPages = 16
)

// seek is retry for what one can do without. places has the endpoints, which can be
// those of another tag.
func (r *Repository) seek(ctx context.Context, places *Repository, what string, resolve bool, f func(context.Context, *endpoint) error) error {
	w := &failover{repo: places, what: what, budget: newRetryBudget(r.client.opts, false), resolve: resolve, extra: true}
	w.budget.received = &r.received
	w.budget.tries = min(seekTries, w.budget.tries)
	w.budget.time, w.budget.hasty = r.client.opts.MirrorTimeout, true
	return w.run(ctx, f)
}

// tagged returns the repository with another tag, which is asked where a pull of that
// tag would ask.
func (r *Repository) tagged(tag string) (*Repository, error) {
	name := r.ref.Name() + ":" + tag
	ref, err := remote.ParseReference(name)
	if err != nil || ref.Tag != tag {
		return nil, fmt.Errorf("%w: %.200q is not a tag", remote.ErrReference, tag)
	}
	t := r.client.Repository(ref)
	find := t.findEndpoints
	t.endpoints = remembered(func(ctx context.Context) ([]*endpoint, error) {
		own, err := r.endpoints(ctx)
		if err != nil {
			return nil, err
		}
		all, err := find(ctx)
		for _, e := range all {
			if i := slices.IndexFunc(own, e.same); i >= 0 {
				e.tokens = own[i].tokens
			}
		}
		return all, err
	})
	return t, nil
}

// same tells whether both are one repository of one server, for which one login will
// do.
func (e *endpoint) same(other *endpoint) bool {
	return e.Host == other.Host && e.Path == other.Path && e.Scheme == other.Scheme && e.Ref.Name() == other.Ref.Name() && e.wire.key == other.wire.key
}

// ResolveTag implements remote.ArtifactSource. It gets the manifest, which Fetch then
// returns: most who ask for one of these tags want that.
func (r *Repository) ResolveTag(ctx context.Context, tag string) (ocispec.Descriptor, error) {
	what := r.ref.Name() + ":" + tag
	t, err := r.tagged(tag)
	if err != nil {
		return ocispec.Descriptor{}, wrap(r.ref.Name(), err)
	}
	var desc ocispec.Descriptor
	var content []byte
	resolutions := make(map[*endpoint]*resolution)
	err = r.seek(ctx, t, what, true, func(ctx context.Context, e *endpoint) (err error) {
		if resolutions[e] == nil {
			resolutions[e] = new(resolution)
		}
		desc, content, err = e.resolveByGet(ctx, resolutions[e])
		return err
	})
	if err != nil {
		return ocispec.Descriptor{}, wrap(what, err)
	}
	r.noteExtras(append(blobsOf(content), desc.Digest)...)
	r.keepFound(desc.Digest, content)
	return desc, nil
}

// Referrers implements remote.ArtifactSource. Each place is asked by the API for
// referrers and, if it has none, for the fallback tag; the first that knows of
// referrers decides.
func (r *Repository) Referrers(ctx context.Context, subject digest.Digest, artifactType string) ([]ocispec.Descriptor, error) {
	what := fmt.Sprintf("referrers of %s in %s", subject, r.Repository())
	if err := subject.Validate(); err != nil {
		return nil, wrap(what, fmt.Errorf("%w: %w", remote.ErrDigest, err))
	}
	t, err := r.tagged(remote.FallbackTag(subject))
	if err != nil {
		return nil, wrap(what, err)
	}
	var list *remote.ReferrerList
	err = r.seek(ctx, t, what, true, func(ctx context.Context, e *endpoint) error {
		list = &remote.ReferrerList{Subject: subject, Type: artifactType}
		err := e.referrers(ctx, list)
		if err == nil && len(list.Found()) == 0 {
			return &fault{class: remote.ErrNotFound, text: "there are none"}
		}
		return err
	})
	switch {
	case errors.Is(err, remote.ErrNotFound):
		return nil, nil
	case err != nil:
		return nil, wrap(what, err)
	}
	for _, desc := range list.Found() {
		r.noteExtras(desc.Digest)
	}
	return list.Found(), nil
}

// referrers adds what the endpoint lists.
func (e *endpoint) referrers(ctx context.Context, list *remote.ReferrerList) error {
	err := e.listReferrers(ctx, list)
	if err == nil || ctx.Err() != nil || len(list.Found()) > 0 {
		return err
	}
	refused := classify(err)
	if refused.status == 0 && refused.verdict != odd {
		return err // nobody was asked, or there was no answer
	}
	// Without the API there may be a tag.
	at, err := e.location(ctx, "manifests/"+remote.FallbackTag(list.Subject))
	if err != nil {
		return err
	}
	content, _, err := e.documentOf(ctx, at, ocispec.MediaTypeImageIndex, maxReferrersPage)
	if err != nil {
		if f := classify(err); f.verdict != odd && f.class != remote.ErrNotFound {
			return err
		}
	} else if list.AddIndex(content) == nil && len(list.Found()) > 0 {
		return nil
	}
	if refused.verdict == busy {
		return refused
	}
	return nil // what is there instead of a list says nothing of referrers
}

// listReferrers adds what the API lists. It is no success if there is no such API.
// OCI distribution-spec, "Listing Referrers".
func (e *endpoint) listReferrers(ctx context.Context, list *remote.ReferrerList) error {
	at, err := e.location(ctx, "referrers/"+list.Subject.String())
	if err != nil {
		return err
	}
	own := at.url.Query()
	query := url.Values{}
	if list.Type != "" {
		query.Set("artifactType", list.Type)
	}
	for range maxReferrersPages {
		for name, values := range own {
			query[name] = values
		}
		at.url.RawQuery = query.Encode()
		content, resp, err := e.documentOf(ctx, at, ocispec.MediaTypeImageIndex, maxReferrersPage)
		if err != nil {
			return err
		}
		if err := list.AddIndex(content); err != nil {
			return oddf("the answer is not a list of referrers: %v", err)
		}
		var more bool
		if query, more = nextPage(resp.Header); !more || list.Full() {
			return nil
		}
	}
	e.client.opts.Logf("%s lists the referrers of %s on more than %d pages", e.Host, list.Subject, maxReferrersPages)
	return nil
}

// linkNext is a Link to the next page. RFC 8288, 3.
var linkNext = regexp.MustCompile(`^\s*<([^<>]*)>\s*;\s*rel="?next"?\s*$`)

// nextPage returns the query that gets the next page of a list: no more of a Link
// counts, as the rest of a list is where its beginning is.
func nextPage(header http.Header) (url.Values, bool) {
	m := linkNext.FindStringSubmatch(header.Get("Link"))
	if m == nil {
		return nil, false
	}
	u, err := url.Parse(m[1])
	if err != nil || u.RawQuery == "" {
		return nil, false
	}
	return u.Query(), true
}

const (
	maxExtras     = 64 << 10 // digests that are known not to be the image's
	maxFoundBytes = 8 << 20  // of manifests that ResolveTag got
)

// extras are what was found beside an image. They are under Repository.mu.
type extras struct {
	digests map[digest.Digest]bool
	found   map[digest.Digest][]byte // manifests that nobody has fetched yet
	size    int                      // bytes of found
}

// noteExtras notes that digests are of what lies beside the image.
func (r *Repository) noteExtras(digests ...digest.Digest) {
	r.mu.Lock()
	defer r.mu.Unlock()
	x := &r.extras
	if x.digests == nil || len(x.digests)+len(digests) > maxExtras {
		x.digests = make(map[digest.Digest]bool)
	}
	for _, d := range digests[:min(len(digests), maxExtras)] {
		x.digests[d] = true
	}
}

// isExtra tells whether a digest is of what lies beside the image.
func (r *Repository) isExtra(d digest.Digest) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.extras.digests[d]
}

// keepFound keeps a manifest for Fetch.
func (r *Repository) keepFound(d digest.Digest, content []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	x := &r.extras
	if x.found == nil || x.size+len(content) > maxFoundBytes {
		x.found, x.size = make(map[digest.Digest][]byte), 0
	}
	if len(content) <= maxFoundBytes && x.found[d] == nil {
		x.found[d] = content
		x.size += len(content)
	}
}

// takeFound returns a manifest that was kept, once; nil if there is none.
func (r *Repository) takeFound(d digest.Digest) []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	x := &r.extras
	content := x.found[d]
	delete(x.found, d)
	x.size -= len(content)
	return content
}

// blobsOf returns the digests of a manifest's layers, none of what is no manifest.
func blobsOf(content []byte) []digest.Digest {
	var m struct {
		Layers []struct {
			Digest digest.Digest `json:"digest"`
		} `json:"layers"`
	}
	_ = json.Unmarshal(content, &m)
	var blobs []digest.Digest
	for _, l := range m.Layers {
		blobs = append(blobs, l.Digest)
	}
	return blobs
}
