package blobs

import (
	"errors"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache/internal/cachetest"
	"github.com/imgfs/imgfs/remote/cache/meta"
)

// Offline, blobs come from disk, or not at all.
func TestOfflineBlob(t *testing.T) {
	c := openCache(t, t.TempDir(), nil)
	s := c.Source(cachetest.NewFakeSource(t, "r/a:1", "{}"), &meta.SourceOptions{Offline: true})
	data := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(2*cachetest.TestChunk, 50)}
	checkRead(t, cached(t, c, data), data, 0, 1)
	blob, err := s.Blob(ocispec.Descriptor{Digest: data.Digest(), Size: data.Size()})
	if err != nil {
		t.Fatal(err)
	}
	b, err := c.Blob(blob, cutsOfSize(data.Data, cachetest.TestChunk))
	if err != nil {
		t.Fatal(err)
	}
	checkRead(t, b, data, 0, cachetest.TestChunk)
	_, err = b.ReadAt(t.Context(), make([]byte, 1), cachetest.TestChunk)
	if !errors.Is(err, remote.ErrUnavailable) || !strings.Contains(err.Error(), "not in the cache") {
		t.Errorf("ReadAt() of what is not kept = %v, want ErrUnavailable", err)
	}
}
