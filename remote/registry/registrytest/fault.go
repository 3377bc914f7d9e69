package registrytest

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"maps"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httptest"
	"net/textproto"
	"strings"
	"time"
)

// A Fault answers a request in place of serve, which would answer it rightly.
type Fault func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc)

// A plan chooses a fault for the nth request of a kind.
type plan struct {
	seen int
	next func(n int) Fault
}

// Inject has next choose the fault of each further request of a kind: n is 1
// for the first one from now on, and nil means to answer rightly. A nil next
// ends it. next must not call the Server.
func (s *Server) Inject(kind Kind, next func(n int) Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.plans, kind)
	if next != nil {
		s.plans[kind] = &plan{next: next}
	}
}

// Once is a fault for the next request alone.
func Once(f Fault) func(int) Fault { return Times(1, f) }

// Times is a fault for the next times requests.
func Times(times int, f Fault) func(int) Fault {
	return func(n int) Fault {
		if n <= times {
			return f
		}
		return nil
	}
}

// Always is a fault for all requests.
func Always(f Fault) func(int) Fault { return func(int) Fault { return f } }

// Status answers with a status, and headers given as name and value in turn.
func Status(status int, headers ...string) Fault {
	return func(w http.ResponseWriter, r *http.Request, _ http.HandlerFunc) {
		for i := 0; i+1 < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		fail(w, status, "UNKNOWN", "an injected fault")
	}
}

// Page answers 200 with a web page, as captive portals do.
func Page() Fault {
	return func(w http.ResponseWriter, r *http.Request, _ http.HandlerFunc) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		fmt.Fprint(w, "<html><body>Please log in to the network</body></html>")
	}
}

// IgnoreRange sends the whole content with 200.
func IgnoreRange() Fault {
	return func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		r = r.Clone(r.Context())
		r.Header.Del("Range")
		serve(w, r)
	}
}

// OtherRange answers with another range than the one asked for: edit gets
// the first and last byte asked for and returns those to send.
func OtherRange(edit func(first, last int64) (int64, int64)) Fault {
	return func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		var first, last int64
		if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &first, &last); err == nil {
			first, last = edit(first, last)
			r = r.Clone(r.Context())
			r.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", first, last))
		}
		serve(w, r)
	}
}

// Header changes the head of the right answer.
func Header(edit func(http.Header)) Fault {
	return func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		replay(w, capture(r, serve), func(answer *httptest.ResponseRecorder) { edit(answer.Header()) })
	}
}

// FlipBit changes one bit of the body of the right answer.
func FlipBit() Fault {
	return func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		replay(w, capture(r, serve), func(answer *httptest.ResponseRecorder) {
			if body := answer.Body.Bytes(); len(body) > 0 {
				body[len(body)/2] ^= 1
			}
		})
	}
}

// Gzip packs the body of the right answer, and says so.
func Gzip() Fault {
	return func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		replay(w, capture(r, serve), func(answer *httptest.ResponseRecorder) {
			var packed bytes.Buffer
			z := gzip.NewWriter(&packed)
			_, _ = z.Write(answer.Body.Bytes()) // neither can fail in memory
			_ = z.Close()
			answer.Body = &packed
			answer.Header().Set("Content-Encoding", "gzip")
			answer.Header().Del("Content-Length")
		})
	}
}

// Multipart sends the range as the only part of a multipart answer. edit may
// change the part's header; nil leaves it as it is.
func Multipart(edit func(http.Header)) Fault {
	return func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		replay(w, capture(r, serve), func(answer *httptest.ResponseRecorder) {
			var packed bytes.Buffer
			m := multipart.NewWriter(&packed)
			head := http.Header{"Content-Range": answer.Header()["Content-Range"]}
			if edit != nil {
				edit(head)
			}
			part, _ := m.CreatePart(textproto.MIMEHeader(head))
			_, _ = part.Write(answer.Body.Bytes())
			_ = m.Close()
			answer.Body = &packed
			answer.Header().Set("Content-Type", "multipart/byteranges; boundary="+m.Boundary())
			answer.Header().Del("Content-Range")
			answer.Header().Del("Content-Length")
		})
	}
}

