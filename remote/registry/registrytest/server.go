// Package registrytest serves images over HTTP on loopback, as registries do,
// for tests and demonstrations. It can want a login, send readers of blobs on
// to a second server with URLs that expire, break answers in every way that
// networks and servers are known for, and keeps a record of its requests.
//
//	s := registrytest.New(t, &registrytest.Options{CDN: true})
//	desc := s.PutManifest(mediaType, content)
//	s.Tag("library/app", "latest", desc.Digest)
//	s.Inject(registrytest.Blob, registrytest.Once(registrytest.Reset(1000)))
//	// ... use the image s.Host() + "/library/app:latest"
//	if n := s.Count(registrytest.Blob); n > 2 { ... }
//
// With Writable clients can push to it, too. Artifacts are manifests (PutArtifact),
// and are found by the API for referrers, or, as by default, by the fallback tag alone.
package registrytest

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A TB has the methods of a testing.TB that New needs.
type TB interface {
	Helper()
	Cleanup(func())
	Fatalf(format string, args ...any)
}

// A Login says how clients have to log in.
type Login int

// None lets everyone in. Basic wants user and password with each request.
// Bearer wants a token of the server's own /token.
const (
	None Login = iota
	Basic
	Bearer
)

// Options are the settings of a Server. Nil and zero values mean the
// defaults.
type Options struct {
	// Addr is the address to listen on. Default: 127.0.0.1 and a free port.
	Addr string
	// TLS serves HTTPS with a certificate of its own, and HTTP/2 unless
	// HTTP1 is set. Default: plain HTTP/1.1.
	TLS, HTTP1 bool
	// Login says how clients have to log in. Default: not at all.
	Login Login
	// User and Password are the only ones let in. Default: with Basic no
	// one, with Bearer everyone gets a token.
	User, Password string
	// IdentityToken is a refresh token that /token takes as well.
	IdentityToken string
	// RefusedStatus answers a token that is not valid any more. Default:
	// 401 with a challenge; with another status there is no challenge.
	RefusedStatus int
	// Scope is demanded in challenges instead of the repository's.
	Scope string
	// CDN sends readers of blobs on to a second server, at another host name
	// or, with TLS, another port.
	CDN bool
	// URLLife is how long the URLs of the second server live. Default: 1
	// minute. Fractions of seconds are lost.
	URLLife time.Duration
	// Writable takes uploads of blobs, manifests and tags, and requests to
	// delete them; with Bearer a token must have the scope for that. Default: all
	// requests but GET and HEAD are answered with 405.
	Writable bool
	// TagPage is how many tags are listed at a time. Default: all.
	TagPage int
	// Referrers has the API for referrers, over the manifests of all repositories.
	// Default: it answers 404, as a server that does not know it.
	Referrers bool
	// Unfiltered has that API answer with all types whatever is asked for.
	Unfiltered bool
	// ReferrersPage is how many referrers are listed at a time. Default: all.
	ReferrersPage int
}

// A Server is a registry. It is safe for concurrent use.
type Server struct {
	opts Options
	main *httptest.Server
	cdn  *httptest.Server
	done chan struct{} // closed by Close

	closing sync.Once

	mu         sync.Mutex
	blobs      map[digest.Digest]content
	manifests  map[digest.Digest]manifest
	tags       map[string]map[string]digest.Digest // by repository
	tokens     map[string]string                   // with their scopes
	uploads    map[string]*upload
	sessions   int // uploads, for names
	issued     int // tokens, for names
	generation int // of signed URLs
	plans      map[Kind]*plan
	records    []*Record
}

// content is a blob in memory or in a file.
type content struct {
	data []byte
	path string
}

func (c content) open() (io.ReadSeekCloser, error) {
	if c.path != "" {
		return os.Open(c.path)
	}
	return struct {
		io.ReadSeeker
		io.Closer
	}{bytes.NewReader(c.data), io.NopCloser(nil)}, nil
}

type manifest struct {
	mediaType string
	data      []byte
}

