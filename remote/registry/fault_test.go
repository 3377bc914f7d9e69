package registry_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/testenv"
)

const (
	blobSize = 100_000
	readOff  = 10_000
	readLen  = 50_000
)

// A faultCase is something that happens to reads of blobs.
type faultCase struct {
	name   string
	server registrytest.Options       // besides TLS
	before func(*registrytest.Server) // done when the reader has read once
	kind   registrytest.Kind          // default: Blob, or CDN if there is one
	fault  func(*registrytest.Server) func(int) registrytest.Fault
	quick  bool  // give up waiting soon; some more requests are then no fault
	want   error // nil: the right bytes
	most   int   // requests for the blob, of both servers
	tokens int   // requests for tokens
	sums   bool  // only the sums of chunks tell right bytes from wrong ones
	all    bool  // who reads something else may fail too
}

func inject(next func(int) registrytest.Fault) func(*registrytest.Server) func(int) registrytest.Fault {
	return func(*registrytest.Server) func(int) registrytest.Fault { return next }
}

func faultCases() []faultCase {
	once, times, always := registrytest.Once, registrytest.Times, registrytest.Always
	cdn := registrytest.Options{CDN: true}
	bearer := registrytest.Options{Login: registrytest.Bearer}
	other := func(edit func(first, last int64) (int64, int64)) registrytest.Fault {
		return registrytest.OtherRange(edit)
	}
	edit := func(name, value string) registrytest.Fault {
		return registrytest.Header(func(h http.Header) { h.Set(name, value) })
	}
	stall := func(n, count int) func(*registrytest.Server) func(int) registrytest.Fault {
		return func(s *registrytest.Server) func(int) registrytest.Fault { return times(count, s.Stall(n)) }
	}
	later := func(first, last int64) (int64, int64) { return first + 1, last + 1 }
	half := func(first, last int64) (int64, int64) { return first, first + (last-first)/2 }
	more := func(first, last int64) (int64, int64) { return first, last + 5000 }
	unavailable, notFound := remote.ErrUnavailable, remote.ErrNotFound
	return []faultCase{
		{name: "none", fault: inject(nil), most: 1},
		{name: "01 range ignored", fault: inject(always(registrytest.IgnoreRange())), most: 1},
		{name: "01 range ignored once", fault: inject(once(registrytest.IgnoreRange())), most: 1},
		{name: "01 range ignored by storage", server: cdn, fault: inject(always(registrytest.IgnoreRange())), most: 2},
		{name: "02 other start", fault: inject(once(other(later))), most: 2},
		{name: "02 other start for ever", fault: inject(always(other(later))), most: 4},
		{name: "02 other total", fault: inject(once(edit("Content-Range", fmt.Sprintf("bytes %d-%d/%d", readOff, readOff+readLen-1, blobSize+1)))), most: 2},
		{name: "02 range beyond the body", fault: inject(once(edit("Content-Range", fmt.Sprintf("bytes %d-%d/%d", readOff, readOff+readLen, blobSize)))), most: 2},
		{name: "03 no Content-Range", fault: inject(once(registrytest.Header(func(h http.Header) { h.Del("Content-Range") }))), most: 2},
		{name: "03 multipart", fault: inject(always(registrytest.Multipart(nil))), most: 1},
		{name: "04 shorter", fault: inject(times(3, other(half))), most: 4},
		{name: "04 longer", fault: inject(always(other(more))), most: 1},
		{name: "05 reset in the body", fault: inject(times(3, registrytest.Reset(readLen/3))), most: 4},
		{name: "05 reset before the head", fault: inject(times(3, registrytest.Reset(-1))), most: 5},
		{name: "05 reset for ever", fault: inject(always(registrytest.Reset(-1))), most: 13, want: unavailable},
		{name: "05 reset after every few bytes", fault: inject(always(registrytest.Reset(100))), most: 6, want: unavailable},
		{name: "06 truncated", fault: inject(times(2, registrytest.Truncate(readLen/3))), most: 3},
		{name: "06 truncated after the last byte", fault: inject(once(registrytest.TruncateChunked(readLen))), most: 1},
		{name: "06 truncated without a length", fault: inject(times(2, registrytest.TruncateChunked(readLen/3))), most: 3},
		{name: "08 stall in the body", quick: true, fault: stall(readLen/2, 1), most: 2},
		{name: "08 stall after the head", quick: true, fault: stall(0, 2), most: 3},
		{name: "09 no head", quick: true, fault: stall(-1, 1), most: 2},
		{name: "09 no head from storage", server: cdn, quick: true, fault: stall(-1, 1), most: 4},
		{name: "11 idle connections closed", fault: inject(nil), before: (*registrytest.Server).CloseConnections, most: 2},
		{name: "12 token revoked", server: bearer, fault: inject(nil), before: (*registrytest.Server).RevokeTokens, most: 2, tokens: 1},
		{name: "13 expired token answered 403", server: registrytest.Options{Login: registrytest.Bearer, RefusedStatus: 403}, fault: inject(nil),
			before: (*registrytest.Server).RevokeTokens, most: 3, tokens: 1},
		{name: "13 expired token answered 400", server: registrytest.Options{Login: registrytest.Bearer, RefusedStatus: 400}, fault: inject(nil),
			before: (*registrytest.Server).RevokeTokens, most: 3, tokens: 1},
		{name: "13 denied for ever", server: bearer, fault: inject(always(registrytest.Status(403))), most: 3, tokens: 0, want: remote.ErrUnauthorized},
		{name: "14 token server answers 503", server: bearer, kind: registrytest.Token, fault: inject(times(2, registrytest.Status(503))),
			before: (*registrytest.Server).RevokeTokens, most: 6, tokens: 3},
		{name: "14 token server answers junk", server: bearer, kind: registrytest.Token, fault: inject(times(2, registrytest.Page())),
			before: (*registrytest.Server).RevokeTokens, most: 6, tokens: 3},
		{name: "14 token server says no", server: bearer, kind: registrytest.Token, fault: inject(always(registrytest.Status(401))),
			before: (*registrytest.Server).RevokeTokens, most: 2, tokens: 1, want: remote.ErrUnauthorized, all: true},
		{name: "14 token server away, address known", server: registrytest.Options{Login: registrytest.Bearer, CDN: true}, kind: registrytest.Token,
			fault: inject(always(registrytest.Status(503))), before: (*registrytest.Server).RevokeTokens, most: 1},
		{name: "16 redirect", server: cdn, fault: inject(nil), most: 1},
		{name: "17 URL expired", server: cdn, fault: inject(nil), before: (*registrytest.Server).ExpireURLs, most: 3},
		{name: "17 URL expired, answered 400", server: cdn, fault: inject(once(registrytest.Status(400))), most: 3},
		{name: "17 URL expired, answered 404", server: cdn, fault: inject(once(registrytest.Status(404))), most: 3},
		{name: "17 fresh URLs refused for ever", server: cdn, fault: inject(always(registrytest.Status(403))), most: 10, want: unavailable},
		{name: "18 relative Location", fault: inject(always(registrytest.Detour())), most: 2},
		{name: "18 redirect loop", fault: inject(always(registrytest.Redirect("?again"))), most: 18, want: unavailable},
		{name: "18 no Location", fault: inject(always(registrytest.Redirect(""))), most: 4, want: unavailable},
		{name: "18 other scheme", fault: inject(always(registrytest.Redirect("file:///etc/passwd"))), most: 4, want: unavailable},
		{name: "19 Retry-After absurd", fault: inject(always(registrytest.Status(429, "Retry-After", "99999999999999999"))), most: 2, want: unavailable, all: true},
		{name: "19 Retry-After junk", fault: inject(once(registrytest.Status(429, "Retry-After", "soon"))), most: 2},
		{name: "19 no Retry-After", fault: inject(times(3, registrytest.Status(503))), most: 4},
		{name: "20 500 twice", fault: inject(times(2, registrytest.Status(500))), most: 3},
		{name: "20 502 for ever", fault: inject(always(registrytest.Status(502))), most: 6, want: unavailable},
		{name: "20 502 from storage", server: cdn, fault: inject(times(3, registrytest.Status(502))), most: 4},
		{name: "22 web page once", fault: inject(once(registrytest.Page())), most: 2},
		{name: "22 web page for ever", fault: inject(always(registrytest.Page())), most: 4, want: unavailable},
		{name: "24 encoded", fault: inject(once(registrytest.Gzip())), most: 2, sums: true},
		{name: "24 encoded for ever", fault: inject(always(registrytest.Gzip())), most: 4, want: unavailable, sums: true},
		{name: "24 said to be encoded, and is not", fault: inject(always(edit("Content-Encoding", "gzip"))), most: 1},
		{name: "25 gone", fault: inject(always(registrytest.Status(404))), most: 2, want: notFound},
		{name: "25 gone from storage", server: cdn, fault: inject(always(registrytest.Status(410))), most: 10, want: notFound},
		{name: "25 range not satisfiable", fault: inject(always(registrytest.Status(416))), most: 2, want: unavailable},
	}
}

