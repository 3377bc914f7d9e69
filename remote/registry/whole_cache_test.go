package registry_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache"
	"github.com/imgfs/imgfs/remote/cache/meta"
	"github.com/imgfs/imgfs/remote/registry"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// A wholeBlob is a blob by way of a cache from a server that ignores ranges.
type wholeBlob struct {
	t       *testing.T
	s       *registrytest.Server
	opts    *registry.Options
	client  *registry.Client
	cache   *cache.Cache
	content []byte
	desc    ocispec.Descriptor
	blob    remote.Blob
}

func newWhole(t *testing.T, s *registrytest.Server, opts *registry.Options, cacheDir string, cacheOpts *cache.Options) *wholeBlob {
	t.Helper()
	g := &wholeBlob{t: t, s: s, opts: opts, client: registry.New(opts), content: noise(1, 1<<20)}
	t.Cleanup(func() { g.client.Close() })
	g.cache = openCache(t, cacheDir, cacheOpts)
	g.desc = s.PutBlob(ocispec.MediaTypeImageLayer, g.content)
	g.blob = cachedOf(t, g.cache, blobOf(t, g.client.Repository(reference(s)), g.desc), g.content)
	s.Inject(registrytest.Blob, registrytest.Always(registrytest.IgnoreRange()))
	return g
}

func openCache(t *testing.T, dir string, opts *cache.Options) *cache.Cache {
	t.Helper()
	disk, err := cache.Open(dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { disk.Close() })
	return disk
}

func (g *wholeBlob) read(off, n int) {
	g.t.Helper()
	if err := check(g.t.Context(), g.blob, g.content, off, n); err != nil {
		g.t.Error(err)
	}
}

// present returns how much of the blob is in the cache.
func (g *wholeBlob) present() int { return int(g.cache.Blobs.Holding(g.desc.Digest).Cached) }

// stored waits until the cache has all of the blob.
func (g *wholeBlob) stored() {
	g.t.Helper()
	if !eventually(func() bool { return g.present() == len(g.content) }) {
		g.t.Errorf("%d of %d bytes are in the cache", g.present(), len(g.content))
	}
}

func eventually(done func() bool) bool {
	for range 500 {
		if done() {
			return true
		}
		time.Sleep(10 * time.Millisecond)
	}
	return false
}

// fetched checks what the cache says of the traffic: what came by one request
// came once.
func (g *wholeBlob) fetched(want int) {
	g.t.Helper()
	if got := g.cache.Stats().Fetched; got != int64(want) {
		g.t.Errorf("%d bytes count as fetched, want %d", got, want)
	}
}

// asked checks how many requests the server got for the blob.
func (g *wholeBlob) asked(want int) {
	g.t.Helper()
	if n := g.s.Count(registrytest.Blob); n != want {
		g.t.Errorf("got %d requests, want %d", n, want)
	}
}

// All of a blob that was sent whole gets into the cache, without another
// request; nobody needs the network any more.
func TestWholeStored(t *testing.T) {
	bothProtocols(t, registrytest.Options{}, func(t *testing.T, s *registrytest.Server, opts *registry.Options) {
		dir := t.TempDir()
		g := newWhole(t, s, opts, dir, nil)
		g.read(500_000, 10)
		g.stored()
		g.asked(1)
		g.fetched(len(g.content))
		verifyCached(t, g.cache, g.desc, g.content)
		if !eventually(func() bool { return g.cache.Blobs.Verification(g.desc.Digest) == meta.VerifiedWhole }) {
			t.Error("the digest of the whole was not checked")
		}
		s.Inject(registrytest.Blob, registrytest.Always(registrytest.Status(404)))
		g.read(0, len(g.content))
		other := openCache(t, dir, nil)
		again := cachedOf(t, other, blobOf(t, g.client.Repository(reference(s)), g.desc), g.content)
		if err := check(t.Context(), again, g.content, 0, len(g.content)); err != nil {
			t.Error(err)
		}
		g.asked(1)

		// What others have removed is asked for again, and sent whole again.
		g.cache.Blobs.Remove(g.desc.Digest)
		s.Inject(registrytest.Blob, registrytest.Always(registrytest.IgnoreRange()))
		g.read(10, 10)
		g.stored()
		g.asked(2)
		g.fetched(2 * len(g.content))
	})
}

// What was read before there was an index is asked for again, once.
func TestWholeStoredLater(t *testing.T) {
	bothProtocols(t, registrytest.Options{}, func(t *testing.T, s *registrytest.Server, opts *registry.Options) {
		g := newWhole(t, s, opts, t.TempDir(), nil)
		b := blobOf(t, g.client.Repository(reference(s)), g.desc)
		if err := check(t.Context(), b, g.content, 10, 10); err != nil {
			t.Fatal(err)
		}
		if n := g.present(); n != 0 {
			t.Errorf("%d bytes are in the cache, that nobody can check", n)
		}
		received(t, b) // does not count for what comes then
		cached := cachedOf(t, g.cache, b, g.content)
		if err := check(t.Context(), cached, g.content, 10, 10); err != nil {
			t.Error(err)
		}
		g.stored()
		g.asked(2)
		g.fetched(len(g.content))
	})
}

