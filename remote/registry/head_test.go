package registry_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/registry"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
)

// headOnly makes a fault of requests with HEAD.
func headOnly(f registrytest.Fault) func(int) registrytest.Fault {
	return registrytest.Always(func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		if r.Method == http.MethodHead {
			f(w, r, serve)
			return
		}
		serve(w, r)
	})
}

// putImage puts an image with one layer behind the tag app:latest, whose parts
// edit may change.
func putImage(s *registrytest.Server, edit func(m *ocispec.Manifest)) (top ocispec.Descriptor) {
	layer := s.PutBlob(ocispec.MediaTypeImageLayer, noise(3, 1000))
	config := s.PutBlob(ocispec.MediaTypeImageConfig, fmt.Appendf(nil, `{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":["%s"]}}`, layer.Digest))
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Config: config, Layers: []ocispec.Descriptor{layer}}
	m.SchemaVersion = 2
	if edit != nil {
		edit(&m)
	}
	data, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	top = s.PutManifest(ocispec.MediaTypeImageManifest, data)
	s.Tag("app", "latest", top.Digest)
	return top
}

// unspoken returns the address of a server that closes all connections.
func unspoken(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conn.Close()
		}
	}()
	return l.Addr().String()
}

// 28: HEAD is refused in whatever way, and GET is served.
func TestFault28HeadRefused(t *testing.T) {
	t.Parallel()
	header := func(edit func(http.Header)) func(*registrytest.Server) registrytest.Fault {
		return just(registrytest.Header(edit))
	}
	type refusal struct {
		name  string
		fault func(*registrytest.Server) registrytest.Fault
		more  int // requests with HEAD besides the first
	}
	refusals := []refusal{
		{name: "429 for an hour", fault: just(registrytest.Status(429, "Retry-After", "3600"))},
		{name: "503 for an hour", fault: just(registrytest.Status(503, "Retry-After", "3600"))},
		{name: "redirect to nowhere", fault: just(registrytest.Redirect(""))},
		{name: "redirect to a file", fault: just(registrytest.Redirect("file:///etc/passwd"))},
		{name: "redirect to where nobody is", fault: just(registrytest.Redirect("http://127.0.0.1:1/x"))},
		{name: "redirect to what is no server", fault: just(registrytest.Redirect("https://" + unspoken(t) + "/x"))},
		{name: "redirect loop", fault: just(registrytest.Redirect("?again")), more: 5},
		{name: "connection reset", fault: just(registrytest.Reset(-1)), more: 1}, // net/http asks again
		{name: "connection closed", fault: just(abort), more: 1},
		{name: "no answer", fault: func(s *registrytest.Server) registrytest.Fault { return s.Stall(-1) }},
		{name: "401 of another kind", fault: just(registrytest.Status(401, "WWW-Authenticate", "Negotiate"))},
		{name: "401 for nobody", fault: just(registrytest.Status(401, "WWW-Authenticate", `Basic realm="x"`))},
		{name: "401 without a realm", fault: just(registrytest.Status(401, "WWW-Authenticate", "Bearer"))},
		{name: "401 with half a realm", fault: just(registrytest.Status(401, "WWW-Authenticate", `Bearer realm="/token"`))},
		{name: "no length", fault: header(func(h http.Header) { h.Del("Content-Length") })},
		{name: "length 0", fault: header(func(h http.Header) { h.Set("Content-Length", "0") })},
		{name: "absurd length", fault: header(func(h http.Header) { h.Set("Content-Length", "100000000000") })},
		{name: "no digest", fault: header(func(h http.Header) { h.Del("Docker-Content-Digest") })},
		{name: "digest of an unknown kind", fault: header(func(h http.Header) { h.Set("Docker-Content-Digest", "md5:d41d8cd98f00b204e9800998ecf8427e") })},
		{name: "no type", fault: header(func(h http.Header) { h["Content-Type"] = nil })},
		{name: "another type", fault: header(func(h http.Header) { h.Set("Content-Type", "text/html; charset=utf-8") })},
	}
	for _, status := range []int{204, 304, 400, 401, 402, 403, 404, 405, 406, 408, 410, 415, 418, 429, 451, 500, 501, 502, 503, 504, 530} {
		refusals = append(refusals, refusal{name: fmt.Sprint(status), fault: just(registrytest.Status(status))})
	}
	for _, tc := range refusals {
		for _, proto := range []string{"HTTP/1.1", "HTTP/2.0"} {
			t.Run(tc.name+"/"+proto, func(t *testing.T) {
				t.Parallel()
				s := registrytest.New(t, &registrytest.Options{TLS: proto == "HTTP/2.0"})
				opts := fast()
				if opts.HeaderTimeout = 5 * time.Second; tc.name == "no answer" {
					opts.HeaderTimeout = 100 * time.Millisecond
				}
				trust(t, s, opts)
				want := putImage(s, nil)
				s.Inject(registrytest.Manifest, headOnly(tc.fault(s)))
				client := registry.New(opts)
				defer client.Close()
				begun := time.Now()
				img, err := remote.Open(t.Context(), client.Repository(reference(s)), "linux/amd64")
				if err != nil || img.Top.Digest != want.Digest || img.Top.Size != want.Size || img.Top.MediaType != want.MediaType {
					t.Fatalf("got %+v and error %v, want %+v", img, err, want)
				}
				if d := time.Since(begun); d > 5*time.Second {
					t.Errorf("took %s", d)
				}
				heads := 0
				for _, r := range s.Requests(registrytest.Manifest) {
					if r.Method == http.MethodHead {
						heads++
					}
				}
				if n := s.Count(registrytest.Manifest); heads > 1+tc.more || n-heads != 1 {
					t.Errorf("got %d requests, %d with HEAD, want one of each", n, heads)
				}
				// The server is not asked so again, for whatever image.
				s.Forget()
				s.Tag("other", "1", want.Digest)
				other := client.Repository(remote.Reference{Registry: s.Host(), Repository: "other", Tag: "1"})
				if _, err := remote.Open(t.Context(), other, "linux/amd64"); err != nil {
					t.Error(err)
				}
				if all := s.Requests(registrytest.Manifest); len(all) != 1 || all[0].Method != http.MethodGet {
					t.Errorf("another image: got requests %+v, want one GET", all)
				}
				for _, state := range client.Health() {
					if state.Down {
						t.Errorf("%s counts as down: %s", state.Host, state.Reason)
					}
				}
			})
		}
	}
}

