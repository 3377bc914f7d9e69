package registry_test

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
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
	"github.com/imgfs/imgfs/testdata/testenv"
)

// Addresses of a namespace, and their names.
var (
	placeAddrs = []string{"203.0.113.5", "203.0.113.6", "10.1.2.3", "192.168.7.7", "100.64.1.1", "169.254.169.254", "fd12::1", "64:ff9b::7f00:1", "2001:db8::6"}
	placeNames = map[string][]string{
		"registry.test": {"203.0.113.5"}, "cdn.test": {"203.0.113.6"}, "cdn6.test": {"2001:db8::6"}, "lan.test": {"10.1.2.3"}, "lan2.test": {"192.168.7.7"},
		"carrier.test": {"100.64.1.1"}, "meta.test": {"169.254.169.254"}, "ula.test": {"fd12::1"}, "nat64.test": {"64:ff9b::7f00:1"},
		"self.test": {"127.0.0.1"}, "mapped.test": {"::ffff:127.0.0.1"}, "zero.test": {"0.0.0.0"},
		"mixed.test": {"127.0.0.1", "203.0.113.6"}, "mixed6.test": {"fd12::1", "203.0.113.6"}, "flip.test": {"203.0.113.6"},
	}
)

// A town has a server at each address, which serves the repository app, or
// sends its readers on.
type town struct {
	scheme string
	names  *nameServer

	mu      sync.Mutex
	servers []*httptest.Server
	visits  map[string]int // connections by address
	asked   map[string]int // requests by address and name
	lead    func(w http.ResponseWriter, r *http.Request) bool
}

var townBlob = noise(7, 5000)

func newTown(t *testing.T, scheme string) *town {
	t.Helper()
	v := &town{scheme: scheme, visits: make(map[string]int), asked: make(map[string]int), names: newNameServer(t, copyOf(placeNames))}
	port := "80"
	if scheme == "https" {
		port = "443"
	}
	for _, addr := range append([]string{"127.0.0.1"}, placeAddrs...) {
		l, err := net.Listen("tcp", net.JoinHostPort(addr, port))
		if err != nil {
			t.Fatal(err)
		}
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { v.serve(w, r, addr) }))
		s.Listener.Close()
		s.Listener, s.EnableHTTP2 = l, true
		s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
			if state == http.StateNew {
				v.mu.Lock()
				v.visits[addr]++
				v.mu.Unlock()
			}
		}
		if scheme == "https" {
			s.StartTLS()
		} else {
			s.Start()
		}
		t.Cleanup(s.Close)
		v.servers = append(v.servers, s)
	}
	return v
}

func copyOf(m map[string][]string) map[string][]string {
	c := make(map[string][]string)
	for name, addrs := range m {
		c[name] = addrs
	}
	return c
}

func (v *town) serve(w http.ResponseWriter, r *http.Request, addr string) {
	v.mu.Lock()
	v.asked[addr]++
	lead := v.lead
	v.mu.Unlock()
	switch {
	case lead != nil && lead(w, r):
	case strings.HasPrefix(r.URL.Path, "/token"):
		fmt.Fprint(w, `{"token":"abc"}`)
	case strings.HasSuffix(r.URL.Path, "/tags/list"):
		fmt.Fprint(w, `{"tags":["latest"]}`)
	case strings.HasSuffix(r.URL.Path, "/manifests/latest"):
		w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
		w.Header().Set("Docker-Content-Digest", digest.FromBytes(townBlob).String())
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(string(townBlob)))
	default:
		http.ServeContent(w, r, "blob", time.Time{}, strings.NewReader(string(townBlob)))
	}
}

// begin has servers of a host lead readers on by lead, and forgets what was
// asked before.
func (v *town) begin(lead func(w http.ResponseWriter, r *http.Request) bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.lead = lead
	clear(v.visits)
	clear(v.asked)
}

// visited returns how many connections an address got.
func (v *town) visited(addr string) int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.visits[addr]
}

func (v *town) requests(addr string) int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.asked[addr]
}

func (v *town) client(t *testing.T, opts *registry.Options) *registry.Client {
	t.Helper()
	anything := false
	opts.TLSVerify = &anything
	client := registry.New(opts)
	t.Cleanup(func() { client.Close() })
	return client
}

func appAt(client *registry.Client, host string) *registry.Repository {
	return client.Repository(remote.Reference{Registry: host, Repository: "app", Tag: "latest"})
}

