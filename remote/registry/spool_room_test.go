package registry_test

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache"
	"github.com/imgfs/imgfs/remote/registry"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
)

// A blob that is sent whole takes room of the cache, or is not kept.
func TestSpoolInBudget(t *testing.T) {
	for name, tt := range map[string]struct {
		budget int64
		kept   bool
	}{
		"room":    {3 << 19, true},
		"no room": {1 << 19, false},
	} {
		t.Run(name, func(t *testing.T) {
			bothProtocols(t, registrytest.Options{}, func(t *testing.T, s *registrytest.Server, opts *registry.Options) {
				var warned lines
				disk := openCache(t, t.TempDir(), &cache.Options{Budget: tt.budget, Warnf: warned.printf})
				opts.SpoolFailed = disk.WarnDisk
				opts.NewTemp = func(size int64) (remote.TempFile, error) {
					f, err := disk.NewTempFile(&cache.TempOptions{Size: size})
					if err != nil {
						return nil, err
					}
					return f, nil
				}
				g := newSpooling(t, s, opts, t.TempDir(), nil)
				b := blobOf(t, g.client.Repository(reference(s)), g.desc)
				for off := 0; off < len(g.content); off += 1 << 18 {
					if err := check(t.Context(), b, g.content, off, 1000); err != nil {
						t.Error(err)
					}
				}
				if err := check(t.Context(), b, g.content, len(g.content)-10, 10); err != nil {
					t.Error(err)
				}
				want := int64(0)
				if tt.kept {
					want = int64(len(g.content))
				}
				if n := disk.Stats().Temporary; n != want {
					t.Errorf("%d bytes are temporary, want %d", n, want)
				}
				if used, err := disk.Usage(); err != nil || used+disk.Stats().Temporary > tt.budget {
					t.Errorf("%d bytes on disk, the budget is %d; %v", used+disk.Stats().Temporary, tt.budget, err)
				}
				if all := warned.all(); strings.Count(all, "\n") > 0 || (all == "") != tt.kept {
					t.Errorf("warned: %q", all)
				}
				if err := g.client.Close(); err != nil {
					t.Error(err)
				}
				if n := disk.Stats().Temporary; n != 0 {
					t.Errorf("%d bytes are temporary when the client is closed", n)
				}
			})
		})
	}
}

// Of a body that does not end no more is taken than the blob has.
func TestSpoolEndless(t *testing.T) {
	bothProtocols(t, registrytest.Options{}, func(t *testing.T, s *registrytest.Server, opts *registry.Options) {
		g := newSpooling(t, s, opts, t.TempDir(), nil)
		var sent atomic.Int64
		ended := make(chan struct{})
		s.Inject(registrytest.Blob, registrytest.Always(func(w http.ResponseWriter, r *http.Request, _ http.HandlerFunc) {
			defer close(ended)
			w.WriteHeader(http.StatusOK)
			for p := g.content; r.Context().Err() == nil; {
				n, err := w.Write(p)
				if sent.Add(int64(n)); err != nil {
					return
				}
				_ = http.NewResponseController(w).Flush() // the next write tells
			}
		}))
		g.read(len(g.content)-10, 10)
		g.takenIn()
		select {
		case <-ended:
		case <-time.After(20 * time.Second):
			t.Error("the answer is still being taken")
		}
		// What the two ends of the connection have in hand is too much.
		if n := sent.Load(); n > int64(len(g.content))+32<<20 {
			t.Errorf("%d bytes were sent of a blob of %d", n, len(g.content))
		}
		verifyCached(t, g.cache, g.desc, g.content)
	})
}
