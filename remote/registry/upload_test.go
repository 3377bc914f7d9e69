package registry_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/remote/registry"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
)

const pushedSize = 1 << 20

// descriptorOf describes a blob.
func descriptorOf(content []byte) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: "application/octet-stream", Digest: digest.FromBytes(content), Size: int64(len(content))}
}

// writable starts a registry that wants tokens and takes uploads.
func writable(t *testing.T, change func(*registrytest.Options)) (*registrytest.Server, *registry.Options) {
	t.Helper()
	o := &registrytest.Options{Login: registrytest.Bearer, Writable: true}
	if change != nil {
		change(o)
	}
	s := registrytest.New(t, o)
	opts := fast()
	trust(t, s, opts)
	return s, opts
}

// nth is a fault of the nth request alone.
func nth(n int, f registrytest.Fault) func(int) registrytest.Fault {
	return func(i int) registrytest.Fault {
		if i == n {
			return f
		}
		return nil
	}
}

// first makes of a function a fault that answers rightly after it.
func first(f func()) registrytest.Fault {
	return func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		f()
		serve(w, r)
	}
}

// onward sends a request to the same resource by another URL.
func onward(status int) registrytest.Fault {
	return func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		u := *r.URL
		query := u.Query()
		query.Set("onward", "1")
		u.RawQuery = query.Encode()
		w.Header().Set("Location", u.String())
		w.WriteHeader(status)
	}
}

// Whatever breaks in the middle of an upload, the blob arrives, and what the
// registry has is not sent again.
func TestUpload(t *testing.T) {
	type server = *registrytest.Server
	faults := map[string]func(s server) registrytest.Fault{
		"none":              func(s server) registrytest.Fault { return nil },
		"reset in the body": func(s server) registrytest.Fault { return registrytest.ResetBody(30_000) },
		"reset at once":     func(s server) registrytest.Fault { return registrytest.Reset(-1) },
		"done, no answer":   func(s server) registrytest.Fault { return registrytest.Unanswered() },
		"stall in the body": func(s server) registrytest.Fault { return s.StallBody(30_000) },
		"429":               func(s server) registrytest.Fault { return registrytest.Status(429, "Retry-After", "1") },
		"503":               func(s server) registrytest.Fault { return registrytest.Status(503, "Retry-After", "1") },
		"500":               func(s server) registrytest.Fault { return registrytest.Status(500) },
		"the token ends":    func(s server) registrytest.Fault { return first(s.RevokeTokens) },
		"the session ends":  func(s server) registrytest.Fault { return first(s.ForgetUploads) },
		"307":               func(s server) registrytest.Fault { return onward(307) },
		"308":               func(s server) registrytest.Fault { return onward(308) },
		"reset of the token": func(s server) registrytest.Fault {
			return func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
				s.RevokeTokens()
				s.Inject(registrytest.Token, registrytest.Once(registrytest.Reset(-1)))
				serve(w, r)
			}
		},
	}
	content := noise(9, pushedSize)
	for name, fault := range faults {
		for _, chunk := range []int64{0, pushedSize / 4} {
			for _, tls := range []bool{false, true} {
				for n := 1; n <= 6; n++ {
					if n > 2 && chunk == 0 || n == 6 && strings.HasPrefix(name, "stall") || name == "none" && n > 1 || tls && n != 2 || testing.Short() && (n != 2 || tls || chunk == 0) {
						continue
					}
					t.Run(fmt.Sprintf("%s/chunk %d, request %d, TLS %t", name, chunk, n, tls), func(t *testing.T) {
						t.Parallel()
						s, opts := writable(t, func(o *registrytest.Options) { o.TLS = tls })
						if strings.HasPrefix(name, "stall") {
							opts.HeaderTimeout, opts.ReadTimeout = 500*time.Millisecond, 3*time.Second
						}
						desc := descriptorOf(content)
						r := loggedIn(t, s, opts)
						if f := fault(s); f != nil {
							s.Inject(registrytest.Upload, nth(n, f))
						}
						begun := time.Now()
						if err := r.PutBlob(t.Context(), desc, bytes.NewReader(content), &registry.PutOptions{Chunk: chunk}); err != nil {
							t.Fatal(err)
						}
						if took := time.Since(begun); (name == "429" || name == "503") && took < 900*time.Millisecond {
							t.Errorf("asked again after %s, and Retry-After is 1 s", took)
						}
						if err := check(t.Context(), blobOf(t, r, desc), content, 0, len(content)); err != nil {
							t.Error(err)
						}
						var received int64
						for _, rec := range s.Requests(registrytest.Upload) {
							received += rec.Received
						}
						most := int64(pushedSize + pushedSize/4 + 4<<10)
						if chunk == 0 || name == "the session ends" || n == 6 {
							most = 2*pushedSize + 4<<10 // from the beginning
						}
						if received > most {
							t.Errorf("%d bytes were received of %d", received, pushedSize)
						}
					})
				}
			}
		}
	}
}