// The things that a registry can send its readers away with.
var leads = map[string]func(v *town, from, to string) func(w http.ResponseWriter, r *http.Request) bool{
	"redirect": func(v *town, from, to string) func(w http.ResponseWriter, r *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if r.Host != from || r.URL.Path == "/v2/" {
				return false
			}
			http.Redirect(w, r, v.scheme+"://"+to+"/elsewhere"+r.URL.Path, http.StatusTemporaryRedirect)
			return true
		}
	},
	"realm": func(v *town, from, to string) func(w http.ResponseWriter, r *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if r.Host != from || r.URL.Path == "/v2/" || r.Header.Get("Authorization") != "" {
				return false
			}
			w.Header().Set("Www-Authenticate", fmt.Sprintf(`Bearer realm="%s://%s/token",service="x"`, v.scheme, to))
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}
	},
	"redirect of the token server": func(v *town, from, to string) func(w http.ResponseWriter, r *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			switch {
			case r.Host == from && r.URL.Path != "/v2/" && !strings.HasPrefix(r.URL.Path, "/token") && r.Header.Get("Authorization") == "":
				w.Header().Set("Www-Authenticate", fmt.Sprintf(`Bearer realm="%s://%s/token",service="x"`, v.scheme, from))
				w.WriteHeader(http.StatusUnauthorized)
			case r.Host == from && strings.HasPrefix(r.URL.Path, "/token"):
				http.Redirect(w, r, v.scheme+"://"+to+"/token", http.StatusFound)
			default:
				return false
			}
			return true
		}
	},
	"second redirect": func(v *town, from, to string) func(w http.ResponseWriter, r *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			switch {
			case r.Host == from && r.URL.Path != "/v2/":
				http.Redirect(w, r, v.scheme+"://cdn.test/hop"+r.URL.Path, http.StatusFound)
			case r.Host == "cdn.test" && strings.HasPrefix(r.URL.Path, "/hop"):
				http.Redirect(w, r, v.scheme+"://"+to+strings.Replace(r.URL.Path, "/hop", "/elsewhere", 1), http.StatusFound)
			default:
				return false
			}
			return true
		}
	},
}

// What is asked of a registry.
var errands = map[string]func(t *testing.T, r *registry.Repository) error{
	"blob": func(t *testing.T, r *registry.Repository) error {
		b := blobOf(t, r, ocispec.Descriptor{Digest: digest.FromBytes(townBlob), Size: int64(len(townBlob))})
		return check(t.Context(), b, townBlob, 100, 1000)
	},
	"config": func(t *testing.T, r *registry.Repository) error {
		_, err := r.Fetch(t.Context(), ocispec.Descriptor{Digest: digest.FromBytes(townBlob), Size: int64(len(townBlob))})
		return err
	},
	"tags": func(t *testing.T, r *registry.Repository) error {
		_, err := r.Tags(t.Context())
		return err
	},
	"tag": func(t *testing.T, r *registry.Repository) error {
		_, err := r.Resolve(t.Context())
		return err
	},
}

// 27: the address that is dialled decides where a registry may lead.
func TestFault27PrivateAddress(t *testing.T) {
	testenv.Slow(t)
	if !inNamespace(t, placeAddrs...) {
		return
	}
	for proto, scheme := range map[string]string{"HTTP/1.1": "http", "HTTP/2": "https"} {
		t.Run(proto, func(t *testing.T) { testPrivate(t, newTown(t, scheme)) })
	}
}

func testPrivate(t *testing.T, v *town) {
	for _, tc := range []struct {
		from, to string
		addr     string // that must be asked, or must not
		refused  bool
		only     string // one way to lead there; default: all
		allow    bool
	}{
		{from: "registry.test", to: "cdn.test", addr: "203.0.113.6"},
		{from: "registry.test", to: "cdn6.test", addr: "2001:db8::6"},
		{from: "registry.test", to: "self.test", addr: "127.0.0.1", refused: true},
		{from: "registry.test", to: "mapped.test", addr: "127.0.0.1", refused: true},
		{from: "registry.test", to: "zero.test", addr: "127.0.0.1", refused: true},
		{from: "registry.test", to: "meta.test", addr: "169.254.169.254", refused: true},
		{from: "registry.test", to: "lan.test", addr: "10.1.2.3", refused: true},
		{from: "registry.test", to: "lan2.test", addr: "192.168.7.7", refused: true},
		{from: "registry.test", to: "carrier.test", addr: "100.64.1.1", refused: true},
		{from: "registry.test", to: "ula.test", addr: "fd12::1", refused: true},
		{from: "registry.test", to: "nat64.test", addr: "64:ff9b::7f00:1", refused: true},
		{from: "registry.test", to: "127.0.0.1", addr: "127.0.0.1", refused: true, only: "redirect"},
		{from: "registry.test", to: "localhost", addr: "127.0.0.1", refused: true, only: "redirect"},
		{from: "registry.test", to: "10.1.2.3", addr: "10.1.2.3", refused: true, only: "realm"},
		{from: "registry.test", to: "[fd12::1]", addr: "fd12::1", refused: true, only: "redirect"},
		{from: "registry.test", to: "self.test", addr: "127.0.0.1", allow: true},
		{from: "registry.test", to: "10.1.2.3", addr: "10.1.2.3", allow: true},
		{from: "lan.test", to: "lan2.test", addr: "192.168.7.7", only: "redirect"},
		{from: "lan.test", to: "lan2.test", addr: "192.168.7.7", only: "realm"},
		{from: "lan.test", to: "cdn.test", addr: "203.0.113.6"},
		{from: "lan.test", to: "lan2.test", addr: "192.168.7.7", refused: true, only: "second redirect"},
		{from: "lan.test", to: "self.test", addr: "127.0.0.1", refused: true},
		{from: "lan.test", to: "meta.test", addr: "169.254.169.254", refused: true},
		{from: "self.test", to: "lan.test", addr: "10.1.2.3", only: "redirect"},
		{from: "127.0.0.1", to: "lan.test", addr: "10.1.2.3", only: "realm"},
		{from: "127.0.0.1", to: "localhost", addr: "127.0.0.1", only: "redirect of the token server"},
	} {
		for how, lead := range leads {
			if tc.only != "" && tc.only != how {
				continue
			}
			for what, errand := range errands {
				t.Run(fmt.Sprintf("%s to %s by %s for %s", tc.from, tc.to, how, what), func(t *testing.T) {
					v.begin(lead(v, tc.from, tc.to))
					opts := fast()
					opts.AllowPrivate = tc.allow
					err := errand(t, appAt(v.client(t, opts), tc.from))
					if !tc.refused {
						if err != nil || v.requests(tc.addr) == 0 {
							t.Errorf("got error %v and %d requests at %s, want some", err, v.requests(tc.addr), tc.addr)
						}
						return
					}
					if n := v.visited(tc.addr); !errors.Is(err, registry.ErrPrivate) || n > 0 {
						t.Errorf("got error %v and %d connections to %s, want %v and none", err, n, tc.addr, registry.ErrPrivate)
					} else if !strings.Contains(err.Error(), tc.from+" leads to "+strings.Trim(tc.to, "[]")) && !strings.Contains(err.Error(), tc.from+" leads to "+tc.to) {
						t.Errorf("got error %v, want one that names %s and %s", err, tc.from, tc.to)
					}
				})
			}
		}
	}
	t.Run("some addresses refused", func(t *testing.T) { testPrivateMixed(t, v) })
	t.Run("name changes", func(t *testing.T) { testPrivateRebinding(t, v) })
	t.Run("open connection", func(t *testing.T) { testPrivateOpenConnection(t, v) })
	t.Run("named by the user", func(t *testing.T) { testPrivateNamed(t, v) })
}

