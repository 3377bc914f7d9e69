package registry_test

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/registry"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/remote/sourcetest"
	"github.com/imgfs/imgfs/testdata/testenv"
)

func TestSource(t *testing.T) {
	testenv.Slow(t)
	for _, s := range []struct {
		name string
		opts registrytest.Options
	}{
		{"plain", registrytest.Options{}},
		{"storage", registrytest.Options{CDN: true}},
		{"bearer, TLS", registrytest.Options{TLS: true, Login: registrytest.Bearer, CDN: true}},
	} {
		t.Run(s.name, func(t *testing.T) {
			sourcetest.Run(t, func(t *testing.T, store *sourcetest.Store, top ocispec.Descriptor) (remote.Source, error) {
				return fill(t, registrytest.New(t, &s.opts), store, top), nil
			}, nil)
		})
	}
}

// fill serves what a store holds. Manifests are those contents that top leads
// to.
func fill(t *testing.T, s *registrytest.Server, store *sourcetest.Store, top ocispec.Descriptor) *registry.Repository {
	t.Helper()
	for _, d := range store.Digests() {
		content, _ := store.Get(d)
		s.ReplaceBlob(d, content)
		for _, mediaType := range []string{ocispec.MediaTypeImageIndex, ocispec.MediaTypeImageManifest, sourcetest.DockerManifest, sourcetest.DockerManifestList} {
			if strings.Contains(string(content), `"mediaType":"`+mediaType+`"`) {
				s.ReplaceManifest(d, mediaType, content)
				break
			}
		}
	}
	s.Tag("app", "latest", top.Digest)
	opts := fast()
	trust(t, s, opts)
	return open(t, s, opts)
}

// Readers of one blob find out together where it is, and get one token.
func TestReadersShare(t *testing.T) {
	for _, proto := range []string{"HTTP/1.1", "HTTP/2.0"} {
		t.Run(proto, func(t *testing.T) {
			s := registrytest.New(t, &registrytest.Options{Login: registrytest.Bearer, CDN: true, TLS: proto == "HTTP/2.0"})
			opts := fast()
			trust(t, s, opts)
			content := noise(1, blobSize)
			b := blobOf(t, open(t, s, opts), s.PutBlob(ocispec.MediaTypeImageLayer, content))
			read := func(i int) error { return check(t.Context(), b, content, i*1000, 1000) }
			const n = 40
			for _, step := range []struct {
				name   string
				before func()
				tokens int
				blobs  int // at the registry; a refused request for a token's sake counts
			}{
				{"first reads", func() {}, 1, 2},
				{"address known", func() {}, 0, 0},
				{"address expired", s.ExpireURLs, 0, 1},
				{"address and token expired", func() { s.ExpireURLs(); s.RevokeTokens() }, 1, 2},
			} {
				step.before()
				s.Forget()
				readers(t, n, read)
				if got := s.Count(registrytest.Token); got != step.tokens {
					t.Errorf("%s: %d requests for tokens, want %d", step.name, got, step.tokens)
				}
				if got := s.Count(registrytest.Blob); got != step.blobs {
					t.Errorf("%s: %d requests at the registry, want %d", step.name, got, step.blobs)
				}
				if got := s.Count(registrytest.CDN); got > 2*n {
					t.Errorf("%s: %d requests at the storage for %d reads", step.name, got, n)
				}
			}
		})
	}
}

// A token that is refused to all readers at once is renewed once.
func TestTokenRenewedOnce(t *testing.T) {
	s := registrytest.New(t, &registrytest.Options{Login: registrytest.Bearer})
	content := noise(1, blobSize)
	b := blobOf(t, open(t, s, fast()), s.PutBlob(ocispec.MediaTypeImageLayer, content))
	read := func(i int) error { return check(t.Context(), b, content, i*1000, 1000) }
	readers(t, 1, read)
	for range 5 {
		s.RevokeTokens()
		s.Forget()
		readers(t, 30, read)
		if n := s.Count(registrytest.Token); n != 1 {
			t.Errorf("got %d requests for tokens, want 1", n)
		}
		if n := s.Count(registrytest.Blob); n > 60 {
			t.Errorf("got %d requests for 30 reads", n)
		}
	}
}

