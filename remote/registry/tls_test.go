package registry_test

import (
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
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/registry"
	"github.com/imgfs/imgfs/remote/registry/hosts"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
)

// An issuer signs certificates.
type issuer struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// issue makes a certificate that by has signed, or itself if by is nil.
func issue(t *testing.T, by *issuer, edit func(*x509.Certificate)) *issuer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "leaf"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	edit(template)
	parent := &issuer{template, key}
	if by != nil {
		parent = by
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent.cert, &key.PublicKey, parent.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &issuer{cert, key}
}

func authority(name string) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		c.Subject.CommonName, c.IsCA, c.KeyUsage, c.IPAddresses = name, true, x509.KeyUsageCertSign, nil
	}
}

// What is wrong with a secure connection is told at once, and in particular which
// of name, date and authority.
func TestTLSWords(t *testing.T) {
	ca := issue(t, nil, authority("Good Authority"))
	between := issue(t, ca, authority("Between"))
	stranger := issue(t, nil, authority("Strange \x1b[31m Authority"))
	plain := func(*x509.Certificate) {}
	elsewhere := func(c *x509.Certificate) { c.IPAddresses, c.DNSNames = nil, []string{"a.example", "*.b.example"} }
	day := 24 * time.Hour
	for _, tc := range []struct {
		name   string
		by     *issuer // nil: itself
		edit   func(*x509.Certificate)
		chain  []*issuer
		config func(*tls.Config)
		http2  bool
		shown  bool // a client certificate
		class  error
		says   []string
	}{
		{name: "name", by: ca, edit: elsewhere, class: registry.ErrTLSName, says: []string{"is for a.example, *.b.example, not for 127.0.0.1"}},
		{name: "many names", by: ca, edit: func(c *x509.Certificate) {
			c.IPAddresses = nil
			for i := range 100 {
				c.DNSNames = append(c.DNSNames, fmt.Sprintf("n%d.example", i))
			}
		}, class: registry.ErrTLSName, says: []string{"n4.example and 95 others, not for 127.0.0.1"}},
		{name: "no name", by: ca, edit: func(c *x509.Certificate) { c.IPAddresses = nil }, class: registry.ErrTLSName, says: []string{"for no name at all (a common name does not count)"}},
		{name: "name, of a stranger", by: stranger, edit: elsewhere, class: registry.ErrTLSName, says: []string{"is for a.example"}},
		{name: "expired", by: ca, edit: func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().Add(-9*day), time.Date(2020, 1, 2, 3, 4, 0, 0, time.UTC)
		}, class: registry.ErrTLSDate, says: []string{"has expired on 2020-01-02 03:04 UTC; this machine's clock says 2"}},
		{name: "not yet", by: ca, edit: func(c *x509.Certificate) { c.NotBefore, c.NotAfter = time.Now().Add(day), time.Now().Add(2*day) },
			class: registry.ErrTLSDate, says: []string{"is valid only from 2", " on; this machine's clock says 2"}},
		{name: "expired, of another name", by: ca, edit: func(c *x509.Certificate) { elsewhere(c); c.NotAfter = time.Now().Add(-time.Minute) },
			class: registry.ErrTLSDate, says: []string{"has expired on", "; and it is for a.example, *.b.example"}},
		{name: "authority", by: stranger, edit: plain, class: registry.ErrTLSAuthority, says: []string{`is signed by "Strange \x1b[31m Authority", whom this machine does not trust (or the server leaves out a certificate in between)`}},
		{name: "authority, whole chain", by: stranger, edit: plain, chain: []*issuer{stranger}, class: registry.ErrTLSAuthority, says: []string{`is signed by "Strange \x1b[31m Authority", whom this machine does not trust`}},
		{name: "itself", edit: plain, class: registry.ErrTLSAuthority, says: []string{"is signed by itself, and this machine does not trust it"}},
		{name: "missing in between", by: between, edit: plain, class: registry.ErrTLSAuthority, says: []string{`is signed by "Between", whom this machine does not trust (or the server leaves out a certificate in between)`}},
		{name: "whole chain", by: between, edit: plain, chain: []*issuer{between}},
		{name: "for clients", by: ca, edit: func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }, class: registry.ErrTLS, says: []string{"is not valid: certificate specifies an incompatible key usage"}},
		{name: "old TLS", by: ca, edit: plain, config: func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 }, class: registry.ErrTLS,
			says: []string{"speaks no TLS that imgfs has, which is 1.2 and 1.3: protocol version not supported"}},
		{name: "no cipher in common", by: ca, edit: plain, config: func(c *tls.Config) {
			c.MaxVersion, c.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_RSA_WITH_RC4_128_SHA}
		}, class: registry.ErrTLS, says: []string{"has nothing in common with TLS 1.2 and 1.3 here", "handshake failure"}},
		{name: "client certificate", by: ca, edit: plain, config: func(c *tls.Config) { c.ClientAuth = tls.RequireAnyClientCert }, class: registry.ErrTLSClient,
			says: []string{"wants a client certificate: certificate required"}},
		{name: "client certificate in HTTP/2", by: ca, edit: plain, http2: true, config: func(c *tls.Config) { c.ClientAuth = tls.RequireAnyClientCert },
			class: registry.ErrTLSClient, says: []string{"wants a client certificate: certificate required"}},
		{name: "another client certificate", by: ca, edit: plain, shown: true, config: func(c *tls.Config) {
			c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
		}, class: registry.ErrTLSClient, says: []string{"refuses the client certificate: "}},
		{name: "client certificate in TLS 1.2", by: ca, edit: plain, config: func(c *tls.Config) { c.ClientAuth, c.MaxVersion = tls.RequireAnyClientCert, tls.VersionTLS12 },
			class: registry.ErrTLS, says: []string{"or wants a client certificate: handshake failure"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			leaf := issue(t, tc.by, tc.edit)
			pair := tls.Certificate{Certificate: [][]byte{leaf.cert.Raw}, PrivateKey: leaf.key}
			for _, c := range tc.chain {
				pair.Certificate = append(pair.Certificate, c.cert.Raw)
			}
			ts := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, `{"tags":["x"]}`) }))
			ts.Config.ErrorLog = log.New(io.Discard, "", 0)
			ts.TLS, ts.EnableHTTP2 = &tls.Config{Certificates: []tls.Certificate{pair}}, tc.http2
			if tc.config != nil {
				tc.config(ts.TLS)
			}
			ts.StartTLS()
			defer ts.Close()
			var client *issuer
			if tc.shown {
				client = issue(t, stranger, plain)
			}
			checkTLS(t, ts.Listener.Addr().String(), ca, client, tc.class, tc.says)
		})
	}
}