// What GET is refused with counts, with what the registry says of it, and
// requests are not multiplied.
func TestHeadAndGetRefused(t *testing.T) {
	for _, tc := range []struct {
		status int
		want   error
		most   int
	}{
		{401, remote.ErrUnauthorized, 2}, {403, remote.ErrUnauthorized, 2}, {404, remote.ErrNotFound, 2}, {410, remote.ErrNotFound, 2},
		{429, remote.ErrUnavailable, 7}, {500, remote.ErrUnavailable, 7}, {400, remote.ErrUnavailable, 4},
	} {
		s := registrytest.New(t, nil)
		putImage(s, nil)
		s.Inject(registrytest.Manifest, registrytest.Always(registrytest.Status(tc.status)))
		_, err := open(t, s, fast()).Resolve(t.Context())
		if !errors.Is(err, tc.want) || !strings.Contains(err.Error(), fmt.Sprint(tc.status)) || !strings.Contains(err.Error(), ": an injected fault") {
			t.Errorf("%d: got error %v, want %v with what the registry says", tc.status, err, tc.want)
		}
		if n := s.Count(registrytest.Manifest); n > tc.most {
			t.Errorf("%d: got %d requests, want at most %d", tc.status, n, tc.most)
		}
	}
	// Nobody asks a server that is not there in another way.
	s := registrytest.New(t, nil)
	opts := fast()
	dials := 0
	opts.Logf = func(format string, args ...any) { dials++ }
	r := open(t, s, opts)
	s.Close()
	if _, err := r.Resolve(t.Context()); !errors.Is(err, remote.ErrUnavailable) {
		t.Errorf("no server: got error %v", err)
	}
	if dials > 2 {
		t.Errorf("no server: asked again %d times, want 2", dials)
	}
}

// portal answers as who wants to be paid for the network.
func portal(w http.ResponseWriter, r *http.Request, _ http.HandlerFunc) {
	w.Header().Set("Content-Type", "text/html")
	fmt.Fprint(w, "<!DOCTYPE html><html><head><title>Log in</title></head></html>")
}

