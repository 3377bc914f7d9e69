package blobs

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache/internal/cachetest"
	"github.com/imgfs/imgfs/remote/cache/meta"
	"github.com/imgfs/imgfs/remote/ocilayout"
)

// A localFake is a blob on a local disk.
type localFake struct{ plainBlob }

var _ remote.LocalBlob = localFake{}

func (localFake) Local() bool { return true }

func localBlob(t testing.TB, c *testCache, data []byte) *Blob {
	t.Helper()
	b, err := c.Blob(localFake{plainBlob{&cachetest.FakeBlob{Data: data}}}, cutsOfSize(data, cachetest.TestChunk))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A local blob is not copied.
func TestLocal(t *testing.T) {
	dir := t.TempDir()
	c := openCache(t, dir, nil)
	src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(20*cachetest.TestChunk+5, 280)}
	b := localBlob(t, c, src.Data)
	b.Prefetch(0, src.Size())
	for off := int64(0); off < src.Size(); off += 100 {
		checkRead(t, b, src, off, min(3*cachetest.TestChunk, src.Size()-off))
	}
	if err := c.Fill(t.Context(), []*Blob{b}, nil); err != nil {
		t.Errorf("Fill() = %v", err)
	}
	// Chunks in memory are not read again.
	if st := b.Stats(); st.Fetched != src.Size() || st.Present != 0 || st.Wasted != 0 || st.Errors != 0 {
		t.Errorf("Stats() = %+v", st)
	}
	if _, err := os.Stat(cachetest.BlobPath(dir, src)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it was stored: %v", err)
	}
}

// However a local file changes under its readers, they get the right bytes or
// an error.
func TestLocalChanges(t *testing.T) {
	c := openCache(t, t.TempDir(), nil)
	right := cachetest.RandomBytes(4*maxRecent, 281) // more than stays in memory
	var flip atomic.Bool
	src := localFake{plainBlob{&cachetest.FakeBlob{Data: right}}}
	b, err := c.Blob(flippingBlob{src, &flip}, cutsOfSize(right, bigChunk))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var failed, read atomic.Int64
	for i := range int64(4) {
		wg.Go(func() {
			p := make([]byte, 100_000)
			for n := range int64(100) {
				flip.Store(n%3 == i%3)
				off := (n*7919*1000 + i*100_000) % (b.Size() - int64(len(p)))
				if _, err := b.ReadAt(t.Context(), p, off); errors.Is(err, remote.ErrDigest) {
					failed.Add(1)
				} else if err != nil || !bytes.Equal(p, right[off:off+int64(len(p))]) {
					t.Errorf("ReadAt(%d) = %v, or wrong bytes", off, err)
				} else {
					read.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if failed.Load() == 0 || read.Load() == 0 {
		t.Errorf("%d reads failed, and %d did not: the test shows nothing", failed.Load(), read.Load())
	}
}

// A flippingBlob gives wrong bytes while flip is set.
type flippingBlob struct {
	localFake
	flip *atomic.Bool
}

func (b flippingBlob) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	n, err := b.localFake.ReadAt(ctx, p, off)
	if b.flip.Load() {
		for i := 0; i < n; i += bigChunk / 2 {
			p[i] ^= 1
		}
	}
	return n, err
}

// The blobs of an OCI layout are local, online and offline.
func TestLocalSource(t *testing.T) {
	dir := t.TempDir()
	content := []byte("content")
	src := &cachetest.FakeBlob{Data: content}
	blobs := filepath.Join(dir, "blobs", "sha256")
	manifest := `{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"` +
		src.Digest().String() + `","size":7,"annotations":{"org.opencontainers.image.ref.name":"v1"}}]}`
	for path, text := range map[string]string{
		filepath.Join(dir, "oci-layout"):             `{"imageLayoutVersion":"1.0.0"}`,
		filepath.Join(dir, "index.json"):             manifest,
		filepath.Join(blobs, src.Digest().Encoded()): string(content),
	} {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	layout, err := ocilayout.Open(dir, "v1")
	if err != nil {
		t.Fatal(err)
	}
	defer layout.Close()
	c := openCache(t, t.TempDir(), nil)
	for _, offline := range []bool{false, true} {
		b, err := c.Source(layout, &meta.SourceOptions{Offline: offline}).Blob(ocispec.Descriptor{Digest: src.Digest(), Size: 7})
		if err != nil {
			t.Fatal(err)
		}
		if !remote.IsLocal(b) {
			t.Errorf("offline %v: the blob of an OCI layout is not local", offline)
		}
		if remote.IsLocal(src) {
			t.Error("any blob is local")
		}
		checkRead(t, localBlob(t, c, content), src, 0, 7)
	}
}
