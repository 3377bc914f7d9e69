package indexes

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/layerindex/build"
	"github.com/imgfs/imgfs/remote"
)

// A farLayer is a layer whose index is of several pieces, and published.
type farLayer struct {
	layer          layerindex.Layer
	made           *layerindex.Index // as it was made
	index, digests []byte            // as published
	published      *layerindex.Index
}

// newFarLayer makes a layer of 5,000 files with long names. It does so once.
var newFarLayer = sync.OnceValues(func() (*farLayer, error) {
	var blob bytes.Buffer
	diffID := digest.SHA256.Digester()
	z := gzip.NewWriter(&blob)
	w := tar.NewWriter(io.MultiWriter(z, diffID.Hash()))
	rng := rand.New(rand.NewPCG(3, 4))
	content := make([]byte, 2000)
	for i := range 5000 {
		for j := range content {
			content[j] = "etaoin shrdlu\n"[rng.IntN(14)]
		}
		h := &tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("%x/%x%x%d", rng.IntN(9), rng.Uint64(), rng.Uint64(), i), Size: int64(len(content)), Mode: 0o644}
		_ = w.WriteHeader(h)
		_, _ = w.Write(content)
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		return nil, err
	}
	l := &farLayer{layer: layerindex.Layer{Digest: digest.FromBytes(blob.Bytes()), Size: int64(blob.Len()), DiffID: diffID.Digest()}}
	var err error
	if l.made, err = build.Index(context.Background(), l.layer, &blob, &build.Options{SpanSize: 64 << 10, ChunkSize: 4096}); err != nil {
		return nil, err
	}
	var index, digests bytes.Buffer
	if err := l.made.WritePublished(&index, &digests); err != nil {
		return nil, err
	}
	l.index, l.digests = index.Bytes(), digests.Bytes()
	l.published, err = layerindex.ReadIndex(bytes.NewReader(l.index), int64(len(l.index)))
	return l, err
})