// testFaults runs the cases whose names begin with a number of docs/faults.md,
// or another word: each with one reader of the blob, and with several readers
// by way of a cache.
func testFaults(t *testing.T, number string) {
	t.Parallel()
	found := false
	for _, tc := range slices.Concat(faultCases(), moreFaultCases()) {
		if !strings.HasPrefix(tc.name, number+" ") && tc.name != number {
			continue
		}
		found = true
		for _, proto := range []string{"HTTP/1.1", "HTTP/2.0"} {
			if !tc.sums {
				t.Run(tc.name+"/"+proto, func(t *testing.T) {
					t.Parallel()
					testFault(t, tc, proto)
				})
			}
			t.Run(tc.name+"/cached/"+proto, func(t *testing.T) {
				t.Parallel()
				testCachedFault(t, tc, proto)
			})
		}
	}
	if !found {
		t.Errorf("there is no case of %s", number)
	}
}

func testFault(t *testing.T, tc faultCase, proto string) {
	tc.server.TLS = proto == "HTTP/2.0"
	s := registrytest.New(t, &tc.server)
	opts := fast()
	if tc.quick {
		opts.HeaderTimeout, opts.StallTimeout = 100*time.Millisecond, 100*time.Millisecond
		tc.most += 4
	}
	if strings.Contains(tc.name, "absurd") {
		opts.ReadTimeout = time.Second // and so long the server is left alone
	}
	trust(t, s, opts)
	content := noise(1, blobSize)
	b := blobOf(t, open(t, s, opts), s.PutBlob(ocispec.MediaTypeImageLayer, content))
	// The case's own reads come in the middle of a blob's life.
	if err := check(t.Context(), b, content, 0, 10); err != nil {
		t.Fatalf("read before the fault: %v", err)
	}
	if tc.before != nil {
		tc.before(s)
	}
	kind := tc.kind
	if kind == "" {
		if kind = registrytest.Blob; tc.server.CDN {
			kind = registrytest.CDN
		}
	}
	s.Inject(kind, tc.fault(s))
	s.Forget()
	err := check(t.Context(), b, content, readOff, readLen)
	if !errors.Is(err, tc.want) || err != nil && tc.want == nil {
		t.Errorf("got error %v, want %v", err, tc.want)
	}
	if err != nil && strings.Contains(err.Error(), "secret") {
		t.Errorf("the error tells a secret: %v", err)
	}
	if n := s.Count(registrytest.Blob, registrytest.CDN); n > tc.most {
		t.Errorf("got %d requests for the blob, want at most %d", n, tc.most)
	}
	if n := s.Count(registrytest.Token); n != tc.tokens {
		t.Errorf("got %d requests for tokens, want %d", n, tc.tokens)
	}
	for _, r := range s.Requests() {
		if r.Proto != proto {
			t.Errorf("a request came by %s, want %s", r.Proto, proto)
		}
		if secret := r.Header.Get("Authorization"); r.Kind == registrytest.CDN && secret != "" {
			t.Errorf("storage was sent the registry's credential")
		}
	}

	s.Inject(kind, nil)
	if err := check(t.Context(), b, content, 0, blobSize); err != nil {
		t.Errorf("read after the fault: %v", err)
	}
}

