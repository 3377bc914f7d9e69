package registrytest

import (
	"io"
	"log"
	"net/http"
	"net/url"
	"slices"
)

// A Kind says what a request is for.
type Kind string

// The kinds of requests. Blob is a request for a blob at the registry, CDN
// one at the second server, and Upload one that has to do with an upload.
const (
	Ping      Kind = "ping"
	Manifest  Kind = "manifest"
	Blob      Kind = "blob"
	Tags      Kind = "tags"
	Referrers Kind = "referrers"
	Token     Kind = "token"
	CDN       Kind = "cdn"
	Upload    Kind = "upload"
)

// A Record is a request and the head of its answer.
type Record struct {
	Kind   Kind
	Method string
	Proto  string // HTTP/1.1 or HTTP/2.0
	Client string // the client's end of the connection
	Host   string
	Path   string
	Query  url.Values
	Range  string
	Header http.Header
	// Status is 0 while there is no answer, and if a fault took over the
	// connection.
	Status int
	// Received counts the body of the request, as far as it was read.
	Received int64
	// Bytes counts the body, as far as it was handed to the connection.
	Bytes int64
}

// Requests returns the requests so far, in the order they came: all, or those of
// the kinds.
func (s *Server) Requests(kinds ...Kind) []Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	var records []Record
	for _, r := range s.records {
		if len(kinds) == 0 || slices.Contains(kinds, r.Kind) {
			records = append(records, *r)
		}
	}
	return records
}

// Count returns how many requests there were, all or of the kinds.
func (s *Server) Count(kinds ...Kind) int { return len(s.Requests(kinds...)) }

// Bytes returns how many bytes of bodies were sent, all or for the kinds.
func (s *Server) Bytes(kinds ...Kind) int64 {
	var n int64
	for _, r := range s.Requests(kinds...) {
		n += r.Bytes
	}
	return n
}

// Forget empties the record of requests.
func (s *Server) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.records = nil
}

// handle notes a request and has it answered by serve, or by the fault that
// is injected for it.
func (s *Server) handle(kind Kind, w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
	record := &Record{Kind: kind, Method: r.Method, Proto: r.Proto, Client: r.RemoteAddr, Host: r.Host,
		Path: r.URL.Path, Query: r.URL.Query(), Range: r.Header.Get("Range"), Header: r.Header.Clone()}
	s.mu.Lock()
	s.records = append(s.records, record)
	var fault Fault
	if p := s.plans[kind]; p != nil {
		p.seen++
		fault = p.next(p.seen)
	}
	s.mu.Unlock()
	rw := &recorder{ResponseWriter: w, server: s, record: record}
	r.Body = &bodyRecorder{ReadCloser: r.Body, server: s, record: record}
	if fault != nil {
		fault(rw, r, serve)
		return
	}
	serve(rw, r)
}

// A recorder notes the status of an answer, and counts its body.
type recorder struct {
	http.ResponseWriter
	server *Server
	record *Record
}

// Unwrap lets http.ResponseController find the connection.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *recorder) WriteHeader(status int) {
	w.server.mu.Lock()
	w.record.Status = status
	w.server.mu.Unlock()
	w.ResponseWriter.WriteHeader(status)
}

func (w *recorder) Write(p []byte) (int, error) {
	n, err := w.ResponseWriter.Write(p)
	w.server.mu.Lock()
	defer w.server.mu.Unlock()
	if w.record.Status == 0 {
		w.record.Status = http.StatusOK
	}
	w.record.Bytes += int64(n)
	return n, err
}

// A bodyRecorder counts the bytes that are read of a request.
type bodyRecorder struct {
	io.ReadCloser
	server *Server
	record *Record
}

func (b *bodyRecorder) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.server.mu.Lock()
	defer b.server.mu.Unlock()
	b.record.Received += int64(n)
	return n, err
}

// quiet drops net/http's messages about connections that break: they are broken
// on purpose.
func quiet() *log.Logger { return log.New(io.Discard, "", 0) }