// New starts a server. With a tb it is closed at the end of the test, and a
// failure to start ends the test; without one New panics on such a failure,
// and the caller closes the server.
func New(tb TB, opts *Options) *Server {
	s := &Server{
		done:      make(chan struct{}),
		blobs:     make(map[digest.Digest]content),
		manifests: make(map[digest.Digest]manifest),
		tags:      make(map[string]map[string]digest.Digest),
		tokens:    make(map[string]string),
		uploads:   make(map[string]*upload),
		plans:     make(map[Kind]*plan),
	}
	if opts != nil {
		s.opts = *opts
	}
	if s.opts.URLLife == 0 {
		s.opts.URLLife = time.Minute
	}
	fail := func(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }
	if tb != nil {
		tb.Helper()
		fail = tb.Fatalf
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/v2/", s.serveAPI)
	mux.HandleFunc("/token", s.serveToken)
	addr := s.opts.Addr
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	var err error
	if s.main, err = s.start(addr, mux); err == nil && s.opts.CDN {
		s.cdn, err = s.start("127.0.0.1:0", http.HandlerFunc(s.serveCDN))
	}
	if err != nil {
		fail("registrytest: %v", err)
	}
	if tb != nil {
		tb.Cleanup(s.Close)
	}
	return s
}

func (s *Server) start(addr string, handler http.Handler) (*httptest.Server, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	ts := &httptest.Server{Listener: l, Config: &http.Server{Handler: handler, ErrorLog: quiet()}, EnableHTTP2: !s.opts.HTTP1}
	if s.opts.TLS {
		ts.StartTLS()
	} else {
		ts.Start()
	}
	return ts, nil
}

// Close stops the server and ends the answers that are under way. It may be
// called more than once.
func (s *Server) Close() {
	s.closing.Do(func() {
		close(s.done)
		s.CloseConnections()
		s.main.Close()
		if s.cdn != nil {
			s.cdn.Close()
		}
	})
}

// Host returns the registry's name for references: "127.0.0.1:41234".
func (s *Server) Host() string { return s.main.Listener.Addr().String() }

// URL returns the root of the registry, without a slash at the end.
func (s *Server) URL() string { return s.main.URL }

// CDNHost returns the host of the second server.
func (s *Server) CDNHost() string {
	host := s.cdn.Listener.Addr().String()
	if s.opts.TLS {
		return host // the certificate has no other name
	}
	_, port, _ := net.SplitHostPort(host)
	return "localhost:" + port
}

// Hosts returns the hosts of the registry and of the second server, if there
// is one.
func (s *Server) Hosts() []string {
	if s.cdn == nil {
		return []string{s.Host()}
	}
	return []string{s.Host(), s.CDNHost()}
}

// Certificate returns the certificate that a client must trust to speak TLS with
// the server.
func (s *Server) Certificate() *x509.Certificate { return s.main.Certificate() }

// CloseConnections ends all connections of clients, at whatever point they
// are.
func (s *Server) CloseConnections() {
	s.main.CloseClientConnections()
	if s.cdn != nil {
		s.cdn.CloseClientConnections()
	}
}

// PutBlob serves content as a blob. The caller must not change it.
func (s *Server) PutBlob(mediaType string, data []byte) ocispec.Descriptor {
	d := digest.FromBytes(data)
	s.ReplaceBlob(d, data)
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(data))}
}

// ReplaceBlob serves data under a digest that need not be its own.
func (s *Server) ReplaceBlob(d digest.Digest, data []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.blobs[d] = content{data: data}
}

// PutBlobFile serves a file, which must stay as it is, as the blob d. It is
// not read before it is asked for.
func (s *Server) PutBlobFile(d digest.Digest, path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.blobs[d] = content{path: path}
}

// DeleteBlob stops serving a blob.
func (s *Server) DeleteBlob(d digest.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.blobs, d)
}

// PutManifest serves data as a manifest or image index, in all repositories.
func (s *Server) PutManifest(mediaType string, data []byte) ocispec.Descriptor {
	d := digest.FromBytes(data)
	s.ReplaceManifest(d, mediaType, data)
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(data))}
}

// ReplaceManifest serves a manifest under a digest that need not be its own.
func (s *Server) ReplaceManifest(d digest.Digest, mediaType string, data []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.manifests[d] = manifest{mediaType, data}
}

// Tag lets a tag of a repository name a manifest.
func (s *Server) Tag(repository, tag string, d digest.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tags[repository] == nil {
		s.tags[repository] = make(map[string]digest.Digest)
	}
	s.tags[repository][tag] = d
}