// Readers go on while a blob comes and is stored. One that is about to ask when all has
// just come may be sent it once more.
func TestWholeReaders(t *testing.T) {
	bothProtocols(t, registrytest.Options{}, func(t *testing.T, s *registrytest.Server, opts *registry.Options) {
		g := newWhole(t, s, opts, t.TempDir(), nil)
		readers(t, 20, func(int) error {
			for range 30 {
				if err := check(t.Context(), g.blob, g.content, rand.IntN(len(g.content)-5000), 5000); err != nil {
					return err
				}
			}
			return nil
		})
		g.stored()
		if n := s.Count(registrytest.Blob); n > 2 {
			t.Errorf("got %d requests, want 1, or hardly ever 2", n)
		}
	})
}

// A blob of more than half the budget is stored where it fits. Where there is no
// room for it only what was read is, and reads in order need one request.
// Nothing else goes for it.
func TestWholeNoRoom(t *testing.T) {
	for name, tt := range map[string]struct {
		budget int64
		disk   int
		fits   bool
	}{
		"fits":   {budget: 3 << 19, fits: true},
		"budget": {budget: 1 << 20},
		"disk":   {disk: 1 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			bothProtocols(t, registrytest.Options{}, func(t *testing.T, s *registrytest.Server, opts *registry.Options) {
				dir := t.TempDir()
				if tt.disk > 0 {
					dir = filepath.Join(smallDisk(t, tt.disk), "cache")
				}
				var warned lines
				g := newWhole(t, s, opts, dir, &cache.Options{Budget: tt.budget, Warnf: warned.printf})
				s.Inject(registrytest.Blob, nil)
				old := noise(2, 200_000)
				o := cachedOf(t, g.cache, blobOf(t, g.client.Repository(reference(s)), s.PutBlob(ocispec.MediaTypeImageLayer, old)), old)
				if err := check(t.Context(), o, old, 0, len(old)); err != nil {
					t.Fatal(err)
				}
				s.Forget()
				s.Inject(registrytest.Blob, registrytest.Always(registrytest.IgnoreRange()))
				g.read(500_000, 10)
				if tt.fits {
					g.stored()
					g.fetched(len(g.content) + len(old))
				} else {
					time.Sleep(100 * time.Millisecond)
					if n := g.present(); n != faultChunk {
						t.Errorf("%d bytes are in the cache, want what was read", n)
					}
				}
				if all := warned.all(); strings.Contains(all, "\n") || (all == "") != tt.fits {
					t.Errorf("warned: %q", all)
				}
				if err := check(t.Context(), o, old, 0, len(old)); err != nil {
					t.Error(err)
				}
				g.asked(1) // the old one is still there
				time.Sleep(500 * time.Millisecond)
				requests := 1
				for range 2 {
					for off := 0; off < len(g.content); off += 1 << 17 {
						g.read(off, 1<<17)
					}
					if !tt.fits {
						requests += 2 // another, if this machine is slow
						time.Sleep(500 * time.Millisecond)
					}
				}
				if n := s.Count(registrytest.Blob); n > requests {
					t.Errorf("got %d requests, want at most %d", n, requests)
				}
				if used, err := g.cache.Usage(); err != nil || tt.budget > 0 && used > tt.budget {
					t.Errorf("%d bytes on disk, the budget is %d; %v", used, tt.budget, err)
				}
			})
		})
	}
}

// Readers at random places of a blob that there is no room for share requests:
// one serves all who wait for what comes.
func TestWholeNoRoomReaders(t *testing.T) {
	bothProtocols(t, registrytest.Options{}, func(t *testing.T, s *registrytest.Server, opts *registry.Options) {
		g := newWhole(t, s, opts, t.TempDir(), &cache.Options{Budget: 1 << 19})
		const n, each = 20, 10
		readers(t, n, func(int) error {
			for range each {
				if err := check(t.Context(), g.blob, g.content, rand.IntN(len(g.content)-5000), 5000); err != nil {
					return err
				}
			}
			return nil
		})
		// A read waits for two at most: the one that has gone by, and the next.
		if got := s.Count(registrytest.Blob); got > 4*each {
			t.Errorf("got %d requests for %d reads, %d at a time", got, n*each, n)
		}
		if used, err := g.cache.Usage(); err != nil || used > 1<<19 {
			t.Errorf("%d bytes on disk; %v", used, err)
		}
		verifyCached(t, g.cache, g.desc, g.content)
	})
}

