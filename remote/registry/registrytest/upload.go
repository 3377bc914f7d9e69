package registrytest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/opencontainers/go-digest"
)

// An upload is a blob that is being pushed. It belongs to the server's mutex.
type upload struct {
	data []byte
}

// maxPushed is how many bytes of a request are kept.
const maxPushed = 256 << 20

// serveUpload answers requests about uploads; id is "" for the one that begins an
// upload. As with docker-registry the bytes that came stay when a request
// breaks off. OCI distribution-spec, "Push".
func (s *Server) serveUpload(w http.ResponseWriter, r *http.Request, repository, id string) {
	s.mu.Lock()
	u := s.uploads[id]
	s.mu.Unlock()
	switch {
	case id == "" && r.Method == http.MethodPost:
		s.beginUpload(w, r, repository)
	case u == nil:
		fail(w, http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN", "upload unknown to registry")
	case r.Method == http.MethodGet:
		s.uploadStatus(w, repository, id, u, http.StatusNoContent)
	case r.Method == http.MethodPatch:
		if s.takeBytes(w, r, repository, id, u) {
			s.uploadStatus(w, repository, id, u, http.StatusAccepted)
		}
	case r.Method == http.MethodPut:
		if s.takeBytes(w, r, repository, id, u) {
			s.endUpload(w, r, repository, id, u)
		}
	case r.Method == http.MethodDelete:
		s.forgetUpload(id)
		w.WriteHeader(http.StatusNoContent)
	default:
		fail(w, http.StatusMethodNotAllowed, "UNSUPPORTED", "nothing to do so with an upload")
	}
}

// beginUpload opens a session, or takes the blob at once if the request names
// its digest.
func (s *Server) beginUpload(w http.ResponseWriter, r *http.Request, repository string) {
	s.mu.Lock()
	s.sessions++
	id, u := fmt.Sprintf("session-%d", s.sessions), new(upload)
	s.uploads[id] = u
	s.mu.Unlock()
	if r.URL.Query().Has("digest") {
		if s.takeBytes(w, r, repository, id, u) {
			s.endUpload(w, r, repository, id, u)
		}
		return
	}
	s.uploadStatus(w, repository, id, u, http.StatusAccepted)
}

// uploadStatus answers how much of an upload the server has.
func (s *Server) uploadStatus(w http.ResponseWriter, repository, id string, u *upload, status int) {
	s.mu.Lock()
	n := len(u.data)
	s.mu.Unlock()
	w.Header().Set("Location", fmt.Sprintf("/v2/%s/blobs/uploads/%s?state=%d", repository, id, n))
	w.Header().Set("Range", fmt.Sprintf("0-%d", max(n-1, 0)))
	w.Header().Set("Docker-Upload-UUID", id)
	w.WriteHeader(status)
}

// takeBytes adds the body of a request to an upload. If it is not the part that
// comes next, or not complete, takeBytes answers so and returns false.
func (s *Server) takeBytes(w http.ResponseWriter, r *http.Request, repository, id string, u *upload) bool {
	var first, last int64
	s.mu.Lock()
	have := int64(len(u.data))
	s.mu.Unlock()
	if _, err := fmt.Sscanf(r.Header.Get("Content-Range"), "%d-%d", &first, &last); err == nil &&
		(first != have || r.ContentLength >= 0 && last-first+1 != r.ContentLength) {
		s.uploadStatus(w, repository, id, u, http.StatusRequestedRangeNotSatisfiable)
		return false
	}
	data, err := io.ReadAll(io.LimitReader(r.Body, maxPushed))
	s.mu.Lock()
	u.data = append(u.data[:have:have], data...)
	s.mu.Unlock()
	if err != nil {
		fail(w, http.StatusBadRequest, "BLOB_UPLOAD_INVALID", "the body breaks off")
		return false
	}
	return true
}

// endUpload makes a blob of an upload.
func (s *Server) endUpload(w http.ResponseWriter, r *http.Request, repository, id string, u *upload) {
	d := digest.Digest(r.URL.Query().Get("digest"))
	s.mu.Lock()
	data := u.data
	s.mu.Unlock()
	s.forgetUpload(id)
	if d.Validate() != nil || d.Algorithm().FromBytes(data) != d {
		fail(w, http.StatusBadRequest, "DIGEST_INVALID", "provided digest did not match uploaded content")
		return
	}
	s.ReplaceBlob(d, data)
	w.Header().Set("Location", fmt.Sprintf("/v2/%s/blobs/%s", repository, d))
	w.Header().Set("Docker-Content-Digest", d.String())
	w.WriteHeader(http.StatusCreated)
}

func (s *Server) forgetUpload(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.uploads, id)
}

