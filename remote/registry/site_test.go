package registry_test

import (
	"context"
	"crypto/sha256"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache"
	"github.com/imgfs/imgfs/remote/cache/blobs"
	"github.com/imgfs/imgfs/remote/registry"
	"github.com/imgfs/imgfs/remote/registry/hosts"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
)

// 21 and 23: wrong bytes of a mirror reach nobody, and the mirror rests.
func TestMirrorWrongBytes(t *testing.T) {
	m := newMirrored(t, 2, "")
	m.content = noise(2, 40*4096)
	for _, s := range append(m.mirrors, m.upstream) {
		m.serve(s)
	}
	liar := m.mirrors[0]
	liar.Inject(registrytest.Blob, registrytest.Always(registrytest.FlipBit()))
	disk, err := cache.Open(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	r := open(t, m.upstream, m.opts)
	chunks := blobs.Chunks{Size: 4096}
	for i := 0; i < len(m.content); i += 4096 {
		sum := sha256.Sum256(m.content[i : i+4096])
		chunks.Sums = append(chunks.Sums, sum[:]...)
	}
	b, err := disk.Blobs.Blob(blobOf(t, r, m.layer), chunks)
	if err != nil {
		t.Fatal(err)
	}
	readers(t, 10, func(i int) error { return check(t.Context(), b, m.content, 4*4096*i, 4*4096) })
	if n := m.upstream.Count(); n > 0 {
		t.Errorf("got %d requests at the registry, want none: the second mirror is honest", n)
	}
	// A reader that comes after the lie was found asks the second mirror plainly.
	asked := m.mirrors[1].Requests(registrytest.Blob)
	if !slices.ContainsFunc(asked, func(r registrytest.Record) bool {
		return r.Header.Get("Cache-Control") == "no-cache"
	}) {
		t.Errorf("the second mirror was asked %d times, want it with Cache-Control", len(asked))
	}
	liar.Forget()
	m.read(t, r)
	if n := liar.Count(); n > 0 {
		t.Errorf("got %d requests at the mirror that lies, want none", n)
	}
}

// Without mirrors the registry itself is asked again, not the storage that
// was known.
func TestReadElsewhereAlone(t *testing.T) {
	s := registrytest.New(t, &registrytest.Options{CDN: true})
	content := noise(1, blobSize)
	b := blobOf(t, open(t, s, fast()), s.PutBlob(ocispec.MediaTypeImageLayer, content)).(remote.ElsewhereBlob)
	if err := check(t.Context(), b, content, 0, 1000); err != nil {
		t.Fatal(err)
	}
	s.Forget()
	p := make([]byte, 1000)
	if n, err := b.ReadElsewhere(t.Context(), p, 0); n != 1000 || err != nil || string(p) != string(content[:1000]) {
		t.Errorf("got %d bytes and error %v", n, err)
	}
	if n := s.Count(registrytest.Blob); n != 1 {
		t.Errorf("got %d requests at the registry, want 1", n)
	}
	for _, r := range s.Requests(registrytest.CDN) {
		if r.Header.Get("Cache-Control") != "no-cache" {
			t.Error("the storage's cache may answer")
		}
	}
}

// A mirror that may not resolve is asked for content alone.
func TestMirrorPullOnly(t *testing.T) {
	m := newMirrored(t, 1, `capabilities = ["pull"]`)
	other := m.mirrors[0].PutManifest(ocispec.MediaTypeImageManifest, []byte(testManifest+" "))
	m.mirrors[0].Tag("app", "latest", other.Digest)
	m.use(t, open(t, m.upstream, m.opts))
	for _, r := range m.mirrors[0].Requests(registrytest.Manifest) {
		if strings.HasSuffix(r.Path, "/latest") {
			t.Errorf("the mirror was asked for %s", r.Path)
		}
	}
	if n := m.mirrors[0].Count(registrytest.Blob); n == 0 {
		t.Error("the mirror was not asked for the blob")
	}
}

func TestNobodyResolves(t *testing.T) {
	s := registrytest.New(t, nil)
	opts := fast()
	opts.Sites = hostsToml(t, s.Host(), `capabilities = ["pull"]`)
	if _, err := open(t, s, opts).Resolve(t.Context()); !errors.Is(err, hosts.ErrConfiguration) {
		t.Errorf("got error %v, want %v", err, hosts.ErrConfiguration)
	}
}

// A mirror of registries.conf has the image under another name, by which its
// credential is looked up, and is told no ns.
func TestRegistriesConfMirror(t *testing.T) {
	m := newMirrored(t, 0, "")
	mirror := registrytest.New(t, &registrytest.Options{Login: registrytest.Bearer})
	m.serve(mirror)
	mirror.Tag("far/app", "latest", m.top.Digest)
	front, urls := startFront(t, mirror, "")
	m.opts.Sites = registriesConf(t, fmt.Sprintf("[[registry]]\nlocation = %q\n[[registry.mirror]]\nlocation = \"%s/far\"\n", m.upstream.Host(), front))
	m.use(t, open(t, m.upstream, m.opts))
	if n := m.upstream.Count(); n > 0 {
		t.Errorf("got %d requests at the registry, want none", n)
	}
	for _, host := range m.asked {
		if want := front + "/far/app"; host != want {
			t.Errorf("asked for the credential of %s, want that of %s", host, want)
		}
	}
	for _, u := range urls() {
		if u.Query().Has("ns") || strings.HasPrefix(u.Path, "/v2/app") {
			t.Errorf("the mirror was asked for %s", u.String())
		}
	}
}

// startFront serves at another address what s has, below a path, and returns
// the host and what was asked.
func startFront(t *testing.T, s *registrytest.Server, path string) (host string, urls func() []*url.URL) {
	t.Helper()
	target, err := url.Parse(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var asked []*url.URL
	proxy := httputil.NewSingleHostReverseProxy(target)
	ts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		u := *r.URL
		asked = append(asked, &u)
		mu.Unlock()
		if rest, ok := strings.CutPrefix(r.URL.Path, path); ok {
			r.URL.Path = rest
			if path != "" {
				r.URL.Path = "/v2" + rest
			}
			proxy.ServeHTTP(w, r)
			return
		}
		http.NotFound(w, r)
	}))
	t.Cleanup(ts.Close)
	return ts.Listener.Addr().String(), func() []*url.URL {
		mu.Lock()
		defer mu.Unlock()
		return asked
	}
}

