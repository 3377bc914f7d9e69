package registry_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/registry"
	"github.com/imgfs/imgfs/remote/registry/hosts"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/testenv"
)

const manifestType = ocispec.MediaTypeImageManifest

// What can be sent only once is not sent again unless it surely was not done; what
// is put under a digest or a tag is.
func TestRepeatedWrites(t *testing.T) {
	byDigest := func(ctx context.Context, r *registry.Repository) error {
		_, err := r.PutManifest(ctx, manifestType, []byte(testManifest), "")
		return err
	}
	byTag := func(ctx context.Context, r *registry.Repository) error {
		_, err := r.PutManifest(ctx, manifestType, []byte(testManifest), "new")
		return err
	}
	stream := func(ctx context.Context, r *registry.Repository) error {
		body := io.NopCloser(strings.NewReader(testManifest))
		return r.PutStream(ctx, manifestType, digest.FromString(testManifest), body, int64(len(testManifest)))
	}
	remove := func(ctx context.Context, r *registry.Repository) error {
		return r.DeleteManifest(ctx, digest.FromString("old"))
	}
	for _, tc := range []struct {
		name   string
		do     func(context.Context, *registry.Repository) error
		fault  registrytest.Fault
		asked  int
		failed bool
	}{
		{"by digest, no answer", byDigest, registrytest.Unanswered(), 2, false},
		{"by digest, 500", byDigest, registrytest.Status(500), 2, false},
		{"by digest, 400", byDigest, registrytest.Status(400), 1, true},
		{"by digest, 405", byDigest, registrytest.Status(405), 1, true},
		{"by digest, 302", byDigest, onward(302), 1, true},
		{"by digest, 303", byDigest, onward(303), 1, true},
		{"by digest, 307", byDigest, onward(307), 2, false},
		{"by tag, no answer", byTag, registrytest.Unanswered(), 2, false},
		{"by tag, 500", byTag, registrytest.Status(500), 2, false},
		{"by tag, 429", byTag, registrytest.Status(429), 2, false},
		{"by tag, 503", byTag, registrytest.Status(503), 2, false},
		{"stream, no answer", stream, registrytest.Unanswered(), 1, true},
		{"stream, 429", stream, registrytest.Status(429), 1, true},
		{"stream, 307", stream, onward(307), 1, true},
		{"removal, no answer", remove, registrytest.Unanswered(), 2, false},
		{"removal, 503", remove, registrytest.Status(503), 2, false},
		{"removal, there is none", remove, registrytest.Status(404), 1, true},
		{"removal, 405", remove, registrytest.Status(405), 1, true},
	} {
		s := registrytest.New(t, &registrytest.Options{Writable: true})
		s.PutManifest(manifestType, []byte("old"))
		s.Inject(registrytest.Manifest, registrytest.Once(tc.fault))
		err := tc.do(t.Context(), open(t, s, fast()))
		if n := s.Count(registrytest.Manifest); (err != nil) != tc.failed || n != tc.asked {
			t.Errorf("%s: %d requests and error %v, want %d requests, an error %t", tc.name, n, err, tc.asked, tc.failed)
		}
	}
}

// A stream that cannot begin again is sent once a registry is there, and after
// a login, but not when it would have to be sent for the second time.
func TestStreamAndLogin(t *testing.T) {
	s, opts := writable(t, nil)
	r := loggedIn(t, s, opts)
	send := func(text string) error {
		return r.PutStream(t.Context(), manifestType, digest.FromString(text), io.NopCloser(strings.NewReader(text)), int64(len(text)))
	}
	if err := send("a"); err != nil {
		t.Error(err)
	}
	s.RevokeTokens()
	if err := send("b"); err == nil || !strings.Contains(err.Error(), "cannot be read a second time") {
		t.Errorf("after the token ended: got error %v", err)
	}
}

// What cannot be read is not sent again, and its reader's error comes back.
func TestUnreadablePayload(t *testing.T) {
	content := noise(1, 200_000)
	broken := errors.New("the disk is broken")
	for name, tc := range map[string]struct {
		content io.ReaderAt
		want    string
	}{
		"broken": {brokenAt{bytes.NewReader(content), 100_000, broken}, broken.Error()},
		"short":  {bytes.NewReader(content[:150_000]), "200000 bytes that were announced"},
	} {
		// A server of its own: it may note a request after its sender gave it up.
		s, opts := writable(t, nil)
		err := loggedIn(t, s, opts).PutBlob(t.Context(), descriptorOf(content), tc.content, nil)
		if err == nil || !strings.Contains(err.Error(), tc.want) || name == "broken" && !errors.Is(err, broken) {
			t.Errorf("%s: got error %v", name, err)
		}
		if n := len(puts(s, http.MethodPut)); n > 1 {
			t.Errorf("%s: sent %d times", name, n)
		}
	}
}

