package registry_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
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

// A mirrored is an image that a registry and its mirrors have.
type mirrored struct {
	upstream *registrytest.Server
	mirrors  []*registrytest.Server
	top      ocispec.Descriptor
	layer    ocispec.Descriptor
	content  []byte
	opts     *registry.Options
	log      lines

	mu    sync.Mutex
	asked []string // for credentials
}

// credential knows one for each server, and notes for whom it was asked.
func (m *mirrored) credential(_ context.Context, host, repository string) (hosts.Credential, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked = append(m.asked, host+"/"+repository)
	return hosts.Credential{User: "of-" + host, Password: "p"}, nil
}

// newMirrored serves an image at a registry and n mirrors, which hosts.toml
// names: conf is what stands there under the URL of each mirror.
func newMirrored(t *testing.T, n int, conf string) *mirrored {
	t.Helper()
	m := &mirrored{content: noise(1, blobSize), opts: fast()}
	m.upstream = registrytest.New(t, &registrytest.Options{Login: registrytest.Bearer})
	m.serve(m.upstream)
	text := ""
	for range n {
		s := registrytest.New(t, &registrytest.Options{Login: registrytest.Bearer})
		m.serve(s)
		m.mirrors = append(m.mirrors, s)
		text += fmt.Sprintf("[host.%q]\n%s\n", s.URL(), conf)
	}
	m.opts.Sites = hostsToml(t, m.upstream.Host(), text)
	m.opts.Credential = m.credential
	m.opts.Logf = m.log.printf
	m.opts.MirrorCooldown = time.Hour
	return m
}

func (m *mirrored) serve(s *registrytest.Server) {
	m.layer = s.PutBlob(ocispec.MediaTypeImageLayer, m.content)
	m.top = s.PutManifest(ocispec.MediaTypeImageManifest, []byte(testManifest))
	s.Tag("app", "latest", m.top.Digest)
}

// hostsToml is a configuration with one hosts.toml.
func hostsToml(t *testing.T, host, text string) hosts.SiteFunc {
	t.Helper()
	root := t.TempDir()
	writeText(t, filepath.Join(root, strings.Replace(host, ":", "_", 1)+"_", "hosts.toml"), text)
	return loadFiles(t, &hosts.ConfigFiles{Registries: []string{}, HostDirs: []string{root}, DaemonJSON: []string{}})
}

// registriesConf is a configuration with one registries.conf.
func registriesConf(t *testing.T, text string) hosts.SiteFunc {
	t.Helper()
	path := writeText(t, filepath.Join(t.TempDir(), "registries.conf"), text)
	return loadFiles(t, &hosts.ConfigFiles{Registries: []string{path}, HostDirs: []string{}, DaemonJSON: []string{}})
}

// daemonJSON is a configuration with one daemon.json.
func daemonJSON(t *testing.T, text string) hosts.SiteFunc {
	t.Helper()
	path := writeText(t, filepath.Join(t.TempDir(), "daemon.json"), text)
	return loadFiles(t, &hosts.ConfigFiles{Registries: []string{}, HostDirs: []string{}, DaemonJSON: []string{path}})
}

// writeText writes a file, and makes its directory if need be.
func writeText(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	return path
}

func loadFiles(t *testing.T, files *hosts.ConfigFiles) hosts.SiteFunc {
	t.Helper()
	conf, err := files.Load()
	if err != nil {
		t.Fatal(err)
	}
	return conf.Sites
}

// use does with the image what mounting and reading do.
func (m *mirrored) use(t *testing.T, r *registry.Repository) {
	t.Helper()
	desc, err := r.Resolve(t.Context())
	if err != nil || desc.Digest != m.top.Digest {
		t.Fatalf("Resolve: got %v and error %v, want %v", desc, err, m.top)
	}
	if content, err := r.Fetch(t.Context(), m.top); err != nil || string(content) != testManifest {
		t.Errorf("Fetch: got %q and error %v", content, err)
	}
	m.read(t, r)
}

