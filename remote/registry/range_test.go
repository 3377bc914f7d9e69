package registry_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache"
	"github.com/imgfs/imgfs/remote/registry"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
)

// ranged makes a fault of requests for a range.
func ranged(f registrytest.Fault) registrytest.Fault {
	return func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		if r.Header.Get("Range") != "" {
			f(w, r, serve)
			return
		}
		serve(w, r)
	}
}

// blobKind is the kind of request that brings bytes of blobs.
func blobKind(o registrytest.Options) registrytest.Kind {
	if o.CDN {
		return registrytest.CDN
	}
	return registrytest.Blob
}

// 29: ranges are refused in whatever way, by the registry or by its storage, and
// the whole is served. It is asked for once, and the next blob is not asked for
// a range any more.
func TestFault29RangeRefused(t *testing.T) {
	t.Parallel()
	for _, status := range []int{400, 401, 402, 403, 404, 405, 406, 409, 410, 412, 416, 418, 422, 451, 501} {
		for _, cdn := range []bool{false, true} {
			if status == 401 && !cdn {
				continue // that is to want a login
			}
			for _, proto := range []string{"HTTP/1.1", "HTTP/2.0"} {
				t.Run(fmt.Sprintf("%d/storage %t/%s", status, cdn, proto), func(t *testing.T) {
					t.Parallel()
					server := registrytest.Options{CDN: cdn, TLS: proto == "HTTP/2.0"}
					s, opts := registrytest.New(t, &server), fast()
					trust(t, s, opts)
					kind := blobKind(server)
					s.Inject(kind, registrytest.Always(ranged(registrytest.Status(status))))
					r := open(t, s, opts)
					disk := openCache(t, t.TempDir(), nil)
					for i, most := range []int{2, 1} {
						s.Forget()
						content := noise(byte(i), blobSize)
						b := cachedOf(t, disk, blobOf(t, r, s.PutBlob(ocispec.MediaTypeImageLayer, content)), content)
						readers(t, 4, func(i int) error { return check(t.Context(), b, content, readOff+1000*i, 1000) })
						if err := check(t.Context(), b, content, 0, blobSize); err != nil {
							t.Error(err)
						}
						if n := s.Count(kind); n > most {
							t.Errorf("blob %d: got %d requests, want at most %d", i, n, most)
						}
					}
					// Nor by another way of reading.
					s.Forget()
					content := noise(9, blobSize)
					stream := remote.NewStream(t.Context(), blobOf(t, r, s.PutBlob(ocispec.MediaTypeImageLayer, content)), nil)
					defer stream.Close()
					if got, err := io.ReadAll(stream); err != nil || !bytes.Equal(got, content) {
						t.Errorf("a pass: %d bytes and error %v", len(got), err)
					}
					if n := s.Count(kind); n != 1 {
						t.Errorf("a pass: got %d requests, want 1", n)
					}
				})
			}
		}
	}
}

// A pass that begins with a range that is refused reads the blob by one request
// more.
func TestRangeRefusedPass(t *testing.T) {
	for _, server := range []registrytest.Options{{}, {CDN: true}, {Login: registrytest.Bearer}} {
		s := registrytest.New(t, &server)
		content := noise(1, 3<<20)
		s.Inject(blobKind(server), registrytest.Always(ranged(registrytest.Status(403))))
		stream := remote.NewStream(t.Context(), blobOf(t, open(t, s, fast()), s.PutBlob(ocispec.MediaTypeImageLayer, content)), nil)
		got, err := io.ReadAll(stream)
		stream.Close()
		if err != nil || !bytes.Equal(got, content) {
			t.Errorf("%+v: %d bytes and error %v", server, len(got), err)
		}
		if n := s.Count(blobKind(server)); n > 3 { // one more without a token
			t.Errorf("%+v: got %d requests, want 2", server, n)
		}
	}
}

// A server whose answers to ranges are of no use is asked for the whole at last.
func TestRangeAnswersOfNoUse(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]registrytest.Fault{
		"no Content-Range":      registrytest.Header(noRange),
		"always from the start": registrytest.OtherRange(func(first, last int64) (int64, int64) { return 0, last - first }),
		"other total":           registrytest.Header(otherTotal),
		"no answer in 206":      registrytest.Status(206),
		"no answer in 200":      registrytest.Status(200),
		"no answer in 204":      registrytest.Status(204),
		"redirect to nowhere":   registrytest.Redirect(""),
		"redirect elsewhere":    registrytest.Redirect("ftp://h.example/x"),
		"web page": func(w http.ResponseWriter, _ *http.Request, _ http.HandlerFunc) {
			w.Header().Set("Content-Type", "text/html")
			fmt.Fprint(w, "<html><title>Firewall</title>")
		},
	} {
		s := registrytest.New(t, nil)
		content := noise(1, blobSize)
		s.Inject(registrytest.Blob, registrytest.Always(ranged(f)))
		b := blobOf(t, open(t, s, fast()), s.PutBlob(ocispec.MediaTypeImageLayer, content))
		if err := check(t.Context(), b, content, readOff, readLen); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if n := s.Count(registrytest.Blob); n > 4 {
			t.Errorf("%s: got %d requests, want at most 4", name, n)
		}
	}
}

