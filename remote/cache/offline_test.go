package cache

import (
	"errors"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/remote"
)

// Offline, blobs come from disk, or not at all.
func TestOfflineBlob(t *testing.T) {
	c := openCache(t, t.TempDir(), nil)
	s := c.Source(newFakeSource(t, "r/a:1", "{}"), &SourceOptions{Offline: true})
	data := &fakeBlob{t: t, data: randomBytes(2*testChunk, 50)}
	checkRead(t, cached(t, c, data), data, 0, 1)
	blob, err := s.Blob(ocispec.Descriptor{Digest: data.Digest(), Size: data.Size()})
	if err != nil {
		t.Fatal(err)
	}
	b, err := c.Blob(blob, chunksOf(data.data, testChunk))
	if err != nil {
		t.Fatal(err)
	}
	checkRead(t, b, data, 0, testChunk)
	_, err = b.ReadAt(t.Context(), make([]byte, 1), testChunk)
	if !errors.Is(err, remote.ErrUnavailable) || !strings.Contains(err.Error(), "not in the cache") {
		t.Errorf("ReadAt() of what is not kept = %v, want ErrUnavailable", err)
	}
}