// checkTLS asks a server by https, trusting ca and showing client unless that is
// nil, and compares what is wrong.
func checkTLS(t *testing.T, host string, ca, client *issuer, class error, says []string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), host)
	if err := os.Mkdir(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, der []byte) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("ca.crt", "CERTIFICATE", ca.cert.Raw)
	if client != nil {
		key, err := x509.MarshalPKCS8PrivateKey(client.key)
		if err != nil {
			t.Fatal(err)
		}
		write("me.cert", "CERTIFICATE", client.cert.Raw)
		write("me.key", "PRIVATE KEY", key)
	}
	opts, yes := fast(), true
	opts.CertDirs, opts.TLSVerify = []string{filepath.Dir(dir)}, &yes
	opts.MinBackoff, opts.MaxBackoff = time.Second, time.Second // it is not to be tried again
	var log lines
	opts.Logf = log.printf
	c := registry.New(opts)
	defer c.Close()
	_, err := c.Repository(remote.Reference{Registry: host, Repository: "app", Tag: "latest"}).Tags(t.Context())
	if class == nil {
		if err != nil {
			t.Error(err)
		}
		return
	}
	if !errors.Is(err, class) || !errors.Is(err, registry.ErrTLS) || registry.NoAnswer(err) || registry.HostOf(err) != host {
		t.Fatalf("got error %v about %q, want %v about %s", err, registry.HostOf(err), class, host)
	}
	for _, other := range []error{registry.ErrTLSName, registry.ErrTLSDate, registry.ErrTLSAuthority, registry.ErrTLSPlain, registry.ErrTLSClient} {
		if other != class && errors.Is(err, other) {
			t.Errorf("got error %v of two kinds", err)
		}
	}
	for _, text := range append(says, host) {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("got error %v, want it to say %q", err, text)
		}
	}
	// net/http forgets why an HTTP/2 connection ended before its first request.
	const forgotten = "http2: client conn could not be established"
	if text := log.all(); strings.Count(text, "again") > strings.Count(text, forgotten) {
		t.Errorf("it was tried again: %s", text)
	}
}