// A server that breaks at each range, and never served one, is asked for the whole
// at last.
func TestRangeBreaksServer(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]registrytest.Fault{
		"500": registrytest.Status(500), "520": registrytest.Status(520), "502": registrytest.Status(502), "closed": abort, "reset": registrytest.Reset(-1),
	} {
		for _, server := range []registrytest.Options{{}, {CDN: true}} {
			s := registrytest.New(t, &server)
			content := noise(1, blobSize)
			s.Inject(blobKind(server), registrytest.Always(ranged(f)))
			r := open(t, s, fast())
			for i := range 2 {
				b := cachedOf(t, openCache(t, t.TempDir(), nil), blobOf(t, r, s.PutBlob(ocispec.MediaTypeImageLayer, content)), content)
				if err := check(t.Context(), b, content, readOff, readLen); err != nil {
					t.Errorf("%s, %+v, read %d: %v", name, server, i, err)
				}
			}
			if n := s.Count(blobKind(server)); n > 16 { // of a broken connection net/http asks again
				t.Errorf("%s, %+v: got %d requests", name, server, n)
			}
		}
	}
}

// The whole is not got for a hiccup of a server that serves ranges, nor for what
// is refused for another reason.
func TestRangeRefusedOnce(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		server registrytest.Options
		fault  func(int) registrytest.Fault
		before func(*registrytest.Server)
		want   error
		most   int
	}{
		"400 twice":          {fault: registrytest.Times(2, registrytest.Status(400)), most: 3},
		"URL expired":        {server: registrytest.Options{CDN: true}, before: (*registrytest.Server).ExpireURLs, most: 2},
		"503":                {fault: registrytest.Times(3, registrytest.Status(503)), most: 4},
		"429":                {fault: registrytest.Times(3, registrytest.Status(429)), most: 4},
		"gone":               {fault: registrytest.Always(registrytest.Status(404)), want: remote.ErrNotFound, most: 2},
		"denied":             {fault: registrytest.Always(registrytest.Status(403)), want: remote.ErrUnauthorized, most: 2},
		"wants a login":      {fault: registrytest.Always(registrytest.Status(401)), want: remote.ErrUnauthorized, most: 1},
		"another size":       {fault: registrytest.Always(ranged(registrytest.Status(416))), want: remote.ErrUnavailable, most: 6},
		"gone from storage":  {server: registrytest.Options{CDN: true}, fault: registrytest.Always(registrytest.Status(404)), want: remote.ErrNotFound, most: 5},
		"refused by storage": {server: registrytest.Options{CDN: true}, fault: registrytest.Always(registrytest.Status(403)), want: remote.ErrUnavailable, most: 5},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := registrytest.New(t, &tc.server)
			content := noise(1, blobSize)
			desc := s.PutBlob(ocispec.MediaTypeImageLayer, content)
			b := blobOf(t, open(t, s, fast()), desc)
			if err := check(t.Context(), b, content, 0, 10); err != nil {
				t.Fatal(err)
			}
			if tc.before != nil {
				tc.before(s)
			}
			if name == "another size" {
				s.ReplaceBlob(desc.Digest, content[1:])
			}
			kind := blobKind(tc.server)
			s.Inject(kind, tc.fault)
			s.Forget()
			err := check(t.Context(), b, content, readOff, readLen)
			if !errors.Is(err, tc.want) || tc.want == nil && err != nil {
				t.Errorf("got error %v, want %v", err, tc.want)
			}
			if n := s.Count(kind); n > tc.most {
				t.Errorf("got %d requests, want at most %d", n, tc.most)
			}
			if n := s.Bytes(kind); tc.want == nil && n > 2*readLen {
				t.Errorf("got %d bytes, which is more than the range", n)
			}
		})
	}
}