// A registry that wants a scope of its own making is asked once a read.
func TestOtherScope(t *testing.T) {
	s := registrytest.New(t, &registrytest.Options{Login: registrytest.Bearer, Scope: "aws"})
	content := noise(1, blobSize)
	b := blobOf(t, open(t, s, fast()), s.PutBlob(ocispec.MediaTypeImageLayer, content))
	for range 3 {
		if err := check(t.Context(), b, content, 0, 100); err != nil {
			t.Fatal(err)
		}
	}
	if blobs, tokens := s.Count(registrytest.Blob), s.Count(registrytest.Token); blobs != 4 || tokens != 1 {
		t.Errorf("got %d requests for blobs and %d for tokens, want 4 and 1", blobs, tokens)
	}
}

// A blob that is sent whole is fetched once for all readers of a cache, and each
// waits only for its own part. One that is about to ask when all has just come may be
// sent it once more.
func TestWhole(t *testing.T) {
	for _, proto := range []string{"HTTP/1.1", "HTTP/2.0"} {
		t.Run(proto, func(t *testing.T) {
			s := registrytest.New(t, &registrytest.Options{TLS: proto == "HTTP/2.0"})
			opts := fast()
			trust(t, s, opts)
			content := noise(1, 1<<20)
			b := throughCache(t, open(t, s, opts), s.PutBlob(ocispec.MediaTypeImageLayer, content), content)
			s.Inject(registrytest.Blob, registrytest.Always(registrytest.IgnoreRange()))
			readers(t, 50, func(i int) error {
				return check(t.Context(), b, content, rand.IntN(len(content)-5000), 5000)
			})
			if n := s.Count(registrytest.Blob); n > 2 {
				t.Errorf("got %d requests, want 1, or hardly ever 2", n)
			}
		})
	}
}

// throughCache returns a blob by way of a cache of its own.
func throughCache(t *testing.T, r *registry.Repository, desc ocispec.Descriptor, content []byte) remote.Blob {
	t.Helper()
	return cachedOf(t, openCache(t, t.TempDir(), nil), blobOf(t, r, desc), content)
}

func TestWholeServesWhatIsThere(t *testing.T) {
	s := registrytest.New(t, nil)
	content := noise(1, 1<<20)
	b := throughCache(t, open(t, s, fast()), s.PutBlob(ocispec.MediaTypeImageLayer, content), content)
	half := len(content) / 2
	s.Inject(registrytest.Blob, registrytest.Always(whole(s.Stall(half))))
	if err := check(t.Context(), b, content, half-4096-64<<10, 4096); err != nil {
		t.Errorf("a part that is there: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := b.ReadAt(ctx, make([]byte, 10), int64(len(content)-10)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a part that is not there yet: got error %v, want that it waits", err)
	}
	if n := s.Count(registrytest.Blob); n != 1 {
		t.Errorf("got %d requests, want 1", n)
	}
}

// whole makes a fault send the whole blob.
func whole(f registrytest.Fault) registrytest.Fault {
	return func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		r = r.Clone(r.Context())
		r.Header.Del("Range")
		f(w, r, serve)
	}
}

// A whole blob that breaks off is taken up again; each answer gets further.
func TestWholeBroken(t *testing.T) {
	s := registrytest.New(t, nil)
	content := noise(1, 1<<20)
	r, desc := open(t, s, fast()), s.PutBlob(ocispec.MediaTypeImageLayer, content)
	s.Inject(registrytest.Blob, func(n int) registrytest.Fault { return whole(registrytest.Truncate(n * 300_000)) })
	if err := check(t.Context(), throughCache(t, r, desc, content), content, 10, len(content)-10); err != nil {
		t.Error(err)
	}
	if n := s.Count(registrytest.Blob); n != 4 {
		t.Errorf("got %d requests, want 4", n)
	}
}

// A whole blob of the right length and the wrong digest is not believed.
func TestWholeWrong(t *testing.T) {
	s := registrytest.New(t, nil)
	content := noise(1, 1<<20)
	b := throughCache(t, open(t, s, fast()), s.PutBlob(ocispec.MediaTypeImageLayer, content), content)
	s.Inject(registrytest.Blob, registrytest.Once(whole(registrytest.FlipBit())))
	if err := check(t.Context(), b, content, len(content)-100, 100); err != nil {
		t.Errorf("read of the end: %v", err)
	}
	if err := check(t.Context(), b, content, 10, len(content)-10); err != nil {
		t.Errorf("read of all: %v", err)
	}
}