// Of several addresses those are passed over that are refused.
func testPrivateMixed(t *testing.T, v *town) {
	for _, to := range []string{"mixed.test", "mixed6.test"} {
		v.begin(leads["redirect"](v, "registry.test", to))
		err := errands["blob"](t, appAt(v.client(t, fast()), "registry.test"))
		if err != nil || v.requests("203.0.113.6") == 0 || v.visited("127.0.0.1")+v.visited("fd12::1") > 0 {
			t.Errorf("%s: got error %v and connections %v", to, err, v.visits)
		}
	}
}

// A name that changes its mind leads nowhere, neither that of a storage nor
// that of the registry.
func testPrivateRebinding(t *testing.T, v *town) {
	for _, from := range []string{"registry.test", "flip.test"} {
		v.names.set("flip.test", "203.0.113.6")
		v.begin(nil)
		if from == "registry.test" {
			v.begin(leads["redirect"](v, from, "flip.test"))
		}
		r := appAt(v.client(t, fast()), from)
		if err := errands["blob"](t, r); err != nil || v.requests("203.0.113.6") == 0 {
			t.Errorf("%s: got error %v", from, err)
		}
		v.names.set("flip.test", "127.0.0.1")
		for _, s := range v.servers {
			s.CloseClientConnections()
		}
		err := errands["blob"](t, r)
		if n := v.visited("127.0.0.1"); !errors.Is(err, registry.ErrPrivate) || n > 0 {
			t.Errorf("%s: got error %v and %d connections", from, err, n)
		}
	}
}

// A connection that the user's own words led to is not for others.
func testPrivateOpenConnection(t *testing.T, v *town) {
	v.begin(leads["redirect"](v, "registry.test", "lan.test"))
	client := v.client(t, fast())
	if err := errands["blob"](t, appAt(client, "lan.test")); err != nil {
		t.Fatal(err)
	}
	before := v.requests("10.1.2.3")
	err := errands["blob"](t, appAt(client, "registry.test"))
	if n := v.requests("10.1.2.3") - before; !errors.Is(err, registry.ErrPrivate) || n > 0 {
		t.Errorf("got error %v and %d requests", err, n)
	}
}

// A server that has a directory of certificates may be led to.
func testPrivateNamed(t *testing.T, v *town) {
	opts := fast()
	dir := t.TempDir()
	opts.CertDirs = []string{dir}
	if err := os.Mkdir(filepath.Join(dir, "lan.test"), 0o755); err != nil {
		t.Fatal(err)
	}
	v.begin(leads["redirect"](v, "registry.test", "lan.test"))
	if err := errands["blob"](t, appAt(v.client(t, opts), "registry.test")); err != nil || v.requests("10.1.2.3") == 0 {
		t.Errorf("got error %v and %d requests", err, v.requests("10.1.2.3"))
	}
	v.begin(leads["redirect"](v, "registry.test", "lan2.test"))
	if err := errands["blob"](t, appAt(v.client(t, opts), "registry.test")); !errors.Is(err, registry.ErrPrivate) {
		t.Errorf("another server: got error %v, want %v", err, registry.ErrPrivate)
	}
}