// serveAPI answers the distribution API, as much of it as readers and writers
// of images use.
// OCI distribution-spec, "Endpoints".
func (s *Server) serveAPI(w http.ResponseWriter, r *http.Request) {
	path := strings.TrimPrefix(r.URL.Path, "/v2/")
	repository, name, kind := path, "", Ping
	for part, k := range map[string]Kind{"/manifests/": Manifest, "/blobs/": Blob, "/tags/": Tags, "/referrers/": Referrers} {
		if before, after, ok := strings.Cut(path, part); ok {
			repository, name, kind = before, after, k
		}
	}
	if id, ok := strings.CutPrefix(name, "uploads/"); ok && kind == Blob {
		name, kind = id, Upload
	}
	s.handle(kind, w, r, func(w http.ResponseWriter, r *http.Request) {
		if !s.authorized(w, r, repository) {
			return
		}
		switch {
		case !s.opts.Writable && r.Method != http.MethodGet && r.Method != http.MethodHead:
			fail(w, http.StatusMethodNotAllowed, "UNSUPPORTED", "this registry only reads")
		case kind == Upload:
			s.serveUpload(w, r, repository, name)
		case r.Method == http.MethodDelete:
			s.serveDelete(w, kind, repository, name)
		case kind == Manifest && r.Method == http.MethodPut:
			s.takeManifest(w, r, repository, name)
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			fail(w, http.StatusMethodNotAllowed, "UNSUPPORTED", "nothing to do so with")
		case kind == Manifest:
			s.serveManifest(w, r, repository, name)
		case kind == Blob:
			s.serveBlob(w, r, name)
		case kind == Referrers:
			s.serveReferrers(w, r, repository, name)
		case kind == Tags:
			s.serveTags(w, r, repository)
		case path == "":
			fmt.Fprint(w, "{}")
		default:
			fail(w, http.StatusNotFound, "NAME_UNKNOWN", "no such resource")
		}
	})
}

func (s *Server) serveManifest(w http.ResponseWriter, r *http.Request, repository, reference string) {
	s.mu.Lock()
	d, tagged := s.tags[repository][reference]
	if !tagged {
		d = digest.Digest(reference)
	}
	m, ok := s.manifests[d]
	s.mu.Unlock()
	if !ok {
		fail(w, http.StatusNotFound, "MANIFEST_UNKNOWN", "manifest unknown")
		return
	}
	w.Header().Set("Content-Type", m.mediaType)
	w.Header().Set("Docker-Content-Digest", d.String())
	w.Header().Set("Content-Length", fmt.Sprint(len(m.data)))
	if r.Method == http.MethodGet {
		// The client that goes away hears no error.
		_, _ = w.Write(m.data)
	}
}

func (s *Server) serveBlob(w http.ResponseWriter, r *http.Request, name string) {
	d := digest.Digest(name)
	if s.cdn != nil {
		w.Header().Set("Location", s.signedURL(d))
		w.WriteHeader(http.StatusTemporaryRedirect)
		return
	}
	s.serveContent(w, r, d)
}

func (s *Server) serveContent(w http.ResponseWriter, r *http.Request, d digest.Digest) {
	s.mu.Lock()
	c, ok := s.blobs[d]
	s.mu.Unlock()
	if !ok {
		fail(w, http.StatusNotFound, "BLOB_UNKNOWN", "blob unknown to registry")
		return
	}
	body, err := c.open()
	if err != nil {
		fail(w, http.StatusInternalServerError, "UNKNOWN", "the blob's file cannot be opened")
		return
	}
	defer body.Close()
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Docker-Content-Digest", d.String())
	http.ServeContent(w, r, "", time.Time{}, body)
}

func (s *Server) serveTags(w http.ResponseWriter, r *http.Request, repository string) {
	s.mu.Lock()
	tags := []string{}
	for tag := range s.tags[repository] {
		tags = append(tags, tag)
	}
	s.mu.Unlock()
	slices.Sort(tags)
	if i, found := slices.BinarySearch(tags, r.URL.Query().Get("last")); found {
		tags = tags[i+1:]
	}
	if n := s.opts.TagPage; n > 0 && len(tags) > n {
		tags = tags[:n]
		w.Header().Set("Link", fmt.Sprintf(`</v2/%s/tags/list?last=%s>; rel="next"`, repository, tags[n-1]))
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"name": repository, "tags": tags})
}

// fail answers with an error as the distribution API words it.
func fail(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"errors": []map[string]string{{"code": code, "message": message}}})
}