// Truncate ends the answer after n bytes of the body: with HTTP/1.1 by
// closing the connection, with HTTP/2 by resetting the stream.
func Truncate(n int) Fault {
	return func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		begin(w, capture(r, serve), n)
		panic(http.ErrAbortHandler)
	}
}

// TruncateChunked is Truncate of an answer that does not state its length.
func TruncateChunked(n int) Fault {
	return func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		answer := capture(r, serve)
		answer.Header().Del("Content-Length")
		begin(w, answer, n)
		panic(http.ErrAbortHandler)
	}
}

// Reset resets the connection after n bytes of the body; before the head if
// n is negative. With HTTP/2 it is Truncate.
func Reset(n int) Fault {
	return func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		if n >= 0 {
			begin(w, capture(r, serve), n)
		}
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		if tcp, ok := conn.(*net.TCPConn); ok {
			// Closing then sends RST.
			_ = tcp.SetLinger(0)
		}
		conn.Close()
	}
}

// Stall sends n bytes of the body and then nothing, until the client or the
// server ends it; not even the head if n is negative.
func (s *Server) Stall(n int) Fault {
	return func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		if n >= 0 {
			begin(w, capture(r, serve), n)
		}
		select {
		case <-r.Context().Done():
		case <-s.done:
		}
		panic(http.ErrAbortHandler)
	}
}

// Trickle sends n bytes of the body at once and then some bytes at a time, with
// a pause before each, until the client or the server ends it or all is sent.
func (s *Server) Trickle(n, some int, pause time.Duration) Fault {
	return func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		answer := capture(r, serve)
		begin(w, answer, n)
		control := http.NewResponseController(w)
		for rest := answer.Body.Bytes()[n:]; len(rest) > 0; {
			select {
			case <-r.Context().Done():
				panic(http.ErrAbortHandler)
			case <-s.done:
				panic(http.ErrAbortHandler)
			case <-time.After(pause):
			}
			m := min(some, len(rest))
			if _, err := w.Write(rest[:m]); err != nil {
				panic(http.ErrAbortHandler)
			}
			_ = control.Flush() // the next Write fails too
			rest = rest[m:]
		}
	}
}

// Redirect sends the client elsewhere.
func Redirect(location string) Fault {
	return func(w http.ResponseWriter, r *http.Request, _ http.HandlerFunc) {
		if location != "" {
			w.Header().Set("Location", location)
		}
		w.WriteHeader(http.StatusTemporaryRedirect)
	}
}

// Detour sends the client to a URL of the same server that answers rightly:
// relative Locations must be understood.
func Detour() Fault {
	return func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		if r.URL.Query().Has("detour") {
			serve(w, r)
			return
		}
		name := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
		w.Header().Set("Location", "./"+name+"?detour=1")
		w.WriteHeader(http.StatusTemporaryRedirect)
	}
}

// capture has a request answered in memory.
func capture(r *http.Request, serve http.HandlerFunc) *httptest.ResponseRecorder {
	answer := httptest.NewRecorder()
	serve(answer, r)
	return answer
}

// replay sends a captured answer after it was changed.
func replay(w http.ResponseWriter, answer *httptest.ResponseRecorder, edit func(*httptest.ResponseRecorder)) {
	edit(answer)
	maps.Copy(w.Header(), answer.Header())
	w.WriteHeader(answer.Code)
	// The client that goes away hears no error.
	_, _ = w.Write(answer.Body.Bytes())
}

// begin sends a captured answer up to n bytes of its body.
func begin(w http.ResponseWriter, answer *httptest.ResponseRecorder, n int) {
	maps.Copy(w.Header(), answer.Header())
	w.WriteHeader(answer.Code)
	body := answer.Body.Bytes()
	_, _ = w.Write(body[:min(n, len(body))])
	_ = http.NewResponseController(w).Flush()
}