// loggedIn returns a repository with a token to write, as it is after an upload.
func loggedIn(t *testing.T, s *registrytest.Server, opts *registry.Options) *registry.Repository {
	t.Helper()
	r := open(t, s, opts)
	if err := r.PutBlob(t.Context(), descriptorOf([]byte("x")), strings.NewReader("x"), nil); err != nil {
		t.Fatal(err)
	}
	s.Forget()
	return r
}

// What the registry does not take is no blob of it, and is not sent again.
func TestUploadWrong(t *testing.T) {
	content := noise(9, 100_000)
	for _, chunk := range []int64{0, 60_000} {
		s, opts := writable(t, nil)
		r := loggedIn(t, s, opts)
		s.Inject(registrytest.Upload, nth(2, registrytest.FlipBodyBit()))
		desc := descriptorOf(content)
		err := r.PutBlob(t.Context(), desc, bytes.NewReader(content), &registry.PutOptions{Chunk: chunk})
		if err == nil || !strings.Contains(err.Error(), "digest did not match") {
			t.Errorf("chunk %d: got error %v", chunk, err)
		}
		if n := len(puts(s, http.MethodPost)); n != 1 {
			t.Errorf("chunk %d: begun %d times", chunk, n)
		}
	}
}

// puts returns the requests of one method.
func puts(s *registrytest.Server, method string) []registrytest.Record {
	return slices.DeleteFunc(s.Requests(), func(r registrytest.Record) bool { return r.Method != method || r.Kind == registrytest.Token })
}

// An upload that goes on and on takes more time than a request may be silent.
func TestUploadSlowly(t *testing.T) {
	if testing.Short() {
		t.Skip("slow by its nature")
	}
	s, opts := writable(t, nil)
	opts.StallTimeout, opts.ReadTimeout, opts.Tries = 1200*time.Millisecond, 1500*time.Millisecond, 1
	content := noise(9, 3<<20)
	r := open(t, s, opts)
	begun := time.Now()
	if err := r.PutBlob(t.Context(), descriptorOf(content), slowReader{bytes.NewReader(content)}, nil); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begun); took < 2*opts.ReadTimeout {
		t.Errorf("it took %s, which is not slow", took)
	}
}

type slowReader struct{ io.ReaderAt }

func (r slowReader) ReadAt(p []byte, off int64) (int, error) {
	time.Sleep(30 * time.Millisecond)
	return r.ReaderAt.ReadAt(p[:min(len(p), 24<<10)], off)
}

// Tokens are asked for with the scope that a request needs, once each.
func TestScopes(t *testing.T) {
	s, opts := writable(t, nil)
	s.PutManifest("application/vnd.oci.image.manifest.v1+json", []byte(testManifest))
	s.Tag("app", "latest", digest.FromString(testManifest))
	r := open(t, s, opts)
	for i := range 3 {
		content := noise(byte(i), 1000)
		if err := r.PutBlob(t.Context(), descriptorOf(content), bytes.NewReader(content), nil); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Resolve(t.Context()); err != nil {
			t.Fatal(err)
		}
		desc, err := r.PutManifest(t.Context(), "application/vnd.oci.image.manifest.v1+json", fmt.Appendf(nil, `{"n":%d}`, i), "")
		if err != nil {
			t.Fatal(err)
		}
		if err := r.DeleteManifest(t.Context(), desc.Digest); err != nil {
			t.Fatal(err)
		}
	}
	var scopes []string
	for _, rec := range s.Requests(registrytest.Token) {
		scopes = append(scopes, rec.Query.Get("scope"))
	}
	if want := []string{"repository:app:pull,push", "repository:app:pull", "repository:app:delete"}; !slices.Equal(scopes, want) {
		t.Errorf("asked for tokens for %q, want %q", scopes, want)
	}
}
