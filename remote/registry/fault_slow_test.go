package registry_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/registry"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// longest is how long a read may take that should end within a second or some:
// for a machine with more to do.
const longest = 40 * time.Second

// hasty returns options with which a second without progress is too long.
func hasty(t *testing.T, s *registrytest.Server) *registry.Options {
	opts := fast()
	opts.ReadTimeout, opts.StallTimeout, opts.HeaderTimeout, opts.DialTimeout = time.Second, 900*time.Millisecond, 900*time.Millisecond, time.Second
	trust(t, s, opts)
	return opts
}

// 26: a trickle is as good as nothing, whatever it is that trickles.
func TestFault26Trickle(t *testing.T) {
	// Fifty bytes a second.
	drop := func(s *registrytest.Server) registrytest.Fault { return s.Trickle(10, 1, 20*time.Millisecond) }
	chunked := func(s *registrytest.Server) registrytest.Fault {
		return func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
			drop(s)(w, r, func(w http.ResponseWriter, r *http.Request) {
				registrytest.Header(func(h http.Header) { h.Del("Content-Length") })(w, r, serve)
			})
		}
	}
	sentWhole := func(s *registrytest.Server) registrytest.Fault { return whole(drop(s)) }
	early := func(s *registrytest.Server) registrytest.Fault {
		return func(w http.ResponseWriter, r *http.Request, _ http.HandlerFunc) {
			for r.Context().Err() == nil {
				w.Header().Set("Link", "</x>")
				w.WriteHeader(http.StatusEarlyHints)
				time.Sleep(time.Millisecond)
			}
		}
	}
	parts := func(*registrytest.Server) registrytest.Fault {
		return func(w http.ResponseWriter, r *http.Request, _ http.HandlerFunc) {
			w.Header().Set("Content-Type", "multipart/byteranges; boundary=x")
			w.WriteHeader(http.StatusPartialContent)
			for r.Context().Err() == nil {
				if _, err := io.WriteString(w, strings.Repeat("nothing of use\r\n", 100)); err != nil {
					return
				}
			}
		}
	}
	blob, manifest, token := registrytest.Blob, registrytest.Manifest, registrytest.Token
	for _, tc := range []struct {
		name  string
		kind  registrytest.Kind
		fault func(*registrytest.Server) registrytest.Fault
		do    string // default: blob
	}{
		{"range", blob, drop, ""},
		{"chunked range", blob, chunked, ""},
		{"whole blob", blob, sentWhole, ""},
		{"config", blob, drop, "config"},
		{"manifest", manifest, drop, "manifest"},
		{"tags", registrytest.Tags, drop, "tags"},
		{"token", token, drop, ""},
		{"storage", registrytest.CDN, drop, ""},
		{"endless 103", blob, early, ""},
		{"endless parts", blob, parts, ""},
	} {
		server := registrytest.Options{CDN: tc.kind == registrytest.CDN}
		if tc.kind == token {
			server.Login = registrytest.Bearer
		}
		t.Run(tc.name, func(t *testing.T) {
			bothProtocols(t, server, func(t *testing.T, s *registrytest.Server, _ *registry.Options) {
				content := noise(1, blobSize)
				desc := s.PutBlob(ocispec.MediaTypeImageLayer, content)
				s.Tag("app", "latest", s.PutManifest(ocispec.MediaTypeImageManifest, content).Digest)
				for i := range 100 {
					s.Tag("app", fmt.Sprint("v", i), desc.Digest)
				}
				r := open(t, s, hasty(t, s))
				s.Inject(tc.kind, registrytest.Always(tc.fault(s)))
				ctx, cancel := context.WithTimeout(t.Context(), longest)
				defer cancel()
				var err error
				switch tc.do {
				case "config":
					_, err = r.Fetch(ctx, ocispec.Descriptor{Digest: desc.Digest, Size: desc.Size})
				case "manifest":
					_, err = r.Fetch(ctx, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: desc.Digest, Size: desc.Size})
				case "tags":
					_, err = r.Tags(ctx)
				default:
					err = check(ctx, blobOf(t, r, desc), content, readOff, readLen)
				}
				if !errors.Is(err, remote.ErrUnavailable) {
					t.Errorf("got error %v, want %v", err, remote.ErrUnavailable)
				}
			})
		})
	}
}

