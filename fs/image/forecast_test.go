package image_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/imgfs/imgfs/fs/image"
	"github.com/imgfs/imgfs/fs/profile"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/labimage"
)

// TestForecastExpect: a profile that comes while the image is being read has be fetched what
// it says, and what was read before it came tells which start has begun.
func TestForecastExpect(t *testing.T) {
	t.Parallel()
	reg := registrytest.New(t, nil)
	layout := filepath.Join(t.TempDir(), "layout")
	const files, size = 9, 256 << 10
	if _, err := labimage.Write(layout, func(a *labimage.Archive) error {
		var errs []error
		for i := range files {
			errs = append(errs, a.File(fmt.Sprint("f", i), text(size+i)))
		}
		return errors.Join(errs...)
	}); err != nil {
		t.Fatal(err)
	}
	if err := reg.PushLayout(layout, "app"); err != nil {
		t.Fatal(err)
	}
	img, err := image.Open(t.Context(), reg.Host()+"/app:"+labimage.Tag, &image.Options{CacheDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	p := profile.New("r", "p")
	for start := range 3 {
		var reads []profile.Read
		for i := range files {
			if i%3 == start {
				reads = append(reads, profile.Read{Path: fmt.Sprint("/f", i), Size: size, After: time.Duration(i)})
			}
		}
		p.Add(reads, time.Unix(int64(1e9+start), 0))
	}
	f := img.Forecast(nil)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := f.Run(ctx); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	for i := range 3 {
		wg.Go(func() {
			n, err := img.Tree().Lookup(fmt.Sprint("/f", i), true)
			if err == nil {
				_, err = n.ReadAt(t.Context(), make([]byte, 100), 0)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Go(func() { f.Expect(p) })
	for end := time.Now().Add(20 * time.Second); f.Stats().State != image.ForecastWaiting || f.Stats().Files != files; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it does not come to rest: %+v", f.Stats())
		}
	}
	cancel()
	wg.Wait()
	f.Stop()
	if got := f.Reads(); len(got) != 3 {
		t.Errorf("read: %+v", got)
	}
	if got := f.Stats(); got.State != image.ForecastOver {
		t.Errorf("got %+v", got)
	}
}
