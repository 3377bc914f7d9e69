package registry_test

import (
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/imgfs/imgfs/remote/registry"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
)

// TestCloseUnderWay: of requests that are under way at Close, and of those that their
// readers send afterwards, no connection stays.
func TestCloseUnderWay(t *testing.T) {
	for _, tls := range []bool{false, true} {
		s := registrytest.New(t, &registrytest.Options{TLS: tls})
		desc := s.PutBlob("application/octet-stream", make([]byte, 1<<20))
		s.Inject(registrytest.Blob, registrytest.Always(s.Trickle(100, 20_000, 2*time.Millisecond)))
		opts := fast()
		trust(t, s, opts)
		before := runtime.NumGoroutine()
		client := registry.New(opts)
		blob, err := client.Repository(reference(s)).Blob(desc)
		if err != nil {
			t.Fatal(err)
		}
		var readers sync.WaitGroup
		for i := range 6 {
			readers.Go(func() {
				for k := range 3 {
					if _, err := blob.ReadAt(t.Context(), make([]byte, 20_000*(i+1)), 0); err != nil && k == 0 {
						t.Error(err)
					}
				}
			})
		}
		for s.Count(registrytest.Blob) < 6 {
			time.Sleep(time.Millisecond)
		}
		if err := client.Close(); err != nil {
			t.Error(err)
		}
		readers.Wait()
		if !eventually(func() bool { return runtime.NumGoroutine() <= before }) {
			t.Errorf("TLS %v: %d goroutines before, %d after", tls, before, runtime.NumGoroutine())
		}
	}
}