func (m *mirrored) read(t *testing.T, r *registry.Repository) {
	t.Helper()
	if err := check(t.Context(), blobOf(t, r, m.layer), m.content, readOff, readLen); err != nil {
		t.Error(err)
	}
}

// onlyOwn checks that s was sent no credential but its own.
func onlyOwn(t *testing.T, s *registrytest.Server) {
	t.Helper()
	for _, r := range s.Requests() {
		user, password, ok := (&http.Request{Header: r.Header}).BasicAuth()
		if got := user + ":" + password; ok && got != "of-"+s.Host()+":p" {
			t.Errorf("%s was sent the credential %s", s.Host(), got)
		}
	}
}

// All is asked of the first mirror while it answers, with its own credential.
func TestMirrorFirst(t *testing.T) {
	m := newMirrored(t, 2, "")
	m.use(t, open(t, m.upstream, m.opts))
	if n, n2 := m.mirrors[1].Count(), m.upstream.Count(); n+n2 > 0 {
		t.Errorf("got %d requests at the second mirror and %d at the registry, want none", n, n2)
	}
	onlyOwn(t, m.mirrors[0])
	for _, host := range m.asked {
		if want := m.mirrors[0].Host() + "/app"; host != want {
			t.Errorf("asked for the credential of %s, want that of %s", host, want)
		}
	}
}

// 20 and 21: whatever is wrong with a mirror, the next place is asked, the
// mirror is left alone for its rest, and it gets no credential but its own.
func TestBadMirror(t *testing.T) {
	always := registrytest.Always
	for _, tc := range []struct {
		name  string
		fault func(*registrytest.Server) registrytest.Fault // of all that the mirror is asked for
		close bool
		most  int // requests at the mirror, besides those for a token
	}{
		{name: "refuses connections", close: true},
		{name: "404", fault: just(registrytest.Status(404)), most: 3}, // without a login and with it, and by GET
		{name: "401", fault: just(registrytest.Status(401)), most: 3},
		{name: "403", fault: just(registrytest.Status(403)), most: 3},
		{name: "400", fault: just(registrytest.Status(400)), most: 3},
		{name: "500", fault: just(registrytest.Status(500)), most: 3},
		{name: "503 and Retry-After", fault: just(registrytest.Status(503, "Retry-After", "3600")), most: 2},
		{name: "429 and a short Retry-After", fault: just(registrytest.Status(429, "Retry-After", "100")), most: 2},
		{name: "web page", fault: just(registrytest.Page()), most: 2},
		{name: "reset", fault: just(registrytest.Reset(-1)), most: 4},
		{name: "silent", fault: func(s *registrytest.Server) registrytest.Fault { return s.Stall(-1) }, most: 1},
		{name: "redirect loop", fault: just(registrytest.Redirect("?again")), most: 12},
		{name: "other content", fault: just(registrytest.FlipBit()), most: 6},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			m := newMirrored(t, 2, "")
			bad, good := m.mirrors[0], m.mirrors[1]
			m.opts.MirrorTimeout = 300 * time.Millisecond
			if tc.close {
				bad.Close()
			} else {
				for _, kind := range []registrytest.Kind{registrytest.Manifest, registrytest.Blob, registrytest.Tags} {
					bad.Inject(kind, always(tc.fault(bad)))
				}
			}
			r := open(t, m.upstream, m.opts)
			begun := time.Now()
			if tc.name == "other content" {
				// A head has no bit to flip, and a range no digest.
				if content, err := r.Fetch(t.Context(), m.top); err != nil || string(content) != testManifest {
					t.Errorf("Fetch: got %q and error %v", content, err)
				}
			}
			m.use(t, r)
			if d := time.Since(begun); d > 5*time.Second {
				t.Errorf("took %s", d)
			}
			if n := bad.Count(registrytest.Manifest, registrytest.Blob); n > tc.most {
				t.Errorf("got %d requests at the bad mirror, want at most %d", n, tc.most)
			}
			if n := m.upstream.Count(); n > 0 {
				t.Errorf("got %d requests at the registry, want none", n)
			}
			bad.Forget()
			m.read(t, r)
			if n := bad.Count(); n > 0 {
				t.Errorf("got %d requests at the mirror during its rest, want none", n)
			}
			good.Close()
			m.read(t, r)
			if n := m.upstream.Count(registrytest.Blob); n == 0 {
				t.Error("the registry is not asked when no mirror is left")
			}
			for _, s := range []*registrytest.Server{bad, good, m.upstream} {
				onlyOwn(t, s)
			}
			if n := strings.Count(m.log.all(), "mirror "+bad.Host()+"/v2"); n != 1 {
				t.Errorf("the log has %d lines about the mirror, want 1:\n%s", n, m.log.all())
			}
			if strings.Contains(m.log.all(), "secret") {
				t.Errorf("the log tells a secret: %s", m.log.all())
			}
		})
	}
}

