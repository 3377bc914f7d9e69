package image_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/fs/image"
	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/layerindex/estargz"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/remote/sourcetest"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// publish publishes the indexes of the image in a repository of its registry, or beside it
// for "".
func (s *served) publish(repository string) {
	s.t.Helper()
	opts := s.opts
	opts.Cache, opts.CacheDir, opts.IndexTrust = nil, s.t.TempDir(), image.TrustLocal
	if repository != "" {
		repository = s.reg.Host() + "/" + repository
	}
	r, err := image.Resolve(s.t.Context(), s.reg.Host()+"/app:latest", &opts)
	if err != nil {
		s.t.Fatal(err)
	}
	layers, err := r.OpenLayers(s.t.Context(), nil)
	if err != nil {
		s.t.Fatal(err)
	}
	defer layers.Close()
	if _, err := layers.Publish(s.t.Context(), &image.PublishOptions{Repository: repository}); err != nil {
		s.t.Fatal(err)
	}
}

// foreignKinds serve an image with one layer and an index of it that somebody else made.
var foreignKinds = map[string]struct {
	serve  func(t *testing.T) *served
	origin string
	by     image.Voucher
}{
	"nothing": {func(t *testing.T) *served {
		return serve(t, nil, sourcetest.Image{Layers: []sourcetest.Layer{memberLayer(t, 6, standard())}})
	}, "imgfs", image.VouchedHere},
	"bound TOC": {func(t *testing.T) *served {
		return serve(t, nil, sourcetest.Image{Layers: []sourcetest.Layer{estargzLayer(t, standard(), nil)}})
	}, "estargz", image.VouchedByManifest},
	"unbound TOC": {func(t *testing.T) *served {
		l := estargzLayer(t, standard(), nil)
		delete(l.Annotations, estargz.TOCDigestAnnotation)
		return serve(t, nil, sourcetest.Image{Layers: []sourcetest.Layer{l}})
	}, "estargz", image.VouchedByRegistry},
	"SOCI of version 2": {func(t *testing.T) *served {
		l := memberLayer(t, 6, standard())
		return serveSOCI(t, l, ztocOf(t, l))
	}, "soci", image.VouchedByManifest},
	"SOCI of version 1": {func(t *testing.T) *served {
		l := memberLayer(t, 6, standard())
		s := serve(t, nil, sourcetest.Image{Layers: []sourcetest.Layer{l}})
		pushSOCI(s.reg, digest.FromBytes(l.Content), ztocOf(t, l), &s.top)
		return s
	}, "soci", image.VouchedByRegistry},
	"ours beside": {func(t *testing.T) *served {
		s := serve(t, nil, sourcetest.Image{Layers: []sourcetest.Layer{memberLayer(t, 6, standard())}})
		s.publish("")
		return s
	}, "imgfs", image.VouchedByRegistry},
}

// TestIndexTrust: which index serves a layer, by what there is and what was asked for.
func TestIndexTrust(t *testing.T) {
	t.Parallel()
	for name, kind := range foreignKinds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, repo := range []bool{false, true} {
				s := kind.serve(t)
				if repo {
					s.publish("idx")
					s.opts.IndexRepos = []string{s.reg.Host() + "/idx"}
				}
				for _, trust := range []image.IndexTrust{image.TrustNamed, image.TrustLocal, image.TrustBound, image.TrustRepositories, image.TrustPublished} {
					origin, by := kind.origin, kind.by
					asksRepo, asksBeside := false, false
					switch {
					case trust == image.TrustLocal, trust == image.TrustRepositories && !repo:
						origin, by = "imgfs", image.VouchedHere
					case kind.by == image.VouchedByManifest && trust != image.TrustRepositories:
					case repo && trust != image.TrustBound:
						origin, by, asksRepo = "imgfs", image.VouchedByRegistry, true
					case trust == image.TrustPublished:
						asksBeside = true
					default:
						origin, by = "imgfs", image.VouchedHere
					}
					s.opts.IndexTrust = trust
					s.newCache()
					s.reg.Forget()
					img := s.mustOpen(origin, by)
					s.hasAll(img, standard())
					beside := s.reg.Count(registrytest.Referrers)
					inRepo := 0
					for _, r := range s.reg.Requests() {
						if strings.HasPrefix(r.Path, "/v2/idx/") {
							inRepo++
						} else if strings.Contains(r.Path, "imgfs1.") {
							beside++
						}
					}
					if asksRepo != (inRepo > 0) || asksBeside != (beside > 0) {
						t.Errorf("repository %v, trust %d: %d requests to the index repository, %d for what is beside the image", repo, trust, inRepo, beside)
					}
					if warns := s.said(); len(warns) > 0 {
						t.Errorf("repository %v, trust %d: warned of %q", repo, trust, warns)
					}
					// What was read here goes before all others.
					if by == image.VouchedHere {
						s.opts.IndexTrust = image.TrustPublished
						s.mustOpen("imgfs", image.VouchedHere)
					}
				}
			}
		})
	}
}