// A host that says when to come back is left alone until then, by all.
func TestFault19RetryAfter(t *testing.T) {
	for name, value := range map[string]string{
		"seconds": "1",
		"date":    time.Now().Add(3 * time.Second).UTC().Format(http.TimeFormat),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := registrytest.New(t, nil)
			content := noise(1, blobSize)
			b := blobOf(t, open(t, s, fast()), s.PutBlob(ocispec.MediaTypeImageLayer, content))
			if err := check(t.Context(), b, content, 0, 10); err != nil {
				t.Fatal(err)
			}
			s.Inject(registrytest.Blob, registrytest.Once(registrytest.Status(503, "Retry-After", value)))
			s.Forget()
			start := time.Now()
			if err := check(t.Context(), b, content, 0, 10); err != nil {
				t.Error(err)
			}
			if d := time.Since(start); d < 900*time.Millisecond || d > 10*time.Second {
				t.Errorf("Retry-After %s: came back after %s", value, d)
			}
			if n := s.Count(registrytest.Blob); n != 2 {
				t.Errorf("got %d requests, want 2", n)
			}
		})
	}
}

func TestFault19HoldsAll(t *testing.T) {
	testenv.Slow(t)
	t.Parallel()
	s := registrytest.New(t, nil)
	content := noise(1, blobSize)
	b := blobOf(t, open(t, s, fast()), s.PutBlob(ocispec.MediaTypeImageLayer, content))
	s.Inject(registrytest.Blob, registrytest.Once(registrytest.Status(429, "Retry-After", "1")))
	readers(t, 20, func(i int) error { return check(t.Context(), b, content, i*1000, 1000) })
	// All wait for the first, which finds out where the blob is.
	if n := s.Count(registrytest.Blob); n != 21 {
		t.Errorf("20 readers made %d requests, want 21", n)
	}
}