// A server that sends wrong bytes whole is given up after a few tries, however
// many bytes they are.
func TestWholeAlwaysWrong(t *testing.T) {
	s := registrytest.New(t, nil)
	content := noise(1, 1<<20)
	b := throughCache(t, open(t, s, fast()), s.PutBlob(ocispec.MediaTypeImageLayer, content), content)
	wrong := registrytest.Always(func(w http.ResponseWriter, _ *http.Request, _ http.HandlerFunc) {
		_, _ = w.Write(noise(2, len(content))) // the reader tells
	})
	s.Inject(registrytest.Blob, wrong)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := check(ctx, b, content, len(content)-100, 100); !errors.Is(err, remote.ErrUnavailable) && !errors.Is(err, remote.ErrDigest) {
		t.Errorf("read of the end: %v, want ErrUnavailable or ErrDigest", err)
	}
	if n := s.Count(registrytest.Blob); n > 5 {
		t.Errorf("%d requests", n)
	}
}

// Who stops waiting leaves at once, and the others get their bytes.
func TestCancel(t *testing.T) {
	testenv.Slow(t)
	for name, fault := range map[string]func(*registrytest.Server) registrytest.Fault{
		"no head":          func(s *registrytest.Server) registrytest.Fault { return s.Stall(-1) },
		"in the body":      func(s *registrytest.Server) registrytest.Fault { return s.Stall(10) },
		"in a whole blob":  func(s *registrytest.Server) registrytest.Fault { return whole(s.Stall(10)) },
		"told to wait":     func(*registrytest.Server) registrytest.Fault { return registrytest.Status(429, "Retry-After", "1") },
		"waiting to retry": func(*registrytest.Server) registrytest.Fault { return registrytest.Status(500) },
	} {
		t.Run(name, func(t *testing.T) {
			s := registrytest.New(t, nil)
			opts := fast()
			if strings.Contains(name, "retry") {
				opts.MinBackoff, opts.MaxBackoff = 400*time.Millisecond, 400*time.Millisecond
			}
			if strings.Contains(name, "whole") {
				opts.StallTimeout = 300 * time.Millisecond
			}
			content := noise(1, blobSize)
			b := blobOf(t, open(t, s, opts), s.PutBlob(ocispec.MediaTypeImageLayer, content))
			s.Inject(registrytest.Blob, registrytest.Once(fault(s)))
			ctx, cancel := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			var left time.Time
			wg.Go(func() {
				if _, err := b.ReadAt(ctx, make([]byte, 1000), 500); !errors.Is(err, context.Canceled) {
					t.Errorf("cancelled read: got error %v, want %v", err, context.Canceled)
				}
				left = time.Now()
			})
			for s.Count(registrytest.Blob) == 0 {
				time.Sleep(time.Millisecond)
			}
			for i := range 5 {
				wg.Go(func() {
					if err := check(t.Context(), b, content, 1000*i, 1000); err != nil {
						t.Errorf("another reader: %v", err)
					}
				})
			}
			time.Sleep(20 * time.Millisecond)
			cancelled := time.Now()
			cancel()
			wg.Wait()
			if d := left.Sub(cancelled); d > 200*time.Millisecond {
				t.Errorf("the cancelled read took %s to end", d)
			}
		})
	}
}

// No more than MaxRequests are under way at a host.
func TestMaxRequests(t *testing.T) {
	s := registrytest.New(t, nil)
	opts := fast()
	opts.MaxRequests = 3
	content := noise(1, blobSize)
	b := blobOf(t, open(t, s, opts), s.PutBlob(ocispec.MediaTypeImageLayer, content))
	var mu sync.Mutex
	var now, most int
	s.Inject(registrytest.Blob, registrytest.Always(func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		mu.Lock()
		now++
		most = max(most, now)
		mu.Unlock()
		time.Sleep(5 * time.Millisecond)
		mu.Lock()
		now-- // before the answer is complete: the next request may come then
		mu.Unlock()
		serve(w, r)
	}))
	readers(t, 30, func(i int) error { return check(t.Context(), b, content, i*100, 100) })
	if most > 3 || most < 2 {
		t.Errorf("up to %d requests at a time, want 3", most)
	}
}