// TestSwapWhileRead: the layer is checked while it is read, and what readers get is right
// before, while and after our own index takes the place of the other.
func TestSwapWhileRead(t *testing.T) {
	t.Parallel()
	for name, kind := range foreignKinds {
		if kind.by == image.VouchedHere {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := kind.serve(t)
			s.opts.IndexTrust = image.TrustPublished
			img, other := s.mustOpen(kind.origin, kind.by), s.mustOpen(kind.origin, kind.by)
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			var readers sync.WaitGroup
			var reads atomic.Int64
			for i := range 4 {
				readers.Go(func() { readAtRandom(t, ctx, []*image.Image{img, other}[i%2], uint64(i), &reads) })
			}
			wait := func() {
				for n := reads.Load(); reads.Load() < n+200 && !t.Failed(); {
					time.Sleep(time.Millisecond)
				}
			}
			wait()
			for _, i := range []*image.Image{img, other} {
				if err := image.Check(t.Context(), i); err != nil {
					t.Error(err)
				}
				if u := image.Uses(i)[0]; u.Vouched != image.VouchedHere || u.Origin != "imgfs" || u.From != "" || u.Lost != "" {
					t.Errorf("checked: it is read by %+v", u)
				}
				wait()
			}
			stop()
			readers.Wait()
			s.hasAll(img, standard())
			s.hasAll(other, standard())
			if warns := s.said(); len(warns) > 0 {
				t.Errorf("warned of %q", warns)
			}
			for _, what := range []string{"blobs", "indexes"} {
				if left, _ := filepath.Glob(filepath.Join(s.opts.Cache.Dir(), what, "sha256", "*-*")); len(left) > 0 {
					t.Errorf("in the cache is left %q", left)
				}
			}
			s.mustOpen("imgfs", image.VouchedHere)
		})
	}
}

// readAtRandom reads parts of the files of an image, and compares them, until ctx ends.
func readAtRandom(t *testing.T, ctx context.Context, img *image.Image, seed uint64, reads *atomic.Int64) {
	r := rand.New(rand.NewPCG(seed, 1))
	var files []tarEntry
	for _, e := range standard() {
		if len(e.content) > 0 {
			files = append(files, e)
		}
	}
	for ; ctx.Err() == nil; reads.Add(1) {
		e := files[r.IntN(len(files))]
		f, err := img.FS(t.Context()).Open(e.Name)
		if err != nil {
			t.Error(err)
			return
		}
		off := r.IntN(len(e.content))
		p := make([]byte, min(1+r.IntN(5000), len(e.content)-off))
		_, err = f.(interface {
			ReadAt(p []byte, off int64) (int, error)
		}).ReadAt(p, int64(off))
		f.Close()
		if err != nil || string(p) != e.content[off:off+len(p)] {
			t.Errorf("%s, %d bytes at %d: %v", e.Name, len(p), off, err)
			return
		}
	}
}

// TestCheckIdle: a layer whose index nothing binds is checked when nobody has read for a
// while, one whose index is bound when all of it has come.
func TestCheckIdle(t *testing.T) {
	testenv.Slow(t)
	t.Parallel()
	for name, kind := range foreignKinds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := kind.serve(t)
			s.opts.IndexTrust = image.TrustPublished
			img := s.mustOpen(kind.origin, kind.by)
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() {
				defer close(done)
				img.CheckIdle(ctx, 1)
			}()
			if kind.by == image.VouchedByManifest {
				s.hasAll(img, standard())
			}
			eventually(t, img, "last", func([]byte, error) bool { return image.Uses(img)[0].Vouched == image.VouchedHere })
			<-done
			cancel()
			s.hasAll(img, standard())
			if warns := s.said(); len(warns) > 0 {
				t.Errorf("warned of %q", warns)
			}
		})
	}
}

// TestBoundTwice: a manifest binds two indexes of a layer that differ. Neither is used.
func TestBoundTwice(t *testing.T) {
	t.Parallel()
	right := estargzLayer(t, standard(), nil)
	wrong := estargzLayer(t, standard(), set("d/one", "mode", 0o777))
	for name, c := range map[string]struct {
		layer  sourcetest.Layer
		origin string
		by     image.Voucher
		warns  int
	}{
		"same":      {right, "estargz", image.VouchedByManifest, 0},
		"different": {wrong, "imgfs", image.VouchedHere, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serveSOCI(t, c.layer, ztocOf(t, c.layer))
			s.hasAll(s.mustOpen(c.origin, c.by), standard())
			if warns := s.said(); len(warns) != c.warns || c.warns > 0 && !strings.Contains(warns[0], `two indexes of the layer that differ`) {
				t.Errorf("warned of %q", warns)
			}
		})
	}
	// Annotations of two formats.
	l := estargzLayer(t, standard(), nil)
	l.Annotations["io.github.containers.zstd-chunked.manifest-checksum"] = digest.FromString("other").String()
	l.Annotations["io.github.containers.zstd-chunked.manifest-position"] = fmt.Sprintf("%d:100:100:1", len(l.Content)/2)
	s := serve(t, nil, sourcetest.Image{Layers: []sourcetest.Layer{l}})
	s.hasAll(s.mustOpen("imgfs", image.VouchedHere), standard())
	if warns := s.said(); len(warns) != 1 {
		t.Errorf("warned of %q", warns)
	}
}

// TestOtherDiffID: a layer whose table the manifest binds, with the diff id of another layer, is
// what its publisher says for those who chose the image. With TrustRepositories, for those who
// know a tree by diff ids alone, it is refused, also where the cache has the table.
func TestOtherDiffID(t *testing.T) {
	t.Parallel()
	l := estargzLayer(t, standard(), nil)
	l.DiffID = digest.FromString("another layer")
	s := serve(t, nil, sourcetest.Image{Layers: []sourcetest.Layer{l}})
	s.mustOpen("estargz", image.VouchedByManifest)
	s.opts.IndexTrust = image.TrustRepositories
	for range 2 {
		if img, err := s.open(); !errors.Is(err, layerindex.ErrDiffID) {
			t.Errorf("got %v and error %v, want %v", img, err, layerindex.ErrDiffID)
		}
		s.newCache()
	}
}
