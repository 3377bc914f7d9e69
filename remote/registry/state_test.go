package registry_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/registry"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// However many reads fail, there is one word when a server goes and one when
// it is back.
func TestStateChanges(t *testing.T) {
	page := registrytest.Page()
	for _, tc := range []struct {
		name   string
		fault  func(*registrytest.Server) registrytest.Fault
		reason string // "" if the server is not down
	}{
		{"reset", func(*registrytest.Server) registrytest.Fault { return registrytest.Reset(-1) }, "reset"},
		{"reset in the body", func(*registrytest.Server) registrytest.Fault { return registrytest.Reset(10) }, "reset"},
		{"truncated", func(*registrytest.Server) registrytest.Fault { return registrytest.Truncate(10) }, "end too early"},
		{"no head", func(s *registrytest.Server) registrytest.Fault { return s.Stall(-1) }, "timeout"},
		{"stall in the body", func(s *registrytest.Server) registrytest.Fault { return s.Stall(10) }, "nothing came"},
		{"502", func(*registrytest.Server) registrytest.Fault { return registrytest.Status(502) }, "502 Bad Gateway"},
		{"429", func(*registrytest.Server) registrytest.Fault { return registrytest.Status(429) }, "429"},
		{"404", func(*registrytest.Server) registrytest.Fault { return registrytest.Status(404) }, ""},
		{"web page", func(*registrytest.Server) registrytest.Fault { return page }, ""},
		{"sometimes", func(*registrytest.Server) registrytest.Fault { return nil }, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := registrytest.New(t, nil)
			var log lines
			opts := fast()
			if tc.reason == "timeout" || tc.reason == "nothing came" { // else a busy machine counts as such
				opts.HeaderTimeout, opts.StallTimeout = 400*time.Millisecond, 400*time.Millisecond
			}
			opts.StateChanged = func(host string, up bool, reason string) { log.printf("%s %t %s", host, up, reason) }
			client := registry.New(opts)
			defer client.Close()
			content := noise(1, blobSize)
			r := client.Repository(remote.Reference{Registry: s.Host(), Repository: "app", Tag: "latest"})
			b := blobOf(t, r, s.PutBlob(ocispec.MediaTypeImageLayer, content))
			if got := client.Health(); len(got) != 0 {
				t.Errorf("nobody was asked: got %+v", got)
			}
			if err := check(t.Context(), b, content, 0, 10); err != nil {
				t.Fatal(err)
			}
			fault := tc.fault(s)
			s.Inject(registrytest.Blob, registrytest.Always(fault))
			if fault == nil {
				s.Inject(registrytest.Blob, registrytest.Always(firstOfRange(registrytest.Status(500))))
			}
			readers(t, 10, func(i int) error {
				_, err := b.ReadAt(t.Context(), make([]byte, 1000), 1000*int64(i))
				switch {
				case (err == nil) != (fault == nil):
					return fmt.Errorf("got error %v", err)
				case err != nil && registry.NoAnswer(err) != (tc.reason != ""):
					return fmt.Errorf("NoAnswer of %v is %t", err, registry.NoAnswer(err))
				}
				return nil
			})
			got := client.Health()
			if len(got) != 1 || got[0].Host != s.Host() || got[0].Down != (tc.reason != "") || !strings.Contains(got[0].Reason, tc.reason) ||
				time.Since(got[0].Since) > time.Minute {
				t.Errorf("got %+v, want down with %q", got, tc.reason)
			}
			s.Inject(registrytest.Blob, nil)
			readers(t, 10, func(i int) error { return check(t.Context(), b, content, 1000*i, 1000) })
			if got = client.Health(); len(got) != 1 || got[0].Down || got[0].Reason != "" {
				t.Errorf("afterwards: got %+v", got)
			}
			want := []string{s.Host() + " false ", s.Host() + " true "}
			if tc.reason == "" {
				want = nil
			}
			said := slices.DeleteFunc(strings.Split(log.all(), "\n"), func(l string) bool { return l == "" })
			if !slices.EqualFunc(said, want, strings.HasPrefix) {
				t.Errorf("it was told %q, want %q", said, want)
			}
		})
	}
}

// firstOfRange is a fault for the first request for each range: each reader of a
// range of its own has its share of it.
func firstOfRange(fault registrytest.Fault) registrytest.Fault {
	var seen sync.Map
	return func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		if _, again := seen.LoadOrStore(r.Header.Get("Range"), true); again {
			serve(w, r)
			return
		}
		fault(w, r, serve)
	}
}