func theFarLayer(t *testing.T) *farLayer {
	t.Helper()
	l, err := newFarLayer()
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// options returns what to open the index with, and the blobs that it is read from.
func (l *farLayer) options(t *testing.T) (opts *FarOptions, index, digests *farBlob) {
	index, digests = newFarBlob(t, l.index), newFarBlob(t, l.digests)
	pieces, err := l.published.Pieces()
	if err != nil {
		t.Fatal(err)
	}
	_, to, _ := pieces.Range(l.published.ListingEnd()-1, l.published.ListingEnd())
	_, listing := pieces.Bounds(to - 1)
	return &FarOptions{Header: l.published.HeaderSum(), Listing: listing, Index: index, Digests: digests,
		MakeRoom: func(int64) bool { return true }, DiskFailed: func(err error) { t.Errorf("the disk failed: %v", err) }}, index, digests
}

// use reads all that an index has, and compares it with the one that was made. It returns
// the first error.
func (l *farLayer) use(t *testing.T, x *layerindex.Index) error {
	t.Helper()
	got, err := x.ListDigests(t.Context())
	if err != nil {
		return err
	}
	want, err := l.made.ListDigests(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var all []layerindex.Entry
	for e := range want.All() {
		all = append(all, *e)
	}
	n := 0
	for e := range got.All() {
		if w := all[n]; e.Name != w.Name || e.Off != w.Off || e.Size != w.Size || e.HasDigest && e.Digest != w.Digest {
			t.Fatalf("entry %d is %+v, want %+v", n, e, w)
		}
		n++
	}
	if err := errors.Join(got.Err(), want.Err()); err != nil {
		return err
	}
	if n != len(all) {
		t.Fatalf("%d entries, want %d", n, len(all))
	}
	sums, err := x.ChunkSums()
	if err != nil {
		return err
	}
	wantSums, err := l.made.ChunkSums()
	if err != nil || !bytes.Equal(sums, wantSums) {
		t.Fatalf("other chunk sums; %v", err)
	}
	spans, err := x.Spans()
	if err != nil {
		return err
	}
	wantSpans, err := l.made.Spans()
	if err != nil || spans.Len() != wantSpans.Len() {
		t.Fatalf("%d spans, want %d; %v", spans.Len(), wantSpans.Len(), err)
	}
	for i := range spans.Len() {
		p, err := spans.Checkpoint(i)
		if err != nil {
			return err
		}
		q, err := wantSpans.Checkpoint(i)
		if err != nil || p.In != q.In || p.Out != q.Out || !bytes.Equal(p.Window.Data, q.Window.Data) || !slices.Equal(p.Window.Runs, q.Window.Runs) {
			t.Fatalf("checkpoint %d differs; %v", i, err)
		}
	}
	return nil
}

// TestFar: one request brings what a listing needs, one more what each read needs, and
// windows and digests come piece by piece; a second time, and for another process, all is
// here.
func TestFar(t *testing.T) {
	l := theFarLayer(t)
	dir := t.TempDir()
	opts, index, digests := l.options(t)
	s := openStore(t, dir)
	x, err := s.Far(t.Context(), l.layer, opts)
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	if _, err := x.List(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if asked, want := index.take(), []string{fmt.Sprintf("0+%d", opts.Listing)}; !slices.Equal(asked, want) {
		t.Errorf("a listing asked for %q, want %q", asked, want)
	}
	end := x.ReadingEnd() + 64<<10
	if _, err := x.ChunkSums(); err != nil {
		t.Fatal(err)
	}
	spans, err := x.Spans()
	if err != nil {
		t.Fatal(err)
	}
	asked := index.take()
	var off, size int64
	if len(asked) != 1 {
		t.Errorf("what each read needs asked for %q", asked)
	} else if fmt.Sscanf(asked[0], "%d+%d", &off, &size); off != opts.Listing || off+size > end {
		t.Errorf("what each read needs asked for %q, want it to be from %d to %d at most", asked, opts.Listing, end)
	}
	if _, err := spans.Checkpoint(spans.Len() - 2); err != nil {
		t.Fatal(err)
	}
	if asked := index.take(); len(asked) != 1 {
		t.Errorf("a window asked for %q", asked)
	}
	if digests.take() != nil {
		t.Error("digests were asked for")
	}
	if _, err := x.ContentDigest(2100); err != nil {
		t.Fatal(err)
	}
	if asked, want := digests.take(), []string{fmt.Sprintf("%d+%d", 64<<10, 64<<10)}; !slices.Equal(asked, want) {
		t.Errorf("one digest asked for %q, want %q", asked, want)
	}
	if err := l.use(t, x); err != nil {
		t.Fatal(err)
	}
	index.take()
	digests.take()

	again, err := openStore(t, dir).Far(t.Context(), l.layer, opts)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if err := l.use(t, again); err != nil {
		t.Error(err)
	}
	if a, b := index.take(), digests.take(); a != nil || b != nil {
		t.Errorf("what is here was asked for: %q, %q", a, b)
	}
	list, err := s.List()
	if err != nil || len(list) != 1 || list[0].Key != FarKey(opts.Header) || list[0].Digest != l.layer.Digest {
		t.Errorf("List() = %+v, %v", list, err)
	}
}

// TestFarOffline: what is here is used without the source, what is not is unavailable.
func TestFarOffline(t *testing.T) {
	l := theFarLayer(t)
	dir := t.TempDir()
	opts, index, digests := l.options(t)
	x, err := openStore(t, dir).Far(t.Context(), l.layer, opts)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := x.ChunkSums(); err != nil {
		t.Fatal(err)
	}
	x.Close()
	index.fail, digests.fail = remote.ErrUnavailable, remote.ErrUnavailable
	if x, err = openStore(t, dir).Far(t.Context(), l.layer, opts); err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	if _, err := x.List(t.Context(), nil); err != nil {
		t.Error(err)
	}
	spans, err := x.Spans()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := spans.Checkpoint(spans.Len() - 2); !errors.Is(err, remote.ErrUnavailable) {
		t.Errorf("a window that is not here: %v", err)
	}
	if _, err := x.ContentDigest(1); !errors.Is(err, remote.ErrUnavailable) {
		t.Errorf("a digest that is not here: %v", err)
	}
	if _, err := openStore(t, t.TempDir()).Far(t.Context(), l.layer, opts); !errors.Is(err, remote.ErrUnavailable) {
		t.Errorf("nothing is here: %v", err)
	}
	index.fail = nil
	if _, err := spans.Checkpoint(spans.Len() - 2); err != nil {
		t.Errorf("the source is back: %v", err)
	}
}

// TestFarRefused: an index that is not the one that was announced, or not one of this
// layer that a pass has made, is none.
func TestFarRefused(t *testing.T) {
	l := theFarLayer(t)
	other, x := func() ([]byte, *layerindex.Index) {
		blob, layer := testLayer(t)
		x := mustBuild(t, blob, layer)
		var index, digests bytes.Buffer
		if err := x.WritePublished(&index, &digests); err != nil {
			t.Fatal(err)
		}
		p, err := x.Published(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return index.Bytes(), p
	}()
	for what, edit := range map[string]func(o *FarOptions, layer *layerindex.Layer, index *farBlob){
		"another header":      func(o *FarOptions, _ *layerindex.Layer, _ *farBlob) { o.Header[9]++ },
		"another layer":       func(_ *FarOptions, layer *layerindex.Layer, _ *farBlob) { layer.Digest = digest.FromString("x") },
		"another size":        func(_ *FarOptions, layer *layerindex.Layer, _ *farBlob) { layer.Size++ },
		"another diff_id":     func(_ *FarOptions, layer *layerindex.Layer, _ *farBlob) { layer.DiffID = digest.FromString("x") },
		"another index":       func(_ *FarOptions, _ *layerindex.Layer, b *farBlob) { b.Data = other },
		"of another layer":    func(o *FarOptions, _ *layerindex.Layer, b *farBlob) { b.Data, o.Header = other, x.HeaderSum() },
		"no index":            func(_ *FarOptions, _ *layerindex.Layer, b *farBlob) { b.Data = bytes.Repeat([]byte("<html>"), 99_999) },
		"zeros":               func(_ *FarOptions, _ *layerindex.Layer, b *farBlob) { b.Data = make([]byte, 500_000) },
		"too short":           func(_ *FarOptions, _ *layerindex.Layer, b *farBlob) { b.Data = b.Data[:100] },
		"longer":              func(_ *FarOptions, _ *layerindex.Layer, b *farBlob) { b.Data = append(bytes.Clone(b.Data), 0) },
		"a listing too short": func(o *FarOptions, _ *layerindex.Layer, _ *farBlob) { o.Listing = 200 },
		"not published": func(o *FarOptions, _ *layerindex.Layer, b *farBlob) {
			b.Data = append([]byte("imgfsidx\x01\x00\x00\x00"), b.Data[12:]...)
		},
	} {
		opts, index, _ := l.options(t)
		layer := l.layer
		edit(opts, &layer, index)
		x, err := openStore(t, t.TempDir()).Far(t.Context(), layer, opts)
		if !errors.Is(err, ErrNone) || !errors.Is(err, layerindex.ErrIndex) {
			t.Errorf("%s: got %v and error %v", what, x, err)
		}
		if asked := index.take(); len(asked) > 1 {
			t.Errorf("%s: asked for %q", what, asked)
		}
	}
	if _, err := openStore(t, t.TempDir()).Far(t.Context(), layerindex.Layer{Digest: "sha512:12"}, &FarOptions{}); err == nil {
		t.Error("a layer without a digest has an index")
	}
}

// TestFarSmallListing: whatever a publisher says that a listing needs, no more is wrong
// than the number of requests.
func TestFarSmallListing(t *testing.T) {
	l := theFarLayer(t)
	for _, listing := range []int64{2000, 70_000, l.published.ListingEnd(), int64(len(l.index)), 1 << 40} {
		opts, _, _ := l.options(t)
		opts.Listing = listing
		x, err := openStore(t, t.TempDir()).Far(t.Context(), l.layer, opts)
		if err != nil {
			t.Errorf("listing %d: %v", listing, err)
			continue
		}
		if err := l.use(t, x); err != nil {
			t.Errorf("listing %d: %v", listing, err)
		}
		x.Close()
	}
}

// TestFarSilent: a source that says nothing is given up, and who is interrupted does not
// wait at all.
func TestFarSilent(t *testing.T) {
	t.Parallel()
	l := theFarLayer(t)
	silence := func(ctx context.Context, _ int, _ []byte) (int, error) {
		<-ctx.Done()
		return 0, ctx.Err()
	}
	opts, index, _ := l.options(t)
	index.Answer = silence
	began := time.Now()
	if _, err := openStore(t, t.TempDir()).Far(t.Context(), l.layer, opts); !errors.Is(err, remote.ErrUnavailable) {
		t.Errorf("got error %v", err)
	}
	if took := time.Since(began); took < openLimit/2 || took > openLimit+time.Second {
		t.Errorf("it took %v", took)
	}
	opts, index, _ = l.options(t)
	index.Answer = silence
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	began = time.Now()
	if _, err := openStore(t, t.TempDir()).Far(ctx, l.layer, opts); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > time.Second {
		t.Errorf("got error %v in %v", err, time.Since(began))
	}
}

// TestFarMany: processes that use the same directory, or none, at the same time do each
// other no harm.
func TestFarMany(t *testing.T) {
	l := theFarLayer(t)
	dir := t.TempDir()
	var all sync.WaitGroup
	for i := range 6 {
		opts, _, _ := l.options(t)
		if i == 5 {
			opts.MakeRoom = nil
		}
		s := openStore(t, dir)
		all.Go(func() {
			x, err := s.Far(t.Context(), l.layer, opts)
			if err != nil {
				t.Error(err)
				return
			}
			defer x.Close()
			if i == 3 {
				if err := s.RemoveKey(l.layer.Digest, FarKey(opts.Header)); err != nil {
					t.Error(err)
				}
			}
			if err := l.use(t, x); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}