// Connections are used again, whatever the length of an answer said.
func TestConnections(t *testing.T) {
	for _, tc := range []struct {
		name          string
		readers, most int
		fault         registrytest.Fault
	}{
		{"one reader", 1, 1, nil},
		{"one reader, answers without a length", 1, 1, registrytest.Header(func(h http.Header) { h.Del("Content-Length") })},
		// net/http goes on with a dial when another connection becomes free
		// meanwhile, so there can be some more than readers.
		{"many readers", 16, 24, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := registrytest.New(t, nil)
			content := noise(1, blobSize)
			b := blobOf(t, open(t, s, fast()), s.PutBlob(ocispec.MediaTypeImageLayer, content))
			s.Inject(registrytest.Blob, func(int) registrytest.Fault { return tc.fault })
			readers(t, tc.readers, func(i int) error {
				for j := range 10 {
					if err := check(t.Context(), b, content, 1000*(i+j), 9000); err != nil {
						return err
					}
				}
				return nil
			})
			clients := make(map[string]bool)
			for _, r := range s.Requests(registrytest.Blob) {
				clients[r.Client] = true
			}
			if len(clients) > tc.most {
				t.Errorf("got %d connections, want at most %d", len(clients), tc.most)
			}
		})
	}
}

// Random reads under random faults: right bytes or an error, and after Close
// nothing is left running.
func TestManyFaults(t *testing.T) {
	testenv.Slow(t)
	before := runtime.NumGoroutine()
	content := noise(1, 1<<20)
	func() {
		s := registrytest.New(nil, &registrytest.Options{Login: registrytest.Bearer, CDN: true})
		defer s.Close()
		opts := fast()
		opts.StallTimeout, opts.HeaderTimeout = 50*time.Millisecond, 50*time.Millisecond
		client := registry.New(opts)
		defer client.Close()
		desc := s.PutBlob(ocispec.MediaTypeImageLayer, content)
		b := blobOf(t, client.Repository(remote.Reference{Registry: s.Host(), Repository: "app", Digest: desc.Digest}), desc)
		// Not Gzip: what an answer says of its encoding decides nothing here, and
		// other bytes of the right length are for the reader's digests.
		faults := []registrytest.Fault{
			registrytest.Reset(-1), registrytest.Reset(1000), registrytest.Truncate(100), registrytest.Status(500),
			registrytest.Status(403), registrytest.Status(404), registrytest.Page(), registrytest.Multipart(nil),
			registrytest.IgnoreRange(), s.Stall(10), s.Stall(-1), whole(registrytest.Truncate(500_000)),
		}
		chance := func(int) registrytest.Fault {
			if rand.IntN(3) > 0 {
				return nil
			}
			return faults[rand.IntN(len(faults))]
		}
		s.Inject(registrytest.CDN, chance)
		s.Inject(registrytest.Blob, chance)
		s.Inject(registrytest.Token, chance)
		readers(t, 8, func(int) error {
			buf := make([]byte, 30_000)
			for range 30 {
				off := rand.IntN(len(content) - len(buf))
				n, err := b.ReadAt(t.Context(), buf, int64(off))
				if string(buf[:n]) != string(content[off:off+n]) {
					return errors.New("wrong bytes")
				}
				if err == nil && n < len(buf) || err == io.EOF {
					return errors.New("a short read without a proper error")
				}
			}
			return nil
		})
		s.Inject(registrytest.CDN, nil)
		s.Inject(registrytest.Blob, nil)
		s.Inject(registrytest.Token, nil)
		if err := check(t.Context(), b, content, 0, len(content)); err != nil {
			t.Errorf("read after the faults: %v", err)
		}
	}()
	for range 100 {
		if runtime.NumGoroutine() <= before {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	buf := make([]byte, 1<<20)
	t.Errorf("%d goroutines before, %d after:\n%s", before, runtime.NumGoroutine(), buf[:runtime.Stack(buf, true)])
}

func TestReadAtRules(t *testing.T) {
	s := registrytest.New(t, nil)
	r := open(t, s, fast())
	empty := blobOf(t, r, s.PutBlob(ocispec.MediaTypeImageLayer, nil))
	if n, err := empty.ReadAt(t.Context(), make([]byte, 1), 0); n != 0 || err != io.EOF {
		t.Errorf("read of an empty blob: got %d and error %v, want 0 and EOF", n, err)
	}
	if _, err := r.Blob(ocispec.Descriptor{Digest: digest.FromString("x"), Size: -1}); !errors.Is(err, remote.ErrDigest) {
		t.Errorf("Blob of -1 bytes: got error %v, want %v", err, remote.ErrDigest)
	}
	if n := s.Count(); n != 0 {
		t.Errorf("got %d requests, want none", n)
	}
}