type brokenAt struct {
	io.ReaderAt
	end int64
	err error
}

func (b brokenAt) ReadAt(p []byte, off int64) (int, error) {
	if off >= b.end {
		return 0, b.err
	}
	return b.ReaderAt.ReadAt(p[:min(int64(len(p)), b.end-off)], off)
}

// A sink is a server that takes what it is sent, and notes it.
type sink struct {
	*httptest.Server
	mu    sync.Mutex
	heads []http.Header
	got   int64
}

func newSink(t *testing.T) *sink {
	t.Helper()
	k := new(sink)
	k.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		k.mu.Lock()
		k.heads, k.got = append(k.heads, r.Header.Clone()), k.got+n
		k.mu.Unlock()
		w.WriteHeader(http.StatusCreated)
	}))
	t.Cleanup(k.Close)
	return k
}

// lead has a request sent on to the sink, or, for an upload that is begun, has
// the sink take the rest.
func (k *sink) lead(upload bool) registrytest.Fault {
	if upload {
		return registrytest.Header(func(h http.Header) { h.Set("Location", k.URL+"/storage?signature=x") })
	}
	return func(w http.ResponseWriter, r *http.Request, _ http.HandlerFunc) {
		w.Header().Set("Location", k.URL+"/storage?digest="+url.QueryEscape(r.URL.Query().Get("digest")))
		w.WriteHeader(http.StatusTemporaryRedirect)
	}
}

// A body follows a redirect to another host, and a credential does not. From
// https nothing goes to plain http.
func TestWriteElsewhere(t *testing.T) {
	for _, upload := range []bool{false, true} {
		for _, tls := range []bool{false, true} {
			name := fmt.Sprintf("upload %t, TLS %t", upload, tls)
			k := newSink(t)
			s, opts := writable(t, func(o *registrytest.Options) { o.TLS = tls })
			r := loggedIn(t, s, opts)
			content := noise(3, 100_000)
			n := 2 // the one that brings the content
			if upload {
				n = 1
			}
			lead := k.lead(upload)
			s.Inject(registrytest.Upload, func(i int) registrytest.Fault {
				if i == n || tls && i > n {
					return lead
				}
				return nil
			})
			if err := r.PutBlob(t.Context(), descriptorOf(content), bytes.NewReader(content), nil); (err != nil) != tls {
				t.Errorf("%s: got error %v", name, err)
			}
			if tls && len(k.heads) > 0 {
				t.Errorf("%s: plain http got %d requests", name, len(k.heads))
			}
			if !tls && (len(k.heads) != 1 || k.got != int64(len(content)) || k.heads[0].Get("Authorization") != "") {
				t.Errorf("%s: got %d bytes in %d requests: %v", name, k.got, len(k.heads), k.heads)
			}
		}
	}
}

// Nothing is sent by plain http where that is not allowed.
func TestWritePlain(t *testing.T) {
	s := registrytest.New(t, &registrytest.Options{Writable: true})
	opts, verify := fast(), true
	opts.TLSVerify = &verify
	if _, err := open(t, s, opts).PutManifest(t.Context(), manifestType, []byte(testManifest), ""); !errors.Is(err, registry.ErrTLS) {
		t.Errorf("got error %v, want %v", err, registry.ErrTLS)
	}
	if n := s.Count(); n > 0 {
		t.Errorf("%d requests came", n)
	}
}