func just(f registrytest.Fault) func(*registrytest.Server) registrytest.Fault {
	return func(*registrytest.Server) registrytest.Fault { return f }
}

// A mirror is asked again when its rest is over, by one reader at first.
func TestMirrorAgain(t *testing.T) {
	testenv.Slow(t)
	m := newMirrored(t, 1, "")
	m.opts.MirrorCooldown, m.opts.MirrorTimeout = 300*time.Millisecond, 10*time.Second
	mirror := m.mirrors[0]
	mirror.Inject(registrytest.Blob, registrytest.Always(registrytest.Status(404)))
	r := open(t, m.upstream, m.opts)
	m.read(t, r)
	rested := time.After(m.opts.MirrorCooldown)
	mirror.Forget()
	<-rested
	// Still bad: of all readers one notices.
	readers(t, 10, func(i int) error { return check(t.Context(), blobOf(t, r, m.layer), m.content, i*1000, 1000) })
	if n := mirror.Count(registrytest.Blob); n != 1 {
		t.Errorf("10 readers asked the mirror %d times after its rest, want once", n)
	}
	mirror.Inject(registrytest.Blob, nil)
	<-time.After(m.opts.MirrorCooldown)
	m.read(t, r)
	m.upstream.Forget()
	m.read(t, r)
	if n := m.upstream.Count(); n > 0 {
		t.Errorf("got %d requests at the registry after the mirror was well again, want none", n)
	}
	if !strings.Contains(m.log.all(), "answers again") {
		t.Errorf("the log does not say that the mirror answers again:\n%s", m.log.all())
	}
}

// A read that a mirror breaks off goes on at the registry where it broke.
func TestMirrorBreaksOff(t *testing.T) {
	m := newMirrored(t, 1, "")
	mirror := m.mirrors[0]
	r := open(t, m.upstream, m.opts)
	m.use(t, r)
	mirror.Inject(registrytest.Blob, func(n int) registrytest.Fault {
		if n == 1 {
			return registrytest.Reset(readLen / 2)
		}
		return registrytest.Status(500)
	})
	m.read(t, r)
	requests := m.upstream.Requests(registrytest.Blob)
	if len(requests) == 0 {
		t.Fatal("the registry was not asked")
	}
	first := 0
	if _, err := fmt.Sscanf(requests[len(requests)-1].Range, "bytes=%d-", &first); err != nil || first <= readOff {
		t.Errorf("the registry was asked for %s, want the rest alone", requests[len(requests)-1].Range)
	}
}

// One error of a mirror's own is no reason to leave it.
func TestMirrorBurst(t *testing.T) {
	m := newMirrored(t, 1, "")
	r := open(t, m.upstream, m.opts)
	m.use(t, r)
	m.mirrors[0].Inject(registrytest.Blob, registrytest.Once(registrytest.Status(502)))
	m.read(t, r)
	if n := m.upstream.Count(); n > 0 {
		t.Errorf("got %d requests at the registry, want none", n)
	}
}