// A server of hosts.toml may have its API anywhere, is told whom it stands in
// for, and gets its headers, which follow no redirect to another server.
func TestHostsTomlServer(t *testing.T) {
	m := newMirrored(t, 0, "")
	mirror := registrytest.New(t, &registrytest.Options{CDN: true, TagPage: 1})
	m.serve(mirror)
	mirror.Tag("app", "other", m.top.Digest)
	front, urls := startFront(t, mirror, "/cache/of/all")
	m.opts.Sites = hostsToml(t, m.upstream.Host(), fmt.Sprintf("server = \"http://%s/cache/of/all/\"\noverride_path = true\n[header]\nx-who = \"me\"\n", front))
	r := open(t, m.upstream, m.opts)
	m.use(t, r)
	// Its pages lead to where it believes to be.
	if tags, err := r.Tags(t.Context()); err != nil || len(tags) != 2 {
		t.Errorf("got tags %q and error %v", tags, err)
	}
	if n := m.upstream.Count(); n > 0 {
		t.Errorf("got %d requests at the registry, which is not the server, want none", n)
	}
	for _, u := range urls() {
		if u.Query().Get("ns") != m.upstream.Host() {
			t.Errorf("asked for %s without ns", u.String())
		}
	}
	for _, rec := range mirror.Requests() {
		if got, storage := rec.Header.Get("X-Who"), rec.Kind == registrytest.CDN; (got == "") != storage {
			t.Errorf("%s %s: got header %q", rec.Kind, rec.Path, got)
		}
	}
}

func TestBlocked(t *testing.T) {
	s := registrytest.New(t, nil)
	opts := fast()
	opts.Sites = registriesConf(t, fmt.Sprintf("[[registry]]\nlocation = %q\nblocked = true\n", s.Host()))
	r := open(t, s, opts)
	if _, err := r.Resolve(t.Context()); !errors.Is(err, hosts.ErrBlocked) || errors.Is(err, remote.ErrUnavailable) {
		t.Errorf("got error %v, want %v", err, hosts.ErrBlocked)
	}
	b := blobOf(t, r, ocispec.Descriptor{Digest: s.PutBlob("", noise(1, 10)).Digest, Size: 10})
	if _, err := b.ReadAt(t.Context(), make([]byte, 10), 0); !errors.Is(err, hosts.ErrBlocked) {
		t.Errorf("blob: got error %v, want %v", err, hosts.ErrBlocked)
	}
	if n := s.Count(); n > 0 {
		t.Errorf("got %d requests, want none", n)
	}
}