// What is written goes to the registry, and never to a mirror, even if there
// is nobody else.
func TestWriteMirror(t *testing.T) {
	mirror := registrytest.New(t, &registrytest.Options{Writable: true})
	upstream := registrytest.New(t, &registrytest.Options{Writable: true})
	up, m := upstream.Host(), mirror.Host()
	for _, tc := range []struct {
		name  string
		sites hosts.SiteFunc
		ok    bool
	}{
		{"registries.conf", registriesConf(t, fmt.Sprintf("[[registry]]\nlocation = %q\n[[registry.mirror]]\nlocation = %q\n", up, m)), true},
		{"registries.conf, elsewhere", registriesConf(t, fmt.Sprintf("[[registry]]\nprefix = \"r.example:5000\"\nlocation = %q\n[[registry.mirror]]\nlocation = %q\n", up, m)), true},
		{"registries.conf, blocked location", registriesConf(t, fmt.Sprintf(
			"[[registry]]\nprefix = \"r.example:5000\"\nlocation = \"b.example/x\"\n[[registry.mirror]]\nlocation = %q\n[[registry]]\nlocation = \"b.example\"\nblocked = true\n", m)), false},
		{"hosts.toml", hostsToml(t, up, fmt.Sprintf("[host.\"http://%s\"]\n", m)), true},
		{"hosts.toml, itself last", hostsToml(t, up, fmt.Sprintf("[host.\"http://%s\"]\n[host.\"http://%s\"]\n", m, up)), true},
		{"hosts.toml, not to push", hostsToml(t, up, fmt.Sprintf("capabilities = [\"pull\", \"resolve\"]\n[host.\"http://%s\"]\n", m)), false},
		{"hosts.toml, to push", hostsToml(t, up, fmt.Sprintf("capabilities = [\"push\", \"pull\", \"resolve\"]\n[host.\"http://%s\"]\n", m)), true},
	} {
		upstream.Forget()
		opts := fast()
		opts.Sites = tc.sites
		client := registry.New(opts)
		ref := remote.Reference{Registry: up, Repository: "app", Tag: "latest"}
		if strings.Contains(tc.name, "elsewhere") || strings.Contains(tc.name, "blocked") {
			ref.Registry = "r.example:5000"
		}
		r := client.Repository(ref)
		err := r.PutBlob(t.Context(), descriptorOf([]byte(tc.name)), strings.NewReader(tc.name), nil)
		if (err == nil) != tc.ok || !tc.ok && !errors.Is(err, hosts.ErrConfiguration) {
			t.Errorf("%s: got error %v, want success %t", tc.name, err, tc.ok)
		}
		if n := len(puts(upstream, http.MethodPut)); (n == 1) != tc.ok {
			t.Errorf("%s: %d blobs were put", tc.name, n)
		}
		client.Close()
	}
	if n := mirror.Count(); n > 0 {
		t.Errorf("the mirror got %d requests", n)
	}
}

// A server without files hands in whom to ask and as whom.
func TestSitesOption(t *testing.T) {
	s := registrytest.New(t, &registrytest.Options{Login: registrytest.Basic, User: "u", Password: "p"})
	s.Tag("app", "latest", s.PutManifest(manifestType, []byte(testManifest)).Digest)
	ref := remote.Reference{Registry: "r.example", Repository: "a/b", Tag: "latest"}
	site := hosts.Canonical(remote.Reference{Registry: s.Host(), Repository: "app", Tag: "latest"})
	fails := errors.New("no sites today")
	calls := 0
	for _, tc := range []struct {
		name  string
		sites []*hosts.Site
		err   error
		want  error
	}{
		{"one", []*hosts.Site{site}, nil, nil},
		{"none", nil, nil, hosts.ErrConfiguration},
		{"nil", []*hosts.Site{nil}, nil, hosts.ErrConfiguration},
		{"empty", []*hosts.Site{{}}, nil, hosts.ErrConfiguration},
		{"no repository", []*hosts.Site{{Host: s.Host(), Path: "/v2", Resolve: true, Pull: true}}, nil, hosts.ErrConfiguration},
		{"an error", nil, fails, fails},
	} {
		client := registry.New(&registry.Options{
			CertDirs: hosts.CertDirs{},
			Sites: func(_ context.Context, asked remote.Reference) ([]*hosts.Site, error) {
				calls++
				if asked != ref {
					t.Errorf("asked for the sites of %s, want %s", asked, ref)
				}
				return tc.sites, tc.err
			},
			Credential: func(_ context.Context, host, repository string) (hosts.Credential, error) {
				if host != s.Host() || repository != "app" {
					t.Errorf("asked for the credential for %s/%s", host, repository)
				}
				return hosts.Credential{User: "u", Password: "p"}, nil
			},
		})
		r := client.Repository(ref)
		for range 2 {
			if _, err := r.Resolve(t.Context()); !errors.Is(err, tc.want) {
				t.Errorf("%s: got error %v, want %v", tc.name, err, tc.want)
			}
		}
		client.Close()
	}
	if calls != 1+2*5 {
		t.Errorf("asked %d times for sites", calls)
	}
}

// A cutter is a proxy before a real registry that breaks requests.
type cutter struct {
	*httptest.Server
	mu    sync.Mutex
	n     int
	fault func(n int, w http.ResponseWriter, r *http.Request) bool // true: it answered
}

func newCutter(t *testing.T, target string, fault func(n int, w http.ResponseWriter, r *http.Request) bool) *cutter {
	t.Helper()
	c := &cutter{fault: fault}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/uploads/") || r.Method == http.MethodPut {
			c.mu.Lock()
			c.n++
			n := c.n
			c.mu.Unlock()
			if c.fault(n, w, r) {
				return
			}
		}
		forward(w, r, target, r.Body)
	}))
	t.Cleanup(c.Close)
	return c
}