// A blob that breaks off is stored as far as it has come, and then all of it.
func TestWholeStoredBroken(t *testing.T) {
	bothProtocols(t, registrytest.Options{}, func(t *testing.T, s *registrytest.Server, opts *registry.Options) {
		g := newWhole(t, s, opts, t.TempDir(), nil)
		s.Inject(registrytest.Blob, func(n int) registrytest.Fault { return whole(registrytest.Truncate(n * 300_000)) })
		g.read(10, 10)
		g.read(len(g.content)-10, 10)
		g.stored()
		g.asked(4)
		g.fetched(300_000 + 600_000 + 900_000 + len(g.content)) // what broke off came, too
		verifyCached(t, g.cache, g.desc, g.content)
	})
}

// Of a blob that has not its digest nothing gets into the cache but chunks that
// are right.
func TestWholeStoredWrong(t *testing.T) {
	bothProtocols(t, registrytest.Options{}, func(t *testing.T, s *registrytest.Server, opts *registry.Options) {
		g := newWhole(t, s, opts, t.TempDir(), nil)
		read := make(chan struct{})
		s.Inject(registrytest.Blob, registrytest.Always(func(w http.ResponseWriter, r *http.Request, _ http.HandlerFunc) {
			wrong := bytes.Clone(g.content)
			wrong[len(wrong)/2] ^= 1
			w.Header().Set("Content-Length", strconv.Itoa(len(wrong)))
			_, _ = w.Write(wrong[:100_000]) // the reader tells
			_ = http.NewResponseController(w).Flush()
			select {
			case <-read:
			case <-r.Context().Done():
			}
			_, _ = w.Write(wrong[100_000:])
		}))
		g.read(10, 10)
		close(read)
		if !eventually(func() bool { return g.present() == len(g.content)-faultChunk }) {
			t.Errorf("%d bytes are in the cache, want all but the wrong chunk", g.present())
		}
		verifyCached(t, g.cache, g.desc, g.content)
		if err := check(t.Context(), g.blob, g.content, len(g.content)/2, 10); !errors.Is(err, remote.ErrDigest) && !errors.Is(err, remote.ErrUnavailable) {
			t.Errorf("read of a wrong bit: got error %v", err)
		}
		verifyCached(t, g.cache, g.desc, g.content)
		s.Inject(registrytest.Blob, registrytest.Always(registrytest.IgnoreRange()))
		// An answer from before may still be on its way.
		if !eventually(func() bool { return check(t.Context(), g.blob, g.content, len(g.content)/2, 10) == nil }) {
			t.Error("the blob cannot be read")
		}
		g.stored()
		verifyCached(t, g.cache, g.desc, g.content)
	})
}

// An index that is wrong of a chunk keeps this chunk from being stored, and the
// others not from being read.
func TestWholeStoredWrongIndex(t *testing.T) {
	bothProtocols(t, registrytest.Options{}, func(t *testing.T, s *registrytest.Server, opts *registry.Options) {
		g := newWhole(t, s, opts, t.TempDir(), nil)
		chunks := chunksOf(g.content)
		chunks.Sums[len(chunks.Sums)-1] ^= 1
		b, err := g.cache.Blobs.Blob(blobOf(t, g.client.Repository(reference(s)), g.desc), chunks)
		if err != nil {
			t.Fatal(err)
		}
		if err := check(t.Context(), b, g.content, 10, 10); err != nil {
			t.Error(err)
		}
		bad := func() int64 { return g.cache.Stats().BadFetched }
		if !eventually(func() bool { return bad() > 0 }) {
			t.Error("the wrong chunk was not noticed")
		}
		time.Sleep(50 * time.Millisecond)
		was := bad()
		if err := check(t.Context(), b, g.content, 100_000, 10); err != nil {
			t.Error(err)
		}
		time.Sleep(50 * time.Millisecond)
		if bad() != was || was > 10 {
			t.Errorf("%d wrong chunks, and then %d", was, bad())
		}
		g.asked(1)
	})
}

// Cache and client can be closed while a blob comes and is stored.
func TestWholeStoredClose(t *testing.T) {
	testenv.Slow(t)
	before := runtime.NumGoroutine()
	for i := range 40 {
		func() {
			s, opts := registrytest.New(nil, nil), fast()
			defer s.Close()
			g := newWhole(t, s, opts, t.TempDir(), nil)
			if i%2 == 0 {
				s.Inject(registrytest.Blob, registrytest.Always(whole(s.Stall(len(g.content)/2))))
			}
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			if err := check(ctx, g.blob, g.content, 10, 10); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Duration(rand.IntN(100)) * time.Millisecond)
			closers := []func() error{g.cache.Close, g.client.Close}
			begun := time.Now()
			for _, close := range []func() error{closers[i/2%2], closers[1-i/2%2]} {
				if err := close(); err != nil {
					t.Error(err)
				}
			}
			if took := time.Since(begun); took > 3*time.Second {
				t.Errorf("closing took %s", took)
			}
		}()
	}
	if !eventually(func() bool { return runtime.NumGoroutine() <= before }) {
		t.Errorf("%d goroutines before, %d after", before, runtime.NumGoroutine())
	}
}