// 30: what answers say of themselves is not believed against digests.
func TestFault30Labels(t *testing.T) {
	t.Parallel()
	always := registrytest.Always
	header := func(name, value string) registrytest.Fault {
		return registrytest.Header(func(h http.Header) { h.Set(name, value) })
	}
	other := digest.FromString("other").String()
	edit := func(edit func(*ocispec.Manifest)) func(*registrytest.Server) {
		return func(s *registrytest.Server) { putImage(s, edit) }
	}
	for _, tc := range []struct {
		name     string
		put      func(*registrytest.Server) // default: putImage
		manifest func(int) registrytest.Fault
		blob     func(int) registrytest.Fault
		warns    string
		refused  string // what the error says; default: none
	}{
		{name: "HEAD has another length", manifest: headOnly(header("Content-Length", "17"))},
		{name: "HEAD has a larger length", manifest: headOnly(header("Content-Length", "100000"))},
		{name: "HEAD has another digest", manifest: headOnly(header("Docker-Content-Digest", other))},
		{name: "both have another digest", manifest: always(header("Docker-Content-Digest", other)), warns: "its digest is " + other},
		{name: "digests of another algorithm", manifest: always(header("Docker-Content-Digest", digest.SHA512.FromString("other").String())), warns: "sha512:"},
		{name: "manifest that is not served by its digest", manifest: always(func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
			if strings.Contains(r.URL.Path, "sha256:") {
				registrytest.Status(404)(w, r, serve)
				return
			}
			serve(w, r)
		})},
		{name: "a web page for a manifest", manifest: always(portal), refused: `the answer is a web page, "Log in"`},
		{name: "a web page for a config", blob: always(portal), refused: `it is a web page, "Log in"`},
		{name: "manifest said to be encoded", manifest: always(header("Content-Encoding", "gzip"))},
		{name: "config said to be encoded", blob: always(header("Content-Encoding", "gzip"))},
		{name: "manifest encoded", manifest: always(registrytest.Gzip()), refused: "Content-Encoding: gzip"},
		{name: "config encoded", blob: always(registrytest.Gzip()), refused: "Content-Encoding: gzip"},
		{name: "manifest of type text/html", manifest: always(header("Content-Type", "text/html"))},
		{name: "config of type text/html", blob: always(header("Content-Type", "text/html; charset=utf-8"))},
		{name: "config without a type", blob: always(registrytest.Header(func(h http.Header) { h["Content-Type"] = nil }))},
		{name: "config said to be larger", put: edit(func(m *ocispec.Manifest) { m.Config.Size++ }), warns: "its digest decides"},
		{name: "config said to be smaller", put: edit(func(m *ocispec.Manifest) { m.Config.Size = 3 }), warns: "is said to have 3 bytes"},
		{name: "config is another", blob: always(registrytest.FlipBit()), refused: "what comes has digest"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := registrytest.New(t, nil)
			if tc.put == nil {
				putImage(s, nil)
			} else {
				tc.put(s)
			}
			s.Inject(registrytest.Manifest, tc.manifest)
			s.Inject(registrytest.Blob, tc.blob)
			opts := fast()
			var log lines
			opts.Warnf = log.printf
			img, err := remote.Open(t.Context(), open(t, s, opts), "linux/amd64")
			switch {
			case tc.refused != "":
				if err == nil || !strings.Contains(err.Error(), tc.refused) {
					t.Errorf("got error %v, want one that says %q", err, tc.refused)
				}
			case err != nil:
				t.Error(err)
			case img.Top.Size != int64(len(img.Raw)) || img.Top.Digest != digest.FromBytes(img.Raw):
				t.Errorf("got %+v of %d bytes with digest %s", img.Top, len(img.Raw), digest.FromBytes(img.Raw))
			}
			if img != nil {
				log.printf("%s", strings.Join(img.Warnings, "\n"))
			}
			if text := strings.TrimSpace(log.all()); (text == "") != (tc.warns == "") || !strings.Contains(text, tc.warns) {
				t.Errorf("got warnings %q, want %q", text, tc.warns)
			}
		})
	}
}

// A tag that a damaged answer came for is asked for once more, and what comes
// then counts.
func TestTagDamagedOnItsWay(t *testing.T) {
	s := registrytest.New(t, nil)
	want := putImage(s, nil)
	s.Inject(registrytest.Manifest, func(n int) registrytest.Fault {
		switch n {
		case 1:
			return registrytest.Status(405)
		case 2:
			return registrytest.FlipBit()
		}
		return nil
	})
	opts := fast()
	var log lines
	opts.Warnf = log.printf
	got, err := open(t, s, opts).Resolve(t.Context())
	if err != nil || got.Digest != want.Digest || log.all() != "" {
		t.Errorf("got %s, error %v and warnings %q, want %s", got.Digest, err, log.all(), want.Digest)
	}
}

// A tag that moves between HEAD and GET is what it is then.
func TestTagMoves(t *testing.T) {
	s := registrytest.New(t, nil)
	old := putImage(s, nil)
	r := open(t, s, fast())
	s.Inject(registrytest.Manifest, func(n int) registrytest.Fault {
		if n > 2 {
			return nil
		}
		return registrytest.Header(func(h http.Header) {
			if n == 1 {
				h.Set("Docker-Content-Digest", digest.FromString("removed since").String())
			}
		})
	})
	img, err := remote.Open(t.Context(), r, "linux/amd64")
	if err != nil || img.Top.Digest != old.Digest {
		t.Errorf("got %+v and error %v, want %s", img, err, old.Digest)
	}
}