// forward has a request answered by a server, with another body.
func forward(w http.ResponseWriter, r *http.Request, target string, body io.Reader) {
	out, err := http.NewRequestWithContext(r.Context(), r.Method, "http://"+target+r.URL.RequestURI(), body)
	if err != nil {
		panic(err)
	}
	// The host stays, so that the registry's Locations lead here.
	out.Header, out.Host, out.ContentLength = r.Header.Clone(), r.Host, r.ContentLength
	resp, err := http.DefaultTransport.RoundTrip(out)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	defer resp.Body.Close()
	for name, values := range resp.Header {
		w.Header()[name] = values
	}
	w.WriteHeader(resp.StatusCode)
	_, _ = io.Copy(w, resp.Body)
}

// TestDockerRegistryWrite writes to Debian's docker-registry by way of a proxy
// that breaks requests.
func TestDockerRegistryWrite(t *testing.T) {
	testenv.Slow(t)
	needPrograms(t, "docker-registry")
	t.Setenv("REGISTRY_STORAGE_DELETE_ENABLED", "true")
	opts := fast()
	host := startDockerRegistry(t, basicLogin(t, opts))
	cut := func(w http.ResponseWriter) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		_ = conn.(*net.TCPConn).SetLinger(0)
		conn.Close()
	}
	faults := map[string]func(w http.ResponseWriter, r *http.Request) bool{
		"none": func(http.ResponseWriter, *http.Request) bool { return false },
		"cut in the body": func(w http.ResponseWriter, r *http.Request) (answered bool) {
			answered = true
			ctx, cancel := context.WithCancel(r.Context())
			defer cancel()
			body := io.MultiReader(io.LimitReader(r.Body, 150_000), brokenAfter{cancel})
			defer func() { _ = recover(); cut(w) }()
			forward(httptest.NewRecorder(), r.WithContext(ctx), host, body)
			return
		},
		"no answer": func(w http.ResponseWriter, r *http.Request) bool {
			forward(httptest.NewRecorder(), r, host, r.Body)
			cut(w)
			return true
		},
		"401": func(w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("Www-Authenticate", "Basic realm=r")
			w.WriteHeader(http.StatusUnauthorized)
			return true
		},
		"503": func(w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusServiceUnavailable)
			return true
		},
	}
	content := noise(5, 1<<20)
	for name, fault := range faults {
		for _, chunk := range []int64{0, 400_000} {
			for n := 1; n <= 5; n++ {
				if name == "none" && n > 1 || name == "401" && n < 3 || chunk == 0 && n > 3 || testing.Short() && (n != 3 || chunk == 0) {
					continue
				}
				c := newCutter(t, host, func(i int, w http.ResponseWriter, r *http.Request) bool { return i == n && fault(w, r) })
				client := registry.New(opts)
				where := fmt.Sprintf("a/%s-%d-%d", strings.ReplaceAll(name, " ", "-"), chunk, n)
				r := client.Repository(remote.Reference{Registry: c.Listener.Addr().String(), Repository: where, Tag: "latest"})
				desc := descriptorOf(content)
				if err := r.PutBlob(t.Context(), desc, bytes.NewReader(content), &registry.PutOptions{Chunk: chunk}); err != nil {
					t.Errorf("%s, chunk %d, request %d: %v", name, chunk, n, err)
				} else if err := check(t.Context(), blobOf(t, r, desc), content, 0, len(content)); err != nil {
					t.Errorf("%s, chunk %d, request %d: %v", name, chunk, n, err)
				}
				manifest := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":%d},"layers":[]}`,
					manifestType, desc.Digest, desc.Size)
				top, err := r.PutManifest(t.Context(), manifestType, manifest, "latest")
				if err != nil {
					t.Errorf("%s, chunk %d, request %d: %v", name, chunk, n, err)
				}
				if got, err := r.Resolve(t.Context()); err != nil || got.Digest != top.Digest {
					t.Errorf("%s: latest is %v, error %v", name, got.Digest, err)
				}
				if err := r.DeleteManifest(t.Context(), top.Digest); err != nil {
					t.Errorf("%s: removal: %v", name, err)
				}
				if err := r.DeleteManifest(t.Context(), top.Digest); !errors.Is(err, remote.ErrNotFound) {
					t.Errorf("%s: removal of what is not there: got error %v", name, err)
				}
				client.Close()
				c.Close()
			}
		}
	}
}

// A brokenAfter cuts the connection on which it is sent.
type brokenAfter struct{ cancel func() }

func (b brokenAfter) Read([]byte) (int, error) {
	b.cancel()
	return 0, io.ErrUnexpectedEOF
}