// Servers that do not speak TLS at all.
func TestNoTLS(t *testing.T) {
	ca := issue(t, nil, authority("ca"))
	t.Run("http", func(t *testing.T) {
		checkTLS(t, registrytest.New(t, nil).Host(), ca, nil, registry.ErrTLSPlain, []string{"answers in plain http, and not by https"})
	})
	for name, banner := range map[string]string{"ssh": "SSH-2.0-OpenSSH_9.6\r\n", "http 0.9": "<!DOCTYPE HTML><html>bad request</html>"} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			go func() {
				for {
					conn, err := l.Accept()
					if err != nil {
						return
					}
					_, _ = io.WriteString(conn, banner)
					_, _ = conn.Read(make([]byte, 1024)) // or closing would reset the connection
					conn.Close()
				}
			}()
			checkTLS(t, l.Addr().String(), ca, nil, registry.ErrTLSPlain, []string{"does not speak TLS"})
		})
	}
}

// The server at fault can be the storage.
func TestTLSOfStorage(t *testing.T) {
	s := registrytest.New(t, &registrytest.Options{TLS: true, CDN: true})
	stranger := httptest.NewUnstartedServer(http.NotFoundHandler())
	leaf := issue(t, nil, func(*x509.Certificate) {})
	stranger.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{leaf.cert.Raw}, PrivateKey: leaf.key}}}
	stranger.Config.ErrorLog = log.New(io.Discard, "", 0)
	stranger.StartTLS()
	defer stranger.Close()
	s.Inject(registrytest.Blob, registrytest.Always(registrytest.Redirect(stranger.URL+"/x")))
	opts := fast()
	trust(t, s, opts)
	b := blobOf(t, open(t, s, opts), s.PutBlob(ocispec.MediaTypeImageLayer, noise(1, 1000)))
	_, err := b.ReadAt(t.Context(), make([]byte, 10), 0)
	if want := stranger.Listener.Addr().String(); !errors.Is(err, registry.ErrTLSAuthority) || registry.HostOf(err) != want {
		t.Errorf("got error %v about %q, want %v about %s", err, registry.HostOf(err), registry.ErrTLSAuthority, want)
	}
}

