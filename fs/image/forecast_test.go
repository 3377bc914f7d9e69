package image_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
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

// TestForecastDecodes: what is expected is decoded before it is read, once a program has
// begun to read; it counts as used when it is read, and not before.
func TestForecastDecodes(t *testing.T) {
	if runtime.GOMAXPROCS(0) < 2 {
		t.Skip("nothing is decoded ahead on one processor")
	}
	reg := registrytest.New(t, nil)
	layout := filepath.Join(t.TempDir(), "layout")
	// Noise of letters: two thirds of it are left in the layer.
	noise := make([]byte, 3<<20)
	rand.NewChaCha8([32]byte{7}).Read(noise)
	content := base64.StdEncoding.EncodeToString(noise)
	if _, err := labimage.Write(layout, func(a *labimage.Archive) error { return a.File("program", content) }); err != nil {
		t.Fatal(err)
	}
	if err := reg.PushLayout(layout, "app"); err != nil {
		t.Fatal(err)
	}
	opts := &image.Options{CacheDir: t.TempDir()}
	open := func() *image.Image {
		t.Helper()
		img, err := image.Open(t.Context(), reg.Host()+"/app:"+labimage.Tag, opts)
		if err != nil {
			t.Fatal(err)
		}
		return img
	}
	// The index stays, and the bytes that were fetched to make it go.
	if err := errors.Join(open().Close(), os.RemoveAll(filepath.Join(opts.CacheDir, "blobs"))); err != nil {
		t.Fatal(err)
	}
	img := open()
	defer img.Close()
	n, err := img.Tree().Lookup("/program", true)
	if err != nil {
		t.Fatal(err)
	}
	const from, to = 256 << 10, 3 << 19
	p := profile.New("r", "p")
	p.Add([]profile.Read{{Path: "/program", Size: 64 << 10}, {Path: "/program", Off: from, Size: to - from, After: time.Millisecond}}, time.Unix(1e9, 0))
	f := img.Forecast(p)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := f.Run(ctx); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	buf := make([]byte, 4096)
	held := func(off int64) bool { return n.ReadHeldAt(buf, off) && string(buf) == content[off:off+int64(len(buf))] }
	settle := func(what string, ok func() bool) {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s: %+v", what, f.Stats())
			}
		}
	}
	settle("all is fetched", func() bool { return f.Stats().State == image.ForecastWaiting })
	if _, err := n.ReadAt(t.Context(), buf, 0); err != nil {
		t.Fatal(err)
	}
	time.Sleep(100 * time.Millisecond) // so that something is decoded
	if s := f.Stats(); s.Used > s.Fetched/2 {
		t.Errorf("before it is read: %+v", s)
	}
	settle("the end is decoded", func() bool { return held(to - 4096) })
	if !held(from) || !held((from+to)/2) {
		t.Error("the end is decoded, and something before it is not")
	}
	if s := f.Stats(); s.Used < s.Fetched/2 {
		t.Errorf("after it was read: %+v", s)
	}
	cancel()
	wg.Wait()
	f.Stop()
}

// TestNoteReadsAtOnce: of several processes that note at once none is forgotten.
func TestNoteReadsAtOnce(t *testing.T) {
	reg := registrytest.New(t, nil)
	layout := filepath.Join(t.TempDir(), "layout")
	if _, err := labimage.Write(layout, func(a *labimage.Archive) error { return a.File("f", "f") }); err != nil {
		t.Fatal(err)
	}
	if err := reg.PushLayout(layout, "app"); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	var all []*image.Image
	for range profile.MaxStarts {
		img, err := image.Open(t.Context(), reg.Host()+"/app:"+labimage.Tag, &image.Options{CacheDir: dir})
		if err != nil {
			t.Fatal(err)
		}
		defer img.Close()
		all = append(all, img)
	}
	var wg sync.WaitGroup
	for i, img := range all {
		wg.Go(func() {
			img.Resolved().NoteReads([]profile.Read{{Path: fmt.Sprint("/", i), Size: 1 << 20}})
		})
	}
	wg.Wait()
	if p := all[0].Resolved().KeptProfile(); p == nil || len(p.Starts) != len(all) {
		t.Errorf("got %+v", p)
	}
}