// What nobody has is not found, and what the registry says is the truth.
func TestMirrorNotFound(t *testing.T) {
	m := newMirrored(t, 2, "")
	r := open(t, m.upstream, m.opts)
	absent := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromString("absent"), Size: 10}
	if _, err := blobOf(t, r, absent).ReadAt(t.Context(), make([]byte, 10), 0); !errors.Is(err, remote.ErrNotFound) ||
		!strings.Contains(err.Error(), "mirror "+m.mirrors[0].Host()) {
		t.Errorf("got error %v, want %v, with what the mirrors say", err, remote.ErrNotFound)
	}
	for _, s := range append(m.mirrors, m.upstream) {
		if n := s.Count(registrytest.Blob); n > 3 { // one without a login, one without a range
			t.Errorf("got %d requests, want at most 3", n)
		}
	}
}

// Without the registry the mirrors are all there is: also those that failed a
// moment ago.
func TestMirrorIsAll(t *testing.T) {
	testenv.Slow(t)
	m := newMirrored(t, 1, "")
	r := open(t, m.upstream, m.opts)
	m.use(t, r)
	m.upstream.Close()
	m.mirrors[0].Inject(registrytest.Blob, registrytest.Times(5, registrytest.Status(500)))
	m.read(t, r)
	// But not one that gives wrong bytes.
	b := blobOf(t, r, m.layer).(remote.ElsewhereBlob)
	m.mirrors[0].Forget()
	for _, read := range []func(context.Context, []byte, int64) (int, error){b.ReadElsewhere, b.ReadAt} {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		if _, err := read(ctx, make([]byte, readLen), readOff); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got error %v, want that it waits for the registry", err)
		}
		cancel()
	}
	if n := m.mirrors[0].Count(); n > 0 {
		t.Errorf("got %d requests at the mirror with the wrong bytes, want none", n)
	}
}

// The time of a reader is shared: mirrors that never answer leave enough of
// it for the registry.
func TestMirrorsSilent(t *testing.T) {
	testenv.Slow(t)
	m := newMirrored(t, 3, "")
	m.opts.ReadTimeout, m.opts.MirrorTimeout = 4*time.Second, time.Hour
	for _, s := range m.mirrors {
		s.Inject(registrytest.Blob, registrytest.Always(s.Stall(-1)))
	}
	begun := time.Now()
	m.read(t, open(t, m.upstream, m.opts))
	if d := time.Since(begun); d > 4*time.Second {
		t.Errorf("took %s", d)
	}
}

// A server that accepts connections and no more is given up in the same time
// when it is to be found out whether it speaks TLS.
func TestMirrorSilentTLS(t *testing.T) {
	m := newMirrored(t, 0, "")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	m.opts.Sites = registriesConf(t, fmt.Sprintf("[[registry]]\nlocation = %q\n[[registry.mirror]]\nlocation = %q\ninsecure = true\n", m.upstream.Host(), l.Addr()))
	m.opts.MirrorTimeout = 200 * time.Millisecond
	begun := time.Now()
	m.use(t, open(t, m.upstream, m.opts))
	if d := time.Since(begun); d > 3*time.Second {
		t.Errorf("took %s", d)
	}
}

// A mirror that wants no login sees no credential, whatever the registry was
// sent before.
func TestMirrorAnonymous(t *testing.T) {
	m := newMirrored(t, 0, "")
	mirror := registrytest.New(t, nil)
	m.serve(mirror)
	m.opts.Sites = hostsToml(t, m.upstream.Host(), fmt.Sprintf("[host.%q]\n", mirror.URL()))
	m.opts.MirrorCooldown = time.Millisecond
	r := open(t, m.upstream, m.opts)
	for range 3 {
		mirror.Inject(registrytest.Blob, registrytest.Times(2, registrytest.Status(500)))
		m.use(t, r)
		<-time.After(2 * m.opts.MirrorCooldown)
	}
	if m.upstream.Count(registrytest.Blob) == 0 || mirror.Count(registrytest.Blob) < 3 {
		t.Fatal("not both were asked")
	}
	for _, r := range mirror.Requests() {
		if secret := r.Header.Get("Authorization"); secret != "" {
			t.Errorf("the mirror was sent %q", secret)
		}
	}
}