// readers runs f for n readers at the same time.
func readers(t *testing.T, n int, f func(i int) error) {
	t.Helper()
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			if err := f(i); err != nil {
				t.Errorf("reader %d: %v", i, err)
			}
		})
	}
	wg.Wait()
}

// 10: the server is away, and comes back.
func TestFault10Outage(t *testing.T) {
	testenv.Slow(t)
	t.Parallel()
	content := noise(1, blobSize)
	s := registrytest.New(t, nil)
	desc := s.PutBlob(ocispec.MediaTypeImageLayer, content)
	addr := s.Host()
	r := open(t, s, fast())
	b := blobOf(t, r, desc)
	if err := check(t.Context(), b, content, 0, 10); err != nil {
		t.Fatal(err)
	}
	s.Close()
	// Who resolves an image is told soon.
	start := time.Now()
	if _, err := r.Resolve(t.Context()); !errors.Is(err, remote.ErrUnavailable) {
		t.Errorf("Resolve without a server: got error %v, want %v", err, remote.ErrUnavailable)
	}
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("Resolve without a server took %s", d)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := b.ReadAt(ctx, make([]byte, 10), 0); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("read without a server: got error %v, want that it waits", err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := check(t.Context(), b, content, 0, readLen); err != nil {
			t.Errorf("read over an outage: %v", err)
		}
	})
	time.Sleep(100 * time.Millisecond)
	back := registrytest.New(t, &registrytest.Options{Addr: addr})
	back.PutBlob(ocispec.MediaTypeImageLayer, content)
	wg.Wait()
}

func TestFault10OutageEnds(t *testing.T) {
	testenv.Slow(t)
	t.Parallel()
	s := registrytest.New(t, nil)
	desc := s.PutBlob(ocispec.MediaTypeImageLayer, noise(1, 100))
	opts := fast()
	opts.ReadTimeout = 500 * time.Millisecond
	b := blobOf(t, open(t, s, opts), desc)
	s.Close()
	start := time.Now()
	if _, err := b.ReadAt(t.Context(), make([]byte, 10), 0); !errors.Is(err, remote.ErrUnavailable) {
		t.Errorf("got error %v, want %v", err, remote.ErrUnavailable)
	}
	if d := time.Since(start); d < 200*time.Millisecond || d > 5*time.Second {
		t.Errorf("gave up after %s, want about 500ms", d)
	}
}

// All readers of a registry that never answers give up in their time, also
// those who wait for another to find out where the blob is.
func TestFault09Silence(t *testing.T) {
	testenv.Slow(t)
	t.Parallel()
	s := registrytest.New(t, nil)
	opts := fast()
	opts.HeaderTimeout, opts.ReadTimeout = 200*time.Millisecond, 500*time.Millisecond
	r := open(t, s, opts)
	b := blobOf(t, r, s.PutBlob(ocispec.MediaTypeImageLayer, noise(1, 100)))
	if _, err := r.Tags(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.Inject(registrytest.Blob, registrytest.Always(s.Stall(-1)))
	start := time.Now()
	readers(t, 20, func(i int) error {
		if _, err := b.ReadAt(t.Context(), make([]byte, 10), 0); !errors.Is(err, remote.ErrUnavailable) {
			return fmt.Errorf("got error %w, want %w", err, remote.ErrUnavailable)
		}
		return nil
	})
	if d := time.Since(start); d > 2*time.Second {
		t.Errorf("20 readers gave up after %s, want about 500ms", d)
	}
}

// Who has the bytes asked for does not wait for others.
func TestFault04SurplusStalls(t *testing.T) {
	t.Parallel()
	s := registrytest.New(t, nil)
	content := noise(1, blobSize)
	b := blobOf(t, open(t, s, fast()), s.PutBlob(ocispec.MediaTypeImageLayer, content))
	more := registrytest.OtherRange(func(first, last int64) (int64, int64) { return first, last + 5000 })
	s.Inject(registrytest.Blob, registrytest.Always(func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		more(w, r, func(w http.ResponseWriter, r *http.Request) { s.Stall(readLen+10)(w, r, serve) })
	}))
	start := time.Now()
	if err := check(t.Context(), b, content, readOff, readLen); err != nil {
		t.Error(err)
	}
	if d := time.Since(start); d > 3*time.Second {
		t.Errorf("took %s", d)
	}
}