// A mirror that trickles is left like one that is silent.
func TestFault26Mirror(t *testing.T) {
	testenv.Slow(t)
	t.Parallel()
	m := newMirrored(t, 1, "")
	m.opts.ReadTimeout, m.opts.StallTimeout, m.opts.MirrorTimeout = longest, 3*time.Second, 3*time.Second
	m.mirrors[0].Inject(registrytest.Blob, registrytest.Always(m.mirrors[0].Trickle(0, 1, 100*time.Millisecond)))
	r := open(t, m.upstream, m.opts)
	start := time.Now()
	m.read(t, r)
	if n := m.mirrors[0].Count(registrytest.Blob); n < 1 || n > 2 {
		t.Errorf("the mirror was asked %d times, want once, or once more for want of a token", n)
	}
	if d := time.Since(start); d > longest-5*time.Second {
		t.Errorf("it took %s to leave the mirror", d)
	}
}

// A slow line is no fault: neither with one reader nor with many, of which each
// has little.
func TestFault26SlowLine(t *testing.T) {
	for _, readers := range []int{1, 16} {
		t.Run(fmt.Sprint(readers, " readers"), func(t *testing.T) {
			bothProtocols(t, registrytest.Options{}, func(t *testing.T, s *registrytest.Server, opts *registry.Options) {
				opts.ReadTimeout, opts.StallTimeout = 8*time.Second, 7*time.Second
				content := noise(1, blobSize)
				b := blobOf(t, open(t, s, opts), s.PutBlob(ocispec.MediaTypeImageLayer, content))
				// Ten KiB a second for all, and for longer than a read waits.
				s.Inject(registrytest.Blob, registrytest.Always(s.Trickle(0, 1024/readers, 100*time.Millisecond)))
				all := 96_000 // of blobSize
				done := make(chan error)
				for i := range readers {
					go func() { done <- check(t.Context(), b, content, i*all/readers, all/readers) }()
				}
				for range readers {
					if err := <-done; err != nil {
						t.Error(err)
					}
				}
				if n := s.Count(registrytest.Blob); n != readers {
					t.Errorf("got %d requests, want one of each reader, %d", n, readers)
				}
			})
		})
	}
}

// What comes before an answer can trickle as well: the handshake, the head, the
// frames of HTTP/2.
func TestFault26Connection(t *testing.T) {
	t.Parallel()
	frame := func(kind, flags byte, stream byte, payload string) string {
		return string([]byte{0, 0, byte(len(payload)), kind, flags, 0, 0, 0, stream}) + payload
	}
	const headers, settings, ping, continuation = 1, 4, 6, 9
	for _, tc := range []struct {
		name, first, then string
		tls               bool
	}{
		{"handshake", "\x16\x03\x03\x40\x00", "\x00", false},
		{"head", "HTTP/1.1 200 OK\r\nX: ", "x", true},
		{"HTTP/2 pings", frame(settings, 0, 0, ""), frame(ping, 0, 0, "12345678"), true},
		{"HTTP/2 settings", frame(settings, 0, 0, ""), frame(settings, 0, 0, "\x00\x04\x00\x00\x00\x01"), true},
		{"HTTP/2 head", frame(settings, 0, 0, "") + frame(headers, 0, 1, "\x88"), frame(continuation, 0, 1, "\x00\x01x\x01y"), true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			proto := "http/1.1"
			if strings.HasPrefix(tc.name, "HTTP/2") {
				proto = "h2"
			}
			host := startTrickle(t, tc.tls, proto, tc.first, tc.then)
			opts := fast()
			verify := false
			opts.TLSVerify, opts.HeaderTimeout, opts.DialTimeout, opts.ReadTimeout = &verify, 500*time.Millisecond, 500*time.Millisecond, 2*time.Second
			client := registry.New(opts)
			defer client.Close()
			r := client.Repository(remote.Reference{Registry: host, Repository: "app", Tag: "latest"})
			ctx, cancel := context.WithTimeout(t.Context(), longest)
			defer cancel()
			if _, err := r.Resolve(ctx); !errors.Is(err, remote.ErrUnavailable) {
				t.Errorf("got error %v, want %v", err, remote.ErrUnavailable)
			}
		})
	}
}

// startTrickle serves connections with the bytes first, and then again and
// again with others, and returns where.
func startTrickle(t *testing.T, secure bool, proto, first, then string) (host string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	cert, key := serverCertificate(t)
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	trickle := func(conn net.Conn) {
		defer conn.Close()
		if secure {
			conn = tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{pair}, NextProtos: []string{proto}})
		}
		go io.Copy(io.Discard, conn) // until it is closed
		_, err := io.WriteString(conn, first)
		for ; err == nil; time.Sleep(20 * time.Millisecond) {
			_, err = io.WriteString(conn, then)
		}
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go trickle(conn)
		}
	}()
	return l.Addr().String()
}
