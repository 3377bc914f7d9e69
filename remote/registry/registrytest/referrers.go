package registrytest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// PutArtifact serves the manifest m, whose media type and config may be left out: then
// the config is the empty one. Its blobs are the caller's. tag may be "". If the server
// has no API for referrers and m has a subject, the repository's fallback tag lists
// it, as whoever pushes it has to see to.
func (s *Server) PutArtifact(repository, tag string, m ocispec.Manifest) ocispec.Descriptor {
	m.Versioned = specs.Versioned{SchemaVersion: 2}
	if m.MediaType == "" {
		m.MediaType = ocispec.MediaTypeImageManifest
	}
	if m.Config.Digest == "" {
		m.Config = s.PutBlob(ocispec.MediaTypeEmptyJSON, []byte("{}"))
	}
	if m.Layers == nil {
		m.Layers = []ocispec.Descriptor{}
	}
	desc := s.PutManifest(m.MediaType, marshal(m))
	if tag != "" {
		s.Tag(repository, tag, desc.Digest)
	}
	if m.Subject != nil && !s.opts.Referrers {
		listed := s.listed(m.Subject.Digest)
		s.PutFallback(repository, m.Subject.Digest, listed...)
	}
	return desc
}

// PutFallback serves an image index of what list describes under the fallback tag of a
// subject.
// OCI distribution-spec, "Referrers Tag Schema".
func (s *Server) PutFallback(repository string, subject digest.Digest, list ...ocispec.Descriptor) ocispec.Descriptor {
	desc := s.PutManifest(ocispec.MediaTypeImageIndex, marshal(indexOf(list)))
	s.Tag(repository, strings.Replace(subject.String(), ":", "-", 1), desc.Digest)
	return desc
}

func indexOf(list []ocispec.Descriptor) ocispec.Index {
	if list == nil {
		list = []ocispec.Descriptor{}
	}
	return ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: list}
}

func marshal(v any) []byte {
	text, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("registrytest: %v", err)) // no type here has what JSON has not
	}
	return text
}

// subjectOf returns the subject of a manifest, "" if it has none.
func subjectOf(content []byte) digest.Digest {
	var m struct {
		Subject struct {
			Digest digest.Digest `json:"digest"`
		} `json:"subject"`
	}
	_ = json.Unmarshal(content, &m) // what is no manifest has none
	return m.Subject.Digest
}

// listed describes the manifests that have a subject, sorted by digest.
func (s *Server) listed(subject digest.Digest) []ocispec.Descriptor {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []ocispec.Descriptor
	for d, m := range s.manifests {
		if subjectOf(m.data) != subject {
			continue
		}
		desc := ocispec.Descriptor{MediaType: m.mediaType, Digest: d, Size: int64(len(m.data))}
		var of ocispec.Manifest
		if json.Unmarshal(m.data, &of) == nil {
			desc.Annotations = of.Annotations
			if desc.ArtifactType = of.ArtifactType; desc.ArtifactType == "" {
				desc.ArtifactType = of.Config.MediaType
			}
		}
		list = append(list, desc)
	}
	slices.SortFunc(list, func(a, b ocispec.Descriptor) int { return strings.Compare(string(a.Digest), string(b.Digest)) })
	return list
}

// serveReferrers answers the API for referrers.
// OCI distribution-spec, "Listing Referrers".
func (s *Server) serveReferrers(w http.ResponseWriter, r *http.Request, repository, name string) {
	if !s.opts.Referrers {
		http.NotFound(w, r) // as a server does that does not know the path
		return
	}
	subject := digest.Digest(name)
	if subject.Validate() != nil {
		fail(w, http.StatusBadRequest, "DIGEST_INVALID", "invalid digest")
		return
	}
	list, query := s.listed(subject), r.URL.Query()
	if artifactType := query.Get("artifactType"); artifactType != "" && !s.opts.Unfiltered {
		list = slices.DeleteFunc(list, func(desc ocispec.Descriptor) bool { return desc.ArtifactType != artifactType })
		w.Header().Set("OCI-Filters-Applied", "artifactType")
	}
	page, _ := strconv.Atoi(query.Get("page")) // 0 without one
	if n := s.opts.ReferrersPage; n > 0 {
		list = list[min(page*n, len(list)):]
		if len(list) > n {
			list = list[:n]
			query.Set("page", strconv.Itoa(page+1))
			w.Header().Set("Link", fmt.Sprintf(`</v2/%s/referrers/%s?%s>; rel="next"`, repository, subject, query.Encode()))
		}
	}
	w.Header().Set("Content-Type", ocispec.MediaTypeImageIndex)
	_, _ = w.Write(marshal(indexOf(list)))
}

// Answer answers with a status and a body of its own.
func Answer(status int, mediaType string, body []byte) Fault {
	return func(w http.ResponseWriter, r *http.Request, _ http.HandlerFunc) {
		w.Header().Set("Content-Type", mediaType)
		w.WriteHeader(status)
		_, _ = w.Write(body)
	}
}

// Refuse answers with an error as the distribution API words it.
func Refuse(status int, code, message string) Fault {
	return func(w http.ResponseWriter, r *http.Request, _ http.HandlerFunc) { fail(w, status, code, message) }
}

// Endless answers 200 with a body that begins as given and has no end, until the
// client or the server ends it.
func (s *Server) Endless(mediaType string, begin []byte) Fault {
	return func(w http.ResponseWriter, r *http.Request, _ http.HandlerFunc) {
		w.Header().Set("Content-Type", mediaType)
		_, err := w.Write(begin)
		for rest := make([]byte, 32<<10); err == nil; {
			select {
			case <-s.done:
				panic(http.ErrAbortHandler)
			default:
				_, err = w.Write(rest)
			}
		}
	}
}