// ca and skip_verify of hosts.toml, and insecure of registries.conf, hold for
// the server they stand with; --tls-verify goes before them.
func TestMirrorTLS(t *testing.T) {
	s := registrytest.New(t, &registrytest.Options{TLS: true, CDN: true})
	s.Tag("app", "latest", s.PutManifest(ocispec.MediaTypeImageManifest, []byte(testManifest)).Digest)
	layer := s.PutBlob(ocispec.MediaTypeImageLayer, noise(1, 1000))
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o666); err != nil {
		t.Fatal(err)
	}
	yes, no := true, false
	for _, tc := range []struct {
		name   string
		conf   hosts.SiteFunc
		verify *bool
		ok     bool
	}{
		{"nothing", noFiles(), nil, false},
		{"ca", hostsToml(t, s.Host(), fmt.Sprintf("ca = %q", ca)), nil, true},
		{"ca, true", hostsToml(t, s.Host(), fmt.Sprintf("ca = %q", ca)), &yes, true},
		{"ca of another server", hostsToml(t, s.Host(), fmt.Sprintf("[host.\"https://127.0.0.1:1\"]\nca = %q", ca)), nil, false},
		{"skip_verify", hostsToml(t, s.Host(), "skip_verify = true"), nil, true},
		{"skip_verify, true", hostsToml(t, s.Host(), "skip_verify = true"), &yes, false},
		{"false", noFiles(), &no, true},
		{"insecure", registriesConf(t, fmt.Sprintf("[[registry]]\nlocation = %q\ninsecure = true", s.Host())), nil, true},
		{"insecure-registries", daemonJSON(t, fmt.Sprintf(`{"insecure-registries": [%q]}`, s.Host())), nil, true},
		{"insecure-registries, true", daemonJSON(t, fmt.Sprintf(`{"insecure-registries": [%q]}`, s.Host())), &yes, false},
		{"insecure network", daemonJSON(t, `{"insecure-registries": ["127.0.0.0/8"]}`), nil, true},
		{"http and skip_verify", hostsToml(t, s.Host(), fmt.Sprintf("server = \"http://%s\"\nskip_verify = true", s.Host())), nil, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			opts := fast()
			opts.Sites, opts.TLSVerify = tc.conf, tc.verify
			r := open(t, s, opts)
			if _, err := r.Resolve(t.Context()); (err == nil) != tc.ok || err != nil && !errors.Is(err, registry.ErrTLS) {
				t.Errorf("got error %v, want success: %t", err, tc.ok)
			}
			// The storage, at another port, is trusted for the same reason.
			if _, err := blobOf(t, r, layer).ReadAt(t.Context(), make([]byte, 10), 0); (err == nil) != tc.ok {
				t.Errorf("blob: got error %v, want success: %t", err, tc.ok)
			}
		})
	}
}

// certs.d of containerd: the names that its directories have, and that one
// with a hosts.toml says itself what to trust.
func TestContainerdCerts(t *testing.T) {
	s := registrytest.New(t, &registrytest.Options{TLS: true, CDN: true})
	layer := s.PutBlob(ocispec.MediaTypeImageLayer, noise(1, 1000))
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	for name, tc := range map[string]struct {
		dir, hosts string
		ok         bool
	}{
		"host_port_":        {dir: strings.Replace(s.Host(), ":", "_", 1) + "_", ok: true},
		"host:port":         {dir: s.Host(), ok: true},
		"_default":          {dir: "_default", ok: true},
		"host without port": {dir: "127.0.0.1"},
		"with a hosts.toml": {dir: s.Host(), hosts: "server = \"https://x.example\"\n"},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			if err := os.Mkdir(filepath.Join(root, tc.dir), 0o777); err != nil {
				t.Fatal(err)
			}
			for name, content := range map[string]string{"ca.crt": string(cert), "hosts.toml": tc.hosts} {
				if err := os.WriteFile(filepath.Join(root, tc.dir, name), []byte(content), 0o666); err != nil {
					t.Fatal(err)
				}
			}
			opts := fast()
			opts.CertDirs = []string{t.TempDir(), root}
			if _, err := blobOf(t, open(t, s, opts), layer).ReadAt(t.Context(), make([]byte, 10), 0); (err == nil) != tc.ok {
				t.Errorf("got error %v, want success: %t", err, tc.ok)
			}
		})
	}
}

// Never plain http to a server that was sent a credential by https, though a
// file says so of another registry.
func TestNoPlainAfterCredential(t *testing.T) {
	s := registrytest.New(t, &registrytest.Options{TLS: true, Login: registrytest.Basic, User: "u", Password: "p"})
	s.Tag("app", "latest", s.PutManifest(ocispec.MediaTypeImageManifest, []byte(testManifest)).Digest)
	opts := fast()
	trust(t, s, opts)
	opts.Credential = func(context.Context, string, string) (hosts.Credential, error) {
		return hosts.Credential{User: "u", Password: "p"}, nil
	}
	opts.Sites = hostsToml(t, "r.example:1", fmt.Sprintf("server = \"http://%s\"", s.Host()))
	client := registry.New(opts)
	defer client.Close()
	if _, err := client.Repository(remote.Reference{Registry: s.Host(), Repository: "app", Tag: "latest"}).Resolve(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, err := client.Repository(remote.Reference{Registry: "r.example:1", Repository: "app", Tag: "latest"}).Resolve(t.Context())
	if !errors.Is(err, registry.ErrTLS) || !strings.Contains(err.Error(), "was sent a credential") {
		t.Errorf("got error %v, want %v", err, registry.ErrTLS)
	}
}