// By which proxy a server is asked is logged once, and what the proxy does wrong is
// told as its own: without its password.
func TestProxyWords(t *testing.T) {
	connect := func(status int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Proxy-Authenticate", "Basic realm=proxy")
			w.WriteHeader(status)
		}
	}
	closed := httptest.NewServer(http.NotFoundHandler())
	closed.Close()
	for _, tc := range []struct {
		name    string
		handler http.HandlerFunc // nil: nobody is there
		says    string
	}{
		{"login", connect(407), "does not connect to r.example:443: 407 Proxy Authentication Required"},
		{"forbidden", connect(403), "does not connect to r.example:443: 403 Forbidden"},
		{"bad gateway", connect(502), "does not connect to r.example:443: 502 Bad Gateway"},
		{"absent", nil, "cannot be reached: "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			address := closed.Listener.Addr().String()
			if tc.handler != nil {
				ts := httptest.NewServer(tc.handler)
				defer ts.Close()
				address = ts.Listener.Addr().String()
			}
			opts := fast()
			var log lines
			opts.Logf = log.printf
			opts.Credential = knows(hosts.Credential{User: "u", Password: "p"}, nil)
			opts.Proxy = http.ProxyURL(&url.URL{Scheme: "http", Host: address, User: url.UserPassword("u", "secret-p")})
			client := registry.New(opts)
			defer client.Close()
			r := client.Repository(remote.Reference{Registry: "r.example", Repository: "app", Tag: "latest"})
			_, err := r.Tags(t.Context())
			if want := "the proxy http://" + address + " " + tc.says; !errors.Is(err, remote.ErrUnavailable) || !strings.Contains(err.Error(), want) {
				t.Errorf("got error %v, want %q", err, want)
			}
			_, _ = r.Tags(t.Context()) // nothing is logged twice
			text := log.all() + fmt.Sprint(err)
			if n := strings.Count(text, "r.example is asked by way of the proxy http://"+address); n != 1 || strings.Contains(text, "secret") {
				t.Errorf("the proxy is named %d times in %s", n, text)
			}
		})
	}
	opts := fast()
	opts.Proxy = func(*http.Request) (*url.URL, error) {
		return nil, errors.New(`invalid proxy address "u:secret-p@x:y"`)
	}
	client := registry.New(opts)
	defer client.Close()
	_, err := client.Repository(remote.Reference{Registry: "r.example", Repository: "app", Tag: "latest"}).Tags(t.Context())
	if err == nil || !strings.Contains(err.Error(), "HTTPS_PROXY") || strings.Contains(err.Error(), "secret") {
		t.Errorf("a proxy that makes no sense: got error %v", err)
	}
}

// A file in a directory of certificates that is of no use is passed over, with a
// warning, and stands in the error if there is no secure connection without it.
func TestCertificatesPassedOver(t *testing.T) {
	s := registrytest.New(t, &registrytest.Options{TLS: true})
	s.Tag("app", "latest", s.PutManifest(ocispec.MediaTypeImageManifest, []byte(testManifest)).Digest)
	good := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	for name, tc := range map[string]struct {
		file, says string
		make       func(path string) error
	}{
		"no certificate":  {"bad.crt", "bad.crt: no certificate in it", func(path string) error { return os.WriteFile(path, []byte("secret"), 0o600) }},
		"link to nothing": {"bad.crt", "bad.crt: no such file or directory", func(path string) error { return os.Symlink("nothing", path) }},
		"directory":       {"bad.crt", "bad.crt: is a directory", func(path string) error { return os.Mkdir(path, 0o700) }},
		"no key":          {"client.cert", "client.key: no such file or directory", func(path string) error { return os.WriteFile(path, good, 0o600) }},
		"no pair": {"client.cert", "client.cert: tls: failed to find any PEM data in certificate input", func(path string) error {
			return errors.Join(os.WriteFile(path, nil, 0o600), os.WriteFile(strings.TrimSuffix(path, "cert")+"key", nil, 0o600))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), s.Host())
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := tc.make(filepath.Join(dir, tc.file)); err != nil {
				t.Fatal(err)
			}
			resolve := func() (string, error) {
				opts := fast()
				var warned lines
				opts.Warnf, opts.CertDirs = warned.printf, []string{filepath.Dir(dir)}
				client := registry.New(opts)
				defer client.Close()
				for range 2 {
					if _, err := client.Repository(reference(s)).Resolve(t.Context()); err != nil {
						return warned.all(), err
					}
				}
				return warned.all(), nil
			}
			want := dir + "/" + tc.says
			if got, err := resolve(); got != want+": passed over" || !errors.Is(err, registry.ErrTLSAuthority) || !strings.HasSuffix(err.Error(), "; "+want) {
				t.Errorf("without a good one: warned of %s, error %v, want %s in both", got, err, want)
			}
			if err := os.WriteFile(filepath.Join(dir, "good.crt"), good, 0o600); err != nil {
				t.Fatal(err)
			}
			if got, err := resolve(); got != want+": passed over" || err != nil {
				t.Errorf("with a good one: warned of %s, error %v, want %s", got, err, want)
			}
		})
	}
}
