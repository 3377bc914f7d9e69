package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/remote"
)

// PutOptions are the settings of PutBlob. Nil and zero values mean the defaults.
type PutOptions struct {
	// Chunk is how many bytes a request carries at most: after a fault the others
	// are not sent again. Default: all in one request, which all registries take.
	Chunk int64
	// Progress is called with how many bytes were sent, which may be 0 for a blob
	// that is there already; it is the blob's size at last. The number grows from
	// call to call, and calls come one at a time. It must return soon. Default: nobody
	// is told.
	Progress func(n int64)
}

// PutBlob puts a blob into the repository, at its own registry and never at a mirror,
// unless it is there. It reads content as often as it must, and only when the
// registry does not have the blob. What fails is tried again as reading is;
// publishers of one blob do each other no harm. What remains after an error is that
// the registry may have the blob.
//
// The errors are remote.ErrUnauthorized (with what to type), ErrUnavailable,
// ErrNotFound, or hosts.ErrConfiguration if nothing is to be written there, wrapped,
// and those of content.
func (r *Repository) PutBlob(ctx context.Context, desc ocispec.Descriptor, content io.ReaderAt, opts *PutOptions) error {
	if opts == nil {
		opts = new(PutOptions)
	}
	what := fmt.Sprintf("upload of blob %s to %s", desc.Digest, r.Repository())
	if err := checkDescriptor(desc); err != nil {
		return wrap(what, err)
	}
	u := &upload{desc: desc, content: content, chunk: max(opts.Chunk, 0), unasked: true, sent: reporter{tell: opts.Progress}}
	if err := r.write(ctx, what, u.run); err != nil {
		return err
	}
	u.sent.reach(desc.Size)
	return nil
}

// A reporter tells how far an upload has come. It is safe for concurrent use: what is
// sent is read in goroutines of net/http, which may be one more than is of use.
type reporter struct {
	tell func(n int64) // nil: nobody is told

	mu sync.Mutex
	n  int64
}

// reach notes that n bytes were sent.
func (r *reporter) reach(n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.tell != nil && n > r.n {
		r.n = n
		r.tell(n)
	}
}

// A toldReader tells how far it was read.
type toldReader struct {
	io.Reader
	off  int64
	sent *reporter
}

func (t *toldReader) Read(p []byte) (int, error) {
	n, err := t.Reader.Read(p)
	t.off += int64(n)
	t.sent.reach(t.off)
	return n, err
}

// PutManifest puts a manifest into the repository, at its own registry and never at a
// mirror: under its digest and, if tag is not empty, under that tag. It is sent again
// until the registry answers, so that of two who put under one tag at once either may
// be the last.
//
// A manifest whose blobs the registry does not have is remote.ErrNotFound. The other
// errors are those of PutBlob.
func (r *Repository) PutManifest(ctx context.Context, mediaType string, content []byte, tag string) (ocispec.Descriptor, error) {
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(content), Size: int64(len(content))}
	name := tag
	if tag == "" {
		name = desc.Digest.String()
	} else if _, err := r.tagged(tag); err != nil {
		return desc, wrap(r.Repository(), err)
	}
	what := fmt.Sprintf("upload of manifest %s to %s", name, r.Repository())
	unknown := 0 // how often the registry said that it does not know a blob
	return desc, r.write(ctx, what, func(ctx context.Context, e *endpoint) error {
		at, err := e.location(ctx, "manifests/"+name)
		if err != nil {
			return err
		}
		req := &request{method: http.MethodPut, actions: pushing, payload: bytesPayload(mediaType, content)}
		resp, _, err := e.change(ctx, req, at, http.StatusCreated)
		if f := blobUnknown(err); f != nil {
			if unknown++; unknown < unknownTries {
				f.verdict = busy
			}
			return f
		}
		if err != nil {
			return err
		}
		drain(resp.Body)
		if got := resp.Header.Get("Docker-Content-Digest"); got != "" && got != desc.Digest.String() {
			return &fault{class: remote.ErrDigest, text: fmt.Sprintf("the registry calls %s %q", desc.Digest, got)}
		}
		return nil
	})
}

// unknownTries is how often a manifest is put, with longer and longer waits, while the
// registry says that it does not know one of its blobs. docker-registry 2.8 writes anew
// where a repository has a blob whenever somebody puts it, and does not find it
// meanwhile: of 24 who put an artifact with the empty config at once, some are told so.
const unknownTries = 6

// blobUnknown returns the fault of a manifest with a blob that the registry says it
// does not know, nil if err is another one.
func blobUnknown(err error) *fault {
	var f *fault
	if !errors.As(err, &f) || f.status != http.StatusBadRequest && f.status != http.StatusNotFound {
		return nil
	}
	if said := strings.ToLower(strings.ReplaceAll(f.text, "_", " ")); !strings.Contains(said, "blob unknown") {
		return nil
	}
	unknown := *f
	unknown.verdict, unknown.class = final, remote.ErrNotFound
	return &unknown
}

// pushFault adds to an error of writing what may mend it.
func (r *Repository) pushFault(err error) error {
	var f *fault
	if !errors.As(err, &f) {
		return err
	}
	said := *f
	switch {
	case f.status == http.StatusMethodNotAllowed:
		said.text += "; it may be one that can only be read"
	case f.class == remote.ErrNotFound && f.status == http.StatusNotFound:
		said.text += fmt.Sprintf("; some registries want the repository %s to be made before", r.ref.Repository)
	default:
		return err
	}
	return &said
}