// ForgetUploads ends all uploads that are open.
func (s *Server) ForgetUploads() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.uploads)
}

// takeManifest adds a manifest, under its digest or a tag.
func (s *Server) takeManifest(w http.ResponseWriter, r *http.Request, repository, reference string) {
	data, err := io.ReadAll(io.LimitReader(r.Body, maxPushed))
	if err != nil {
		fail(w, http.StatusBadRequest, "MANIFEST_INVALID", "the body breaks off")
		return
	}
	d := digest.Digest(reference)
	if strings.Contains(reference, ":") && (d.Validate() != nil || d.Algorithm().FromBytes(data) != d) {
		fail(w, http.StatusBadRequest, "DIGEST_INVALID", "provided digest did not match uploaded content")
		return
	}
	desc := s.PutManifest(r.Header.Get("Content-Type"), data)
	if !strings.Contains(reference, ":") {
		s.Tag(repository, reference, desc.Digest)
	}
	if subject := subjectOf(data); s.opts.Referrers && subject != "" {
		w.Header().Set("OCI-Subject", subject.String())
	}
	w.Header().Set("Location", fmt.Sprintf("/v2/%s/manifests/%s", repository, desc.Digest))
	w.Header().Set("Docker-Content-Digest", desc.Digest.String())
	w.WriteHeader(http.StatusCreated)
}

// serveDelete removes a blob, a tag, or a manifest with its tags in the
// repository.
func (s *Server) serveDelete(w http.ResponseWriter, kind Kind, repository, name string) {
	s.mu.Lock()
	d := digest.Digest(name)
	_, isManifest := s.manifests[d]
	_, isBlob := s.blobs[d]
	_, isTag := s.tags[repository][name]
	switch {
	case kind == Manifest && isTag:
		delete(s.tags[repository], name)
	case kind == Manifest && isManifest:
		delete(s.manifests, d)
		for tag, named := range s.tags[repository] {
			if named == d {
				delete(s.tags[repository], tag)
			}
		}
	case kind == Blob && isBlob:
		delete(s.blobs, d)
	default:
		kind = ""
	}
	s.mu.Unlock()
	if kind == "" {
		fail(w, http.StatusNotFound, "UNKNOWN", "there is no such thing to delete")
		return
	}
	w.WriteHeader(http.StatusAccepted)
}

// ResetBody resets the connection when n bytes of the request's body were
// read. The server keeps those of an upload.
func ResetBody(n int64) Fault {
	return func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		r = r.Clone(r.Context())
		r.Body = struct {
			io.Reader
			io.Closer
		}{io.MultiReader(io.LimitReader(r.Body, n), brokenReader{}), r.Body}
		capture(r, serve)
		Reset(-1)(w, r, serve)
	}
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, errors.New("the connection is reset") }

// Unanswered obeys the request, and then resets the connection instead of
// answering.
func Unanswered() Fault {
	return func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		capture(r, serve)
		Reset(-1)(w, r, serve)
	}
}

// StallBody reads n bytes of the request's body and then nothing, until the
// client or the server ends it.
func (s *Server) StallBody(n int64) Fault {
	return func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		_, _ = io.CopyN(io.Discard, r.Body, n)
		s.Stall(-1)(w, r, serve)
	}
}

// FlipBodyBit changes one bit of the request's body.
func FlipBodyBit() Fault {
	return func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		data, _ := io.ReadAll(io.LimitReader(r.Body, maxPushed))
		if len(data) > 0 {
			data[len(data)/2] ^= 1
		}
		r = r.Clone(r.Context())
		r.Body = io.NopCloser(bytes.NewReader(data))
		serve(w, r)
	}
}
