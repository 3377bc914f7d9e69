package registry_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache"
	"github.com/imgfs/imgfs/remote/cache/blobs"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
)

const faultChunk = 16 << 10

// testCachedFault has several readers, one of whom goes away, of a blob that
// a cache fetches and checks, and one reader of another blob. By HTTP/2 they are read by
// cuts of any length.
func testCachedFault(t *testing.T, tc faultCase, proto string) {
	tc.server.TLS = proto == "HTTP/2.0"
	s := registrytest.New(t, &tc.server)
	opts := fast()
	if tc.quick {
		opts.HeaderTimeout, opts.StallTimeout = 100*time.Millisecond, 100*time.Millisecond
	}
	if strings.Contains(tc.name, "absurd") {
		opts.ReadTimeout = time.Second // and so long the server is left alone
	}
	trust(t, s, opts)
	disk, err := cache.Open(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	r := open(t, s, opts)
	t.Cleanup(func() {
		if err := disk.Close(); err != nil {
			t.Errorf("closing the cache: %v", err)
		}
	})
	content, other := noise(1, blobSize), noise(2, blobSize)
	desc := s.PutBlob(ocispec.MediaTypeImageLayer, content)
	cuts := cutsOf(content, tc.server.TLS)
	b := cachedBy(t, disk, blobOf(t, r, desc), cuts)
	o := cachedBy(t, disk, blobOf(t, r, s.PutBlob(ocispec.MediaTypeImageLayer, other)), cutsOf(other, tc.server.TLS))
	for blob, data := range map[remote.Blob][]byte{b: content, o: other} {
		if err := check(t.Context(), blob, data, 0, 10); err != nil {
			t.Fatalf("read before the fault: %v", err)
		}
	}
	if tc.before != nil {
		tc.before(s)
	}
	kind, next := tc.kind, tc.fault(s)
	if kind == "" {
		if kind = registrytest.Blob; tc.server.CDN {
			kind = registrytest.CDN
		}
		next = onlyFor(desc.Digest, next)
	}
	s.Inject(kind, next)
	s.Forget()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := check(ctx, b, content, readOff, readLen); err != nil && tc.want == nil && !errors.Is(err, context.Canceled) {
			t.Errorf("the reader who leaves: %v", err)
		}
	})
	for range 3 {
		wg.Go(func() {
			err := check(t.Context(), b, content, readOff, readLen)
			if !errors.Is(err, tc.want) || err != nil && tc.want == nil {
				t.Errorf("got error %v, want %v", err, tc.want)
			}
			if err != nil && (strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "wrong bytes")) {
				t.Errorf("the error tells a secret, or there are wrong bytes: %v", err)
			}
		})
	}
	wg.Go(func() {
		if err := check(t.Context(), o, other, readOff, readLen); err != nil && !tc.all {
			t.Errorf("reader of another blob: %v", err)
		}
	})
	time.AfterFunc(2*time.Millisecond, cancel)
	wg.Wait()
	verifyCuts(t, disk, desc, cuts)
	// One fetch a chunk: readers share it, and what they meet.
	asked := 0
	for _, r := range s.Requests(registrytest.Blob, registrytest.CDN) {
		if strings.Contains(r.Path, desc.Digest.String()) {
			asked++
		}
	}
	if most := 4*tc.most + 8; asked > most {
		t.Errorf("got %d requests for the blob, want at most %d", asked, most)
	}
	s.Inject(kind, nil)
	if err := check(t.Context(), b, content, 0, blobSize); err != nil {
		t.Errorf("read after the fault: %v", err)
	}
	verifyCuts(t, disk, desc, cuts)
}

// cachedOf returns a blob by way of a cache that knows what is right.
func cachedOf(t *testing.T, disk *cache.Cache, b remote.Blob, content []byte) remote.Blob {
	t.Helper()
	return cachedBy(t, disk, b, chunksOf(content))
}

func chunksOf(content []byte) blobs.Chunks {
	chunks := blobs.Chunks{Size: faultChunk}
	for at := 0; at < len(content); at += faultChunk {
		sum := sha256.Sum256(content[at:min(at+faultChunk, len(content))])
		chunks.Sums = append(chunks.Sums, sum[:]...)
	}
	return chunks
}

// verifyCached checks that nothing is on disk that should not be there.
func verifyCached(t *testing.T, disk *cache.Cache, desc ocispec.Descriptor, content []byte) {
	t.Helper()
	verifyCuts(t, disk, desc, chunksOf(content))
}

func verifyCuts(t *testing.T, disk *cache.Cache, desc ocispec.Descriptor, cuts blobs.Cuts) {
	t.Helper()
	got, err := disk.Blobs.Verify(t.Context(), desc.Digest, desc.Size, cuts, nil)
	if err != nil || got.Bad > 0 {
		t.Errorf("the cache has %+v, error %v", got, err)
	}
}

// onlyFor has a fault only for requests whose path has a digest in it.
func onlyFor(d digest.Digest, next func(int) registrytest.Fault) func(int) registrytest.Fault {
	if next == nil {
		return nil
	}
	var mu sync.Mutex
	n := 0
	return registrytest.Always(func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		if !strings.Contains(r.URL.Path, d.String()) {
			serve(w, r)
			return
		}
		mu.Lock()
		n++
		fault := next(n)
		mu.Unlock()
		if fault == nil {
			serve(w, r)
			return
		}
		fault(w, r, serve)
	})
}
