package hostile

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A Registry serves one image on loopback, with bad manners.
type Registry struct {
	*httptest.Server
	// Sent counts the bytes of blobs.
	Sent atomic.Int64

	dir     string
	manners Manners
	done    chan struct{}
}

// Manners answer a request for what follows /v2/NAME/ ("blobs/…", "manifests/…",
// "tags/list"), and report whether they have.
type Manners func(s *Registry, w http.ResponseWriter, r *http.Request, what string) bool

// NewRegistry serves the image of a layout, with the manners given, if any.
func NewRegistry(dir string, manners Manners) *Registry {
	s := &Registry{dir: dir, manners: manners, done: make(chan struct{})}
	s.Server = httptest.NewServer(http.HandlerFunc(s.serve))
	return s
}

// Close ends all answers.
func (s *Registry) Close() {
	close(s.done)
	s.CloseClientConnections()
	s.Server.Close()
}

// Image is the image's reference.
func (s *Registry) Image() string { return s.Listener.Addr().String() + "/hostile/image" }

func (s *Registry) serve(w http.ResponseWriter, r *http.Request) {
	_, what, ok := strings.Cut(r.URL.Path, "/v2/hostile/image/")
	if !ok || s.manners != nil && s.manners(s, w, r, what) {
		return
	}
	kind, name, _ := strings.Cut(what, "/")
	switch {
	case kind == "manifests":
		s.manifest(w, r, name)
	case kind == "blobs":
		s.blob(w, r, name)
	default:
		http.NotFound(w, r)
	}
}

func (s *Registry) path(d digest.Digest) string {
	return filepath.Join(s.dir, ocispec.ImageBlobsDir, "sha256", d.Encoded())
}

// size returns how big the blob is that a request is for, 0 if there is none.
func (s *Registry) size(what string) int64 {
	name, _ := strings.CutPrefix(what, "blobs/")
	if digest.Digest(name).Validate() != nil {
		return 0
	}
	st, err := os.Stat(s.path(digest.Digest(name)))
	if err != nil {
		return 0
	}
	return st.Size()
}

func (s *Registry) manifest(w http.ResponseWriter, r *http.Request, name string) {
	var top ocispec.Index
	data, err := os.ReadFile(filepath.Join(s.dir, ocispec.ImageIndexFile))
	if err == nil {
		err = json.Unmarshal(data, &top)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	desc := top.Manifests[0]
	if name != "latest" {
		desc.Digest = digest.Digest(name)
	}
	w.Header().Set("Content-Type", desc.MediaType)
	w.Header().Set("Docker-Content-Digest", desc.Digest.String())
	http.ServeFile(w, r, s.path(desc.Digest))
}

func (s *Registry) blob(w http.ResponseWriter, r *http.Request, name string) {
	w.Header().Set("Content-Type", "application/octet-stream")
	http.ServeFile(counted{w, &s.Sent}, r, s.path(digest.Digest(name)))
}

type counted struct {
	http.ResponseWriter
	n *atomic.Int64
}

func (c counted) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	c.n.Add(int64(n))
	return n, err
}

// Endless answers with text that never ends.
func (s *Registry) Endless(w http.ResponseWriter, r *http.Request, status int, begin, rest string) {
	w.WriteHeader(status)
	io.WriteString(w, begin)
	part := strings.Repeat(rest, 1+1<<16/len(rest))
	for r.Method != http.MethodHead && r.Context().Err() == nil {
		n, err := io.WriteString(w, part)
		if s.Sent.Add(int64(n)); err != nil {
			return
		}
	}
}

// Trickle answers with a byte at a time.
func (s *Registry) Trickle(w http.ResponseWriter, r *http.Request, size int64, every time.Duration) {
	w.Header().Set("Content-Length", fmt.Sprint(size))
	if r.Header.Get("Range") != "" {
		w.Header().Set("Content-Range", strings.Replace(r.Header.Get("Range"), "=", " ", 1)+"/"+fmt.Sprint(size))
		w.WriteHeader(http.StatusPartialContent)
	}
	for {
		if _, err := w.Write(zeros[:1]); err != nil {
			return
		}
		w.(http.Flusher).Flush()
		select {
		case <-time.After(every):
		case <-s.done:
			return
		case <-r.Context().Done():
			return
		}
	}
}
