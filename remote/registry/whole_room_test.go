package registry_test

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/imgfs/imgfs/remote/cache"
	"github.com/imgfs/imgfs/remote/registry"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
)

// A blob that is sent whole takes room of the cache, or is not kept.
func TestWholeInBudget(t *testing.T) {
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
				g := newWhole(t, s, opts, t.TempDir(), &cache.Options{Budget: tt.budget, Warnf: warned.printf})
				for off := 0; off < len(g.content); off += 1 << 18 {
					g.read(off, 1000)
				}
				g.read(len(g.content)-10, 10)
				if tt.kept {
					g.stored()
				}
				if n := g.present(); n == len(g.content) != tt.kept {
					t.Errorf("%d bytes are in the cache", n)
				}
				if n := g.cache.Stats().Temporary; n != 0 {
					t.Errorf("%d bytes are temporary", n)
				}
				if used, err := g.cache.Usage(); err != nil || used > tt.budget {
					t.Errorf("%d bytes on disk, the budget is %d; %v", used, tt.budget, err)
				}
				if all := warned.all(); strings.Count(all, "\n") > 0 || (all == "") != tt.kept {
					t.Errorf("warned: %q", all)
				}
			})
		})
	}
}

// Of a body that does not end no more is taken than the blob has.
func TestWholeEndless(t *testing.T) {
	bothProtocols(t, registrytest.Options{}, func(t *testing.T, s *registrytest.Server, opts *registry.Options) {
		g := newWhole(t, s, opts, t.TempDir(), nil)
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
		g.stored()
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
