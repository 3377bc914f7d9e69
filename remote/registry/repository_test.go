package registry_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/registry"
	"github.com/imgfs/imgfs/remote/registry/hosts"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/testenv"
)

const testManifest = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{},"layers":[]}`

func TestResolve(t *testing.T) {
	edit := func(edit func(http.Header)) func(int) registrytest.Fault {
		return registrytest.Always(registrytest.Header(edit))
	}
	schema1 := "application/vnd.docker.distribution.manifest.v1+prettyjws"
	for _, tc := range []struct {
		name      string
		fault     func(int) registrytest.Fault
		mediaType string // wanted; default OCI's
		want      error
		most      int
	}{
		{name: "head", most: 1},
		{name: "no HEAD", fault: headOnly(registrytest.Status(405)), most: 2},
		{name: "HEAD answered 501", fault: headOnly(registrytest.Status(501)), most: 2},
		{name: "HEAD answered 400", fault: headOnly(registrytest.Status(400)), most: 2},
		{name: "no digest", fault: edit(func(h http.Header) { h.Del("Docker-Content-Digest") }), most: 2},
		{name: "junk for a digest", fault: headOnly(registrytest.Header(func(h http.Header) { h.Set("Docker-Content-Digest", "sha256:junk") })), most: 2},
		{name: "media type with parameter", fault: edit(func(h http.Header) { h.Set("Content-Type", ocispec.MediaTypeImageManifest+"; charset=utf-8") }), most: 1},
		{name: "media type that says nothing", fault: edit(func(h http.Header) { h.Set("Content-Type", "application/json") }), most: 2},
		{name: "no media type", fault: edit(func(h http.Header) { h.Set("Content-Type", "") }), most: 2},
		{name: "schema 1", fault: edit(func(h http.Header) { h.Set("Content-Type", schema1) }), mediaType: schema1, most: 1},
		{name: "503 twice", fault: registrytest.Times(2, registrytest.Status(503)), most: 3},
		{name: "reset", fault: registrytest.Times(2, registrytest.Reset(-1)), most: 5},
		{name: "404", fault: registrytest.Always(registrytest.Status(404)), most: 2, want: remote.ErrNotFound},
		{name: "401 without a challenge", fault: registrytest.Always(registrytest.Status(401)), most: 2, want: remote.ErrUnauthorized},
		{name: "403", fault: registrytest.Always(registrytest.Status(403)), most: 2, want: remote.ErrUnauthorized},
		{name: "500 for ever", fault: registrytest.Always(registrytest.Status(500)), most: 7, want: remote.ErrUnavailable},
		{name: "web page once", fault: registrytest.Times(2, registrytest.Page()), most: 3},
		{name: "web page for ever", fault: registrytest.Always(registrytest.Page()), most: 6, want: remote.ErrUnavailable},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := registrytest.New(t, nil)
			want := s.PutManifest(ocispec.MediaTypeImageManifest, []byte(testManifest))
			if tc.mediaType != "" {
				want.MediaType = tc.mediaType
			}
			s.Tag("app", "latest", want.Digest)
			r := open(t, s, fast())
			if _, err := r.Tags(t.Context()); err != nil { // finds out the scheme
				t.Fatal(err)
			}
			s.Inject(registrytest.Manifest, tc.fault)
			got, err := r.Resolve(t.Context())
			if !errors.Is(err, tc.want) || err != nil && tc.want == nil {
				t.Fatalf("got error %v, want %v", err, tc.want)
			}
			if err == nil && (got.Digest != want.Digest || got.Size != want.Size || got.MediaType != want.MediaType) {
				t.Errorf("got %s, %s, %d bytes, want %s, %s, %d bytes", got.MediaType, got.Digest, got.Size, want.MediaType, want.Digest, want.Size)
			}
			if n := s.Count(registrytest.Manifest); n > tc.most {
				t.Errorf("got %d requests, want at most %d", n, tc.most)
			}
			if err != nil {
				return
			}
			if content, err := r.Fetch(t.Context(), got); tc.mediaType == "" && (err != nil || string(content) != testManifest) {
				t.Errorf("Fetch of what Resolve gave: %q, error %v", content, err)
			}
		})
	}
}

func TestResolveDigest(t *testing.T) {
	s := registrytest.New(t, nil)
	want := s.PutManifest(ocispec.MediaTypeImageManifest, []byte(testManifest))
	client := registry.New(fast())
	defer client.Close()
	ref := remote.Reference{Registry: s.Host(), Repository: "app", Digest: want.Digest}
	r := client.Repository(ref)
	if got := r.Name(); got != s.Host()+"/app@"+want.Digest.String() {
		t.Errorf("Name: got %s", got)
	}
	if got, err := r.Resolve(t.Context()); err != nil || got.Digest != want.Digest || got.Size != want.Size {
		t.Errorf("got %v and error %v, want %v", got, err, want)
	}
	// A registry that has another manifest under the digest is not believed,
	// by whichever way.
	s.ReplaceManifest(want.Digest, ocispec.MediaTypeImageManifest, []byte(testManifest+" "))
	s.Inject(registrytest.Manifest, registrytest.Always(registrytest.Header(func(h http.Header) { h.Del("Content-Type") })))
	if got, err := r.Resolve(t.Context()); !errors.Is(err, remote.ErrDigest) {
		t.Errorf("other content: got %v and error %v, want %v", got, err, remote.ErrDigest)
	}
}

func TestFetch(t *testing.T) {
	s := registrytest.New(t, &registrytest.Options{CDN: true})
	content := []byte(`{"os":"linux"}`)
	r := open(t, s, fast())
	config := s.PutBlob(ocispec.MediaTypeImageConfig, content)
	fetch := func(name string, want error) {
		t.Helper()
		got, err := r.Fetch(t.Context(), config)
		if !errors.Is(err, want) || err == nil && !bytes.Equal(got, content) {
			t.Errorf("%s: got %q and error %v, want error %v", name, got, err, want)
		}
	}
	fetch("sound", nil)
	s.Inject(registrytest.CDN, registrytest.Times(2, registrytest.FlipBit()))
	fetch("wrong twice", nil)
	s.Inject(registrytest.CDN, registrytest.Always(registrytest.FlipBit()))
	fetch("wrong for ever", remote.ErrDigest)
	s.Inject(registrytest.CDN, registrytest.Times(2, registrytest.Truncate(5)))
	fetch("truncated", nil)
	s.Inject(registrytest.CDN, registrytest.Always(registrytest.Status(404)))
	fetch("gone", remote.ErrNotFound)
	config.Size = 1 << 40
	s.Inject(registrytest.CDN, nil)
	s.Forget()
	fetch("of a size that no one believes", remote.ErrUnsupported)
	if n := s.Count(); n != 0 {
		t.Errorf("for it: %d requests, want none", n)
	}
}

func TestTags(t *testing.T) {
	for _, page := range []int{0, 1, 3} {
		s := registrytest.New(t, &registrytest.Options{TagPage: page, Login: registrytest.Bearer})
		want := []string{"a", "b", "c", "d", "e", "f", "latest"}
		for _, tag := range want {
			s.Tag("app", tag, digest.FromString(tag))
		}
		if got, err := open(t, s, fast()).Tags(t.Context()); err != nil || !slices.Equal(got, want) {
			t.Errorf("%d a page: got %q and error %v, want %q", page, got, err, want)
		}
	}
}

func TestLogin(t *testing.T) {
	const user, password, identity = "someone", "pass:word with ü", "refresh-me"
	right := hosts.Credential{User: user, Password: password}
	for _, tc := range []struct {
		name  string
		login registrytest.Login
		cred  hosts.Credential
		err   error // of the look-up
		want  error
	}{
		{name: "basic", login: registrytest.Basic, cred: right},
		{name: "basic, wrong password", login: registrytest.Basic, cred: hosts.Credential{User: user, Password: "secret"}, want: remote.ErrUnauthorized},
		{name: "basic, none", login: registrytest.Basic, want: remote.ErrUnauthorized},
		{name: "basic, only an identity token", login: registrytest.Basic, cred: hosts.Credential{IdentityToken: "secret"}, want: remote.ErrUnauthorized},
		{name: "bearer", login: registrytest.Bearer, cred: right},
		{name: "bearer, wrong password", login: registrytest.Bearer, cred: hosts.Credential{User: user, Password: "secret"}, want: remote.ErrUnauthorized},
		{name: "bearer, none", login: registrytest.Bearer, want: remote.ErrUnauthorized},
		{name: "bearer, identity token", login: registrytest.Bearer, cred: hosts.Credential{IdentityToken: identity}},
		{name: "bearer, wrong identity token", login: registrytest.Bearer, cred: hosts.Credential{IdentityToken: "secret"}, want: remote.ErrUnauthorized},
		{name: "look-up fails", login: registrytest.Bearer, err: errors.New("the helper docker-credential-x is broken"), want: remote.ErrUnauthorized},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := registrytest.New(t, &registrytest.Options{Login: tc.login, User: user, Password: password, IdentityToken: identity})
			s.Tag("app", "latest", s.PutManifest(ocispec.MediaTypeImageManifest, []byte(testManifest)).Digest)
			opts := fast()
			var log lines
			opts.Logf = log.printf
			opts.Credential = func(_ context.Context, host, repository string) (hosts.Credential, error) {
				if host != s.Host() || repository != "app" {
					t.Errorf("asked for a credential for %s and %s, want %s and app", host, repository, s.Host())
				}
				return tc.cred, tc.err
			}
			_, err := open(t, s, opts).Resolve(t.Context())
			if !errors.Is(err, tc.want) || err != nil && tc.want == nil {
				t.Errorf("got error %v, want %v", err, tc.want)
			}
			if tc.err != nil && !strings.Contains(err.Error(), tc.err.Error()) {
				t.Errorf("got error %v, which does not say %q", err, tc.err)
			}
			for _, secret := range []string{password, "secret", identity} {
				if strings.Contains(fmt.Sprint(err, log.all()), secret) {
					t.Errorf("a credential is told: error %v, log %q", err, log.all())
				}
			}
			if n := s.Count(registrytest.Manifest, registrytest.Token); n > 4 {
				t.Errorf("got %d requests, want at most 4", n)
			}
		})
	}
}

// A file of credentials is used, and is asked for the right host.
func TestAuthFileOption(t *testing.T) {
	s := registrytest.New(t, &registrytest.Options{Login: registrytest.Bearer, User: "u", Password: "p"})
	s.Tag("app", "latest", digest.FromString("x"))
	opts := fast()
	file := filepath.Join(t.TempDir(), "auth.json")
	opts.Credential = new(hosts.Configuration).Credentials(file)
	if err := os.WriteFile(file, fmt.Appendf(nil, `{"auths":{"%s/app":{"auth":"dTpw"}}}`, s.Host()), 0o600); err != nil {
		t.Fatal(err)
	}
	if tags, err := open(t, s, opts).Tags(t.Context()); err != nil || len(tags) != 1 {
		t.Errorf("got tags %q and error %v", tags, err)
	}
}

// lines collects what is logged.
type lines struct {
	mu   sync.Mutex
	text []string
}

func (l *lines) printf(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = append(l.text, fmt.Sprintf(format, args...))
}

func (l *lines) all() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.text, "\n")
}

// Neither errors nor the log show signed URLs or tokens.
func TestSecrets(t *testing.T) {
	testenv.Slow(t)
	s := registrytest.New(t, &registrytest.Options{Login: registrytest.Bearer, CDN: true})
	var log lines
	opts := fast()
	opts.Logf = log.printf
	opts.HeaderTimeout = 100 * time.Millisecond
	b := blobOf(t, open(t, s, opts), s.PutBlob(ocispec.MediaTypeImageLayer, noise(1, blobSize)))
	for _, f := range []registrytest.Fault{registrytest.Reset(-1), registrytest.Reset(10), s.Stall(-1), registrytest.Status(403), registrytest.Page(), registrytest.Redirect("/?X-Amz-Signature=secret"), registrytest.Redirect("http://[::1?X-Amz-Signature=secret")} {
		s.Inject(registrytest.CDN, registrytest.Always(f))
		if _, err := b.ReadAt(t.Context(), make([]byte, 100), 0); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("got error %v, want one without a secret", err)
		}
	}
	if text := log.all(); text == "" || strings.Contains(text, "secret") {
		t.Errorf("the log is empty or tells a secret: %s", text)
	}
}

func TestTLSVerify(t *testing.T) {
	yes, no := true, false
	for _, tc := range []struct {
		name   string
		tls    bool
		trust  bool
		verify *bool
		ok     bool
	}{
		{"plain, unset", false, false, nil, true},
		{"plain, true", false, false, &yes, false},
		{"plain, false", false, false, &no, true},
		{"TLS known, unset", true, true, nil, true},
		{"TLS known, true", true, true, &yes, true},
		{"TLS unknown, unset", true, false, nil, false},
		{"TLS unknown, true", true, false, &yes, false},
		{"TLS unknown, false", true, false, &no, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := registrytest.New(t, &registrytest.Options{TLS: tc.tls, Login: registrytest.Basic, User: "u", Password: "p"})
			s.Tag("app", "latest", s.PutManifest(ocispec.MediaTypeImageManifest, []byte(testManifest)).Digest)
			opts := fast()
			opts.TLSVerify = tc.verify
			opts.Credential = func(context.Context, string, string) (hosts.Credential, error) {
				return hosts.Credential{User: "u", Password: "p"}, nil
			}
			if tc.trust {
				trust(t, s, opts)
			}
			_, err := open(t, s, opts).Resolve(t.Context())
			if ok := err == nil; ok != tc.ok {
				t.Errorf("got error %v, want success: %t", err, tc.ok)
			}
			if err != nil && !errors.Is(err, remote.ErrUnavailable) {
				t.Errorf("got error %v, want %v", err, remote.ErrUnavailable)
			}
		})
	}
}

// What a registry on another machine may not do to us.
func TestPlainHTTPElsewhere(t *testing.T) {
	s := registrytest.New(t, nil)
	for _, tc := range []struct {
		name   string
		verify bool
		ok     bool
	}{
		{"unset", true, false},
		{"false", false, true},
	} {
		opts := fast()
		if !tc.verify {
			opts.TLSVerify = &tc.verify
		}
		// The proxy stands for the network: whatever is asked for is at s.
		proxy, err := url.Parse(s.URL())
		if err != nil {
			t.Fatal(err)
		}
		opts.Proxy = http.ProxyURL(proxy)
		client := registry.New(opts)
		defer client.Close()
		_, err = client.Repository(remote.Reference{Registry: "registry.example", Repository: "app", Tag: "latest"}).Tags(t.Context())
		if ok := err == nil; ok != tc.ok {
			t.Errorf("plain http of another machine, TLSVerify %s: got error %v, want success: %t", tc.name, err, tc.ok)
		}
	}
}

func TestClientCertificate(t *testing.T) {
	cert, key := selfSigned(t)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(cert)
	ts := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, `{"tags":["x"]}`)
	}))
	ts.Config.ErrorLog = log.New(io.Discard, "", 0)
	ts.TLS = &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}
	ts.StartTLS()
	defer ts.Close()
	host := ts.Listener.Addr().String()
	dir := filepath.Join(t.TempDir(), host)
	if err := os.Mkdir(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{
		"ca.crt":      pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ts.Certificate().Raw}),
		"client.cert": cert, "client.key": key, "README": nil,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	tags := func() error {
		opts := fast()
		opts.CertDirs = []string{t.TempDir(), filepath.Dir(dir)}
		client := registry.New(opts)
		defer client.Close()
		_, err := client.Repository(remote.Reference{Registry: host, Repository: "app", Tag: "x"}).Tags(t.Context())
		return err
	}
	if err := tags(); err != nil {
		t.Errorf("with a client certificate: %v", err)
	}
	if err := os.Remove(filepath.Join(dir, "client.key")); err != nil {
		t.Fatal(err)
	}
	if err := tags(); err == nil || !strings.Contains(err.Error(), "client.") {
		t.Errorf("without its key: got error %v, want one that names the file", err)
	}
	if err := os.Remove(filepath.Join(dir, "client.cert")); err != nil {
		t.Fatal(err)
	}
	if err := tags(); !errors.Is(err, remote.ErrUnavailable) {
		t.Errorf("without a client certificate: got error %v, want %v", err, remote.ErrUnavailable)
	}
}

// selfSigned returns a certificate and its key.
func selfSigned(t *testing.T) (cert, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "client"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
}