// A registry whose token server does not give tokens is told of once too,
// though it answers what it is asked itself; and so is one that wants to be
// left alone for longer than reads wait.
func TestStateChangesOnce(t *testing.T) {
	for _, tc := range []struct {
		name  string
		kind  registrytest.Kind
		fault func(*registrytest.Server) registrytest.Fault
	}{
		{"token server answers 503", registrytest.Token, always(registrytest.Status(503))},
		{"token server answers junk", registrytest.Token, always(registrytest.Page())},
		{"token server wants to be left alone", registrytest.Token, always(registrytest.Status(429, "Retry-After", "60"))},
		{"token server never answers", registrytest.Token, func(s *registrytest.Server) registrytest.Fault { return s.Stall(-1) }},
		{"left alone", registrytest.Blob, always(registrytest.Status(429, "Retry-After", "60"))},
		{"never answers", registrytest.Blob, func(s *registrytest.Server) registrytest.Fault { return s.Stall(-1) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := registrytest.New(t, &registrytest.Options{Login: registrytest.Bearer})
			var log lines
			opts := fast()
			opts.ReadTimeout, opts.HeaderTimeout, opts.StallTimeout = 1500*time.Millisecond, 400*time.Millisecond, 400*time.Millisecond
			opts.StateChanged = func(host string, up bool, reason string) { log.printf("%t %s", up, reason) }
			client := registry.New(opts)
			defer client.Close()
			content := noise(1, blobSize)
			b := blobOf(t, client.Repository(remote.Reference{Registry: s.Host(), Repository: "app", Tag: "latest"}), s.PutBlob(ocispec.MediaTypeImageLayer, content))
			if err := check(t.Context(), b, content, 0, 10); err != nil {
				t.Fatal(err)
			}
			s.Inject(tc.kind, registrytest.Always(tc.fault(s)))
			s.RevokeTokens()
			for range 2 {
				readers(t, 10, func(int) error {
					_, err := b.ReadAt(t.Context(), make([]byte, 1000), 0)
					if got := client.Health(); !registry.NoAnswer(err) || len(got) != 1 || !got[0].Down || got[0].Reason == "" {
						return fmt.Errorf("error %v, and the server is said to be %+v", err, got)
					}
					return nil
				})
			}
			s.Inject(tc.kind, nil)
			time.Sleep(750 * time.Millisecond) // half of ReadTimeout is as long as a host is left alone
			readers(t, 10, func(i int) error { return check(t.Context(), b, content, 1000*i, 1000) })
			if said := strings.Split(log.all(), "\n"); len(said) != 2 || !strings.HasPrefix(said[0], "false ") || said[1] != "true " {
				t.Errorf("it was told %q, want two lines", said)
			}
		})
	}
}

func always(f registrytest.Fault) func(*registrytest.Server) registrytest.Fault {
	return func(*registrytest.Server) registrytest.Fault { return f }
}

// Readers who go away say nothing of a server.
func TestStateOfReadersWhoLeave(t *testing.T) {
	s := registrytest.New(t, nil)
	opts := fast()
	opts.StateChanged = func(host string, up bool, reason string) { t.Errorf("%s: up %t, %s", host, up, reason) }
	client := registry.New(opts)
	defer client.Close()
	r := client.Repository(remote.Reference{Registry: s.Host(), Repository: "app", Tag: "latest"})
	content := noise(1, blobSize)
	b := blobOf(t, r, s.PutBlob(ocispec.MediaTypeImageLayer, content))
	if err := check(t.Context(), b, content, 0, 10); err != nil {
		t.Fatal(err)
	}
	for i := range 12 {
		s.Inject(registrytest.Blob, registrytest.Once(s.Stall(i%2*20-10)))
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		if _, err := b.ReadAt(ctx, make([]byte, 50), 0); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got error %v, want %v", err, context.DeadlineExceeded)
		}
		cancel()
	}
	if got := client.Health(); len(got) != 1 || got[0].Down {
		t.Errorf("got %+v", got)
	}
}

// A server that is not there at all, and one that wants to be left alone.
func TestStateOutage(t *testing.T) {
	testenv.Slow(t)
	s := registrytest.New(t, nil)
	opts := fast()
	opts.ReadTimeout = 300 * time.Millisecond
	var log lines
	opts.StateChanged = func(host string, up bool, reason string) { log.printf("%t %s", up, reason) }
	client := registry.New(opts)
	defer client.Close()
	r := client.Repository(remote.Reference{Registry: s.Host(), Repository: "app", Tag: "latest"})
	content := noise(1, blobSize)
	desc := s.PutBlob(ocispec.MediaTypeImageLayer, content)
	b := blobOf(t, r, desc)
	if err := check(t.Context(), b, content, 0, 10); err != nil {
		t.Fatal(err)
	}
	s.Inject(registrytest.Blob, registrytest.Always(registrytest.Status(503, "Retry-After", "1")))
	for range 2 {
		if _, err := b.ReadAt(t.Context(), make([]byte, 10), 0); !registry.NoAnswer(err) {
			t.Errorf("asked to wait: NoAnswer of %v is false", err)
		}
	}
	addr := s.Host()
	s.Close()
	time.Sleep(150 * time.Millisecond) // half of ReadTimeout is as long as a host is left alone
	for range 3 {
		if _, err := b.ReadAt(t.Context(), make([]byte, 10), 0); !registry.NoAnswer(err) {
			t.Errorf("refused: NoAnswer of %v is false", err)
		}
	}
	if text := log.all(); strings.Count(text, "\n") != 0 || !strings.HasPrefix(text, "false ") {
		t.Errorf("it was told %q, want one line", text)
	}
	if got := client.Health(); len(got) != 1 || !got[0].Down || got[0].Reason == "" {
		t.Errorf("got %+v", got)
	}
	back := registrytest.New(t, &registrytest.Options{Addr: addr})
	back.PutBlob(ocispec.MediaTypeImageLayer, content)
	if err := check(t.Context(), b, content, 0, 10); err != nil {
		t.Error(err)
	}
	if text := log.all(); !strings.HasSuffix(text, "\ntrue ") || strings.Count(text, "\n") != 1 {
		t.Errorf("it was told %q, want two lines", text)
	}
}
