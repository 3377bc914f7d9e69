package image_test

import (
	"context"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/fs/image"
	"github.com/imgfs/imgfs/layerindex/estargz"
	"github.com/imgfs/imgfs/layerindex/soci"
	"github.com/imgfs/imgfs/remote/cache"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/remote/sourcetest"
)

// crowd serves one layer to several, each of which reads it by another index.
func crowd(t *testing.T) map[string]*served {
	t.Helper()
	bound := estargzLayer(t, standard(), nil)
	plain := bound
	plain.Annotations = nil
	d := digest.FromBytes(bound.Content)
	all := map[string]*served{"estargz": serve(t, nil, sourcetest.Image{Layers: []sourcetest.Layer{bound}})}
	withSOCI := serve(t, nil, sourcetest.Image{})
	index := pushSOCI(withSOCI.reg, d, ztocOf(t, plain), nil)
	all["soci"] = serve(t, withSOCI.reg, sourcetest.Image{Layers: []sourcetest.Layer{plain}, Annotations: map[string]string{soci.AnnotationIndex: index.Digest.String()}})
	all["published"] = serve(t, nil, sourcetest.Image{Layers: []sourcetest.Layer{plain}})
	all["published"].publish("idx")
	all["published"].opts.IndexRepos = []string{all["published"].reg.Host() + "/idx"}
	if _, ok := bound.Annotations[estargz.TOCDigestAnnotation]; !ok {
		t.Fatal("nothing binds the table of contents")
	}
	return all
}

var crowdUse = map[string]struct {
	origin string
	by     image.Voucher
}{
	"estargz": {"estargz", image.VouchedByManifest}, "soci": {"soci", image.VouchedByManifest}, "published": {"imgfs", image.VouchedByRegistry},
}

// TestOneCacheManyIndexes: several read one layer by different indexes and keep it in one
// cache directory. None takes anything from another: what each has read comes from the
// cache the second time.
func TestOneCacheManyIndexes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	all := crowd(t)
	for round := range 2 {
		images := map[string]*image.Image{}
		for name, s := range all { // before one has read all, and another finds what it made
			s.useCache(dir)
			s.reg.Forget()
			images[name] = s.mustOpen(crowdUse[name].origin, crowdUse[name].by)
		}
		var readers sync.WaitGroup
		for name, s := range all {
			readers.Go(func() { s.hasAll(images[name], standard()) })
		}
		readers.Wait()
		for name, s := range all {
			if n := s.reg.Bytes(registrytest.Blob); round == 1 && n > 0 {
				t.Errorf("%s fetched %d bytes again", name, n)
			}
			if warns := s.said(); len(warns) > 0 {
				t.Errorf("%s: warned of %q", name, warns)
			}
		}
	}
	if files, _ := filepath.Glob(filepath.Join(dir, "blobs", "sha256", "*")); len(files) != len(all) {
		t.Errorf("the cache has the blobs %q", files)
	}
	// One is checked, and the others go on.
	img := all["estargz"].mustOpen("estargz", image.VouchedByManifest)
	other := all["soci"].mustOpen("soci", image.VouchedByManifest)
	if err := image.Check(t.Context(), img); err != nil {
		t.Error(err)
	}
	all["soci"].hasAll(other, standard())
	all["estargz"].hasAll(img, standard())
}

// TestForeignEviction reads by indexes of others from a cache that is much too small.
func TestForeignEviction(t *testing.T) {
	t.Parallel()
	for name, s := range crowd(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			disk, err := cache.Open(t.TempDir(), &cache.Options{Budget: 40_000, Warnf: t.Logf})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { disk.Close() })
			s.opts.Cache, s.opts.SpanMemory = disk, 1
			img := s.mustOpen(crowdUse[name].origin, crowdUse[name].by)
			ctx, stop := context.WithTimeout(t.Context(), 500*time.Millisecond)
			defer stop()
			var readers sync.WaitGroup
			var reads atomic.Int64
			for i := range 3 {
				readers.Go(func() { readAtRandom(t, ctx, img, uint64(i), &reads) })
			}
			readers.Wait()
			if reads.Load() == 0 {
				t.Error("nothing was read")
			}
			if err := image.Check(t.Context(), img); err != nil {
				t.Error(err)
			}
			s.hasAll(img, standard())
		})
	}
}

// TestForeignMadeTogether: several make the same index of others at the same time.
func TestForeignMadeTogether(t *testing.T) {
	t.Parallel()
	for name, s := range crowd(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			var openers sync.WaitGroup
			for range 4 {
				openers.Go(func() {
					disk, err := cache.Open(dir, nil)
					if err != nil {
						t.Error(err)
						return
					}
					defer disk.Close()
					opts := s.opts
					opts.Cache = disk
					img, err := image.Open(t.Context(), s.reg.Host()+"/app:latest", &opts)
					if err != nil {
						t.Error(err)
						return
					}
					defer img.Close()
					if u := image.Uses(img)[0]; u.Origin != crowdUse[name].origin || u.Vouched != crowdUse[name].by {
						t.Errorf("it is read by %+v", u)
					}
					s.hasAll(img, standard())
				})
			}
			openers.Wait()
			if files, _ := filepath.Glob(filepath.Join(dir, "indexes", "sha256", "*")); len(files) != 1 {
				t.Errorf("the cache has the indexes %q", files)
			}
		})
	}
}
