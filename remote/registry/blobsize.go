package registry

import (
	"context"
	"net/http"
	"strconv"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/remote"
)

// The size of a blob is what the image's manifest states. Servers say what it has
// with each answer. Which of them is right only the digest tells.

// WithSize implements remote.SizedBlob.
func (b *blob) WithSize(size int64) remote.Blob {
	b.repo.mu.Lock()
	defer b.repo.mu.Unlock()
	other := b.repo.blobs[b.digest]
	if other == nil || other.size != size {
		other = newBlob(b.repo, ocispec.Descriptor{Digest: b.digest, Size: size})
		b.repo.blobs[b.digest] = other
	}
	return other
}

// SaidSize implements remote.SizedBlob.
func (b *blob) SaidSize(ctx context.Context) (int64, bool) {
	b.mu.Lock()
	said := b.said
	b.mu.Unlock()
	if said == 0 && b.size == 0 {
		// A blob of one byte, if that was right, would be read so.
		probe := newBlob(b.repo, ocispec.Descriptor{Digest: b.digest, Size: 1})
		_, err := probe.ReadAt(ctx, make([]byte, 1), 0)
		said = max(probe.said, 0)
		if err == nil {
			said = 1
		}
	}
	return said, said > 0
}

// saySize notes what a server says.
func (b *blob) saySize(size int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.said = size
}

// noteSize notes the size that an answer says the blob has, if it is another one.
func (b *blobCopy) noteSize(resp *http.Response) {
	size := int64(-1)
	switch resp.StatusCode {
	case http.StatusOK:
		size = resp.ContentLength
	case http.StatusPartialContent, http.StatusRequestedRangeNotSatisfiable:
		if m := contentTotal.FindStringSubmatch(resp.Header.Get("Content-Range")); m != nil {
			size, _ = strconv.ParseInt(m[1], 10, 64) // eighteen digits fit
		}
	}
	if size > 0 && size != b.size && encoding(resp.Header) == "" {
		b.saySize(size)
	}
}
