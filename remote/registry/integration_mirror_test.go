package registry_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/registry"
	"github.com/imgfs/imgfs/remote/registry/hosts"
	"github.com/imgfs/imgfs/remote/sourcetest"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// A realRegistry is Debian's docker-registry with an image a/b:latest that
// skopeo pushed there.
type realRegistry struct {
	host  string
	stop  func()
	top   ocispec.Descriptor
	layer []byte
}

func startRealRegistry(t *testing.T) *realRegistry {
	t.Helper()
	needPrograms(t, "docker-registry", "skopeo")
	store := sourcetest.NewStore()
	r := &realRegistry{layer: noise(1, 3<<20)}
	r.top = store.AddImage(sourcetest.Image{Layers: []sourcetest.Layer{{Content: r.layer}}})
	r.host, r.stop = startDockerRegistryAt(t, freeAddress(t), "")
	out, err := exec.Command("skopeo", "copy", "--quiet", "--preserve-digests", "--dest-tls-verify=false",
		"oci:"+writeLayout(t, store, r.top), "docker://"+r.host+"/a/b:latest").CombinedOutput()
	if err != nil {
		t.Fatalf("skopeo: %v\n%s", err, out)
	}
	return r
}

// open resolves the image by way of a configuration. traced returns how often
// a host was asked since it was called last.
func (r *realRegistry) open(t *testing.T, conf hosts.SiteFunc) (img *remote.Image, traced func(host string) int) {
	t.Helper()
	opts := fast()
	opts.Sites = conf
	var trace lines
	opts.Tracef = trace.printf
	client := registry.New(opts)
	t.Cleanup(func() {
		if err := client.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	img, err := remote.Open(t.Context(), client.Repository(remote.Reference{Registry: r.host, Repository: "a/b", Tag: "latest"}), "")
	if err != nil {
		t.Fatal(err)
	}
	if img.Top.Digest != r.top.Digest {
		t.Errorf("got manifest %s, want %s", img.Top.Digest, r.top.Digest)
	}
	seen := 0
	return img, func(host string) int {
		all := trace.all()
		defer func() { seen = len(all) }()
		return strings.Count(all[seen:], "://"+host+"/")
	}
}

// A pull-through cache sends a blob whole that it does not have yet.
func TestPullThrough(t *testing.T) {
	testenv.Slow(t)
	r := startRealRegistry(t)
	cache := startDockerRegistry(t, fmt.Sprintf("proxy: {remoteurl: \"http://%s\"}\n", r.host))
	img, traced := r.open(t, hostsToml(t, r.host, fmt.Sprintf("[host.\"http://%s\"]\n", cache)))
	readers(t, 20, func(i int) error { return check(t.Context(), img.Layers[0], r.layer, i*100_000, 70_000) })
	if err := check(t.Context(), img.Layers[0], r.layer, 0, len(r.layer)); err != nil {
		t.Error(err)
	}
	if n := traced(r.host); n > 0 {
		t.Errorf("got %d requests at the registry, want none", n)
	}
	// The registry is not needed for what the cache has. It keeps a blob some
	// time after it has sent it, and serves ranges of it from then on.
	waitForRanges(t, fmt.Sprintf("http://%s/v2/a/b/blobs/%s", cache, img.Layers[0].Digest()))
	r.stop()
	again, _ := r.open(t, hostsToml(t, r.host, fmt.Sprintf("[host.\"http://%s\"]\n", cache)))
	if err := check(t.Context(), again.Layers[0], r.layer, 1000, 1<<20); err != nil {
		t.Errorf("without the registry: %v", err)
	}
}

func waitForRanges(t *testing.T, url string) {
	t.Helper()
	for range 200 {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Range", "bytes=0-0")
		if resp, err := http.DefaultClient.Do(req); err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusPartialContent {
				return
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("%s is not served in ranges", url)
}

// nginx, with TLS, before a registry as its mirror; and gone.
func TestNginxMirror(t *testing.T) {
	testenv.Slow(t)
	needPrograms(t, "nginx")
	r := startRealRegistry(t)
	mirror, ca, stop := startNginx(t, r.host)
	for name, conf := range map[string]hosts.SiteFunc{
		"hosts.toml": hostsToml(t, r.host, fmt.Sprintf("[host.\"https://%s\"]\ncapabilities = [\"pull\", \"resolve\"]\nca = %q\n", mirror, ca)),
		"registries.conf": registriesConf(t, fmt.Sprintf("[[registry]]\nlocation = %q\n[[registry.mirror]]\nlocation = %q\ninsecure = true\n",
			r.host, mirror)),
	} {
		img, traced := r.open(t, conf)
		if err := check(t.Context(), img.Layers[0], r.layer, 1000, 1<<20); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if n := traced(r.host); n > 0 {
			t.Errorf("%s: got %d requests at the registry, want none", name, n)
		}
		if name == "registries.conf" {
			defer func() {
				stop()
				if err := check(t.Context(), img.Layers[0], r.layer, 0, len(r.layer)); err != nil {
					t.Errorf("without the mirror: %v", err)
				}
				if traced(r.host) == 0 {
					t.Error("without the mirror: the registry was not asked")
				}
			}()
		}
	}
}

// startNginx runs nginx with TLS before a server, and returns its host and
// the file of its certificate.
func startNginx(t *testing.T, upstream string) (host, ca string, stop func()) {
	t.Helper()
	dir := t.TempDir()
	host = freeAddress(t)
	cert, key := serverCertificate(t)
	ca = filepath.Join(dir, "server.crt")
	conf := fmt.Sprintf(`daemon off; master_process off; pid %[1]s/pid; error_log stderr;
events {}
http {
  access_log off;
  client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/fastcgi; uwsgi_temp_path %[1]s/uwsgi; scgi_temp_path %[1]s/scgi;
  server {
    listen %[2]s ssl;
    ssl_certificate %[1]s/server.crt; ssl_certificate_key %[1]s/server.key;
    location /v2/ { proxy_pass http://%[3]s; proxy_set_header Host $http_host; proxy_set_header X-Forwarded-Proto https; }
  }
}
`, dir, host, upstream)
	for name, content := range map[string]string{"server.crt": string(cert), "server.key": string(key), "nginx.conf": conf} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	stop = startServer(t, exec.Command("nginx", "-p", dir, "-e", "stderr", "-c", filepath.Join(dir, "nginx.conf")))
	waitForServer(t, host)
	return host, ca, stop
}

// serverCertificate returns a certificate for 127.0.0.1 and its key.
func serverCertificate(t *testing.T) (cert, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "nginx"}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
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