// A reader that comes later, with nothing in memory of the server, as a mount
// that is made of what the cache knows.
func TestRangeRefusedLater(t *testing.T) {
	for _, budget := range []int64{0, 256 << 10} {
		s := registrytest.New(t, nil)
		content := noise(1, 1<<20)
		desc := s.PutBlob(ocispec.MediaTypeImageLayer, content)
		s.Inject(registrytest.Blob, registrytest.Always(ranged(registrytest.Status(416))))
		disk := openCache(t, t.TempDir(), &cache.Options{Budget: budget})
		b := cachedOf(t, disk, blobOf(t, open(t, s, fast()), desc), content)
		for _, off := range []int{900_000, 100_000} {
			if err := check(t.Context(), b, content, off, 10_000); err != nil {
				t.Errorf("budget %d, from %d: %v", budget, off, err)
			}
		}
		if n := s.Count(registrytest.Blob); n > 3 {
			t.Errorf("budget %d: got %d requests", budget, n)
		}
	}
}

// Bytes that are said to be encoded, or a web page, are what they are.
func TestBlobLabels(t *testing.T) {
	t.Parallel()
	set := func(pairs ...string) registrytest.Fault {
		return registrytest.Header(func(h http.Header) {
			for i := 0; i < len(pairs); i += 2 {
				if h.Set(pairs[i], pairs[i+1]); pairs[i+1] == "" {
					h[pairs[i]] = nil
				}
			}
		})
	}
	for name, f := range map[string]registrytest.Fault{
		"gzip":                 set("Content-Encoding", "gzip"),
		"zstd, whole":          whole(set("Content-Encoding", "zstd")),
		"identity":             set("Content-Encoding", "Identity"),
		"text/html":            set("Content-Type", "text/html"),
		"text/html, whole":     whole(set("Content-Type", "text/html; charset=utf-8")),
		"text/html, no length": whole(set("Content-Type", "text/html", "Content-Length", "")),
		"no type":              set("Content-Type", ""),
		"a bad type":           whole(set("Content-Type", "/;;")),
		"another digest":       set("Docker-Content-Digest", "sha256:0"),
		"another Etag":         set("Etag", "\"0\""),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := registrytest.New(t, nil)
			content := noise(1, blobSize)
			s.Inject(registrytest.Blob, registrytest.Always(f))
			b := cachedOf(t, openCache(t, t.TempDir(), nil), blobOf(t, open(t, s, fast()), s.PutBlob(ocispec.MediaTypeImageLayer, content)), content)
			if err := check(t.Context(), b, content, readOff, readLen); err != nil {
				t.Error(err)
			}
			if n := s.Count(registrytest.Blob); n != 1 {
				t.Errorf("got %d requests, want 1", n)
			}
		})
	}
	for name, tc := range map[string]struct {
		fault registrytest.Fault
		want  string
	}{
		"encoded":        {registrytest.Gzip(), "Content-Encoding: gzip"},
		"encoded, whole": {whole(registrytest.Gzip()), "Content-Encoding: gzip"},
		"a page":         {registrytest.Page(), "a web page"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := registrytest.New(t, nil)
			content := noise(1, blobSize)
			s.Inject(registrytest.Blob, registrytest.Always(tc.fault))
			b := cachedOf(t, openCache(t, t.TempDir(), nil), blobOf(t, open(t, s, fast()), s.PutBlob(ocispec.MediaTypeImageLayer, content)), content)
			err := check(t.Context(), b, content, readOff, readLen)
			if err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "wrong bytes") {
				t.Errorf("got error %v, want one that says %q", err, tc.want)
			}
		})
	}
}

// What is remembered of a server is about that server, and ends.
func TestRangesAreAskedForAgain(t *testing.T) {
	t.Parallel()
	s, other := registrytest.New(t, nil), registrytest.New(t, nil)
	opts := fast()
	opts.RangeRest = 50 * time.Millisecond
	client := registry.New(opts)
	defer client.Close()
	content := noise(1, blobSize)
	s.Inject(registrytest.Blob, registrytest.Once(registrytest.Status(403)))
	for i, want := range []struct {
		s       *registrytest.Server
		pause   time.Duration
		request int
		bytes   int64
	}{
		{s: s, request: 2, bytes: blobSize}, {s: other, request: 1, bytes: 1000},
		{s: s, pause: 100 * time.Millisecond, request: 1, bytes: 1000},
	} {
		time.Sleep(want.pause)
		want.s.Forget()
		desc := want.s.PutBlob(ocispec.MediaTypeImageLayer, content)
		b := blobOf(t, client.Repository(remote.Reference{Registry: want.s.Host(), Repository: fmt.Sprint("app", i)}), desc)
		if err := check(t.Context(), b, content, blobSize-1000, 1000); err != nil {
			t.Error(err)
		}
		if n, m := want.s.Count(registrytest.Blob), want.s.Bytes(registrytest.Blob); n != want.request || m < want.bytes || m > want.bytes+200 {
			t.Errorf("read %d: got %d requests and %d bytes, want %d and %d", i, n, m, want.request, want.bytes)
		}
	}
}
