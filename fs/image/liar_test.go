package image_test

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	iofs "io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/fs/image"
	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/layerindex/build"
	"github.com/imgfs/imgfs/remote/cache"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/remote/sourcetest"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// A liarRegistry has an image of one layer, and an index repository with whatever index
// of that layer.
type liarRegistry struct {
	*registrytest.Server
	t     *testing.T
	layer sourcetest.Layer
	own   *layerindex.Index // as it should be
	// annotations are those of the image that pushImage makes.
	annotations map[string]string
}

func newLiarRegistry(t *testing.T, layer sourcetest.Layer) *liarRegistry {
	t.Helper()
	r := &liarRegistry{Server: registrytest.New(t, nil), t: t, layer: layer}
	pushSized(t, r.Server, layer, 0)
	var err error
	claim := layerindex.Layer{Digest: digest.FromBytes(layer.Content), Size: int64(len(layer.Content)), DiffID: layer.DiffID}
	if r.own, err = build.Index(t.Context(), claim, bytes.NewReader(layer.Content), nil); err != nil {
		t.Fatal(err)
	}
	return r
}

// edited returns an index of the layer that lists other entries, with the right sums of
// its chunks.
func (r *liarRegistry) edited(edit func(list []layerindex.Entry) []layerindex.Entry) *layerindex.Index {
	r.t.Helper()
	x, err := r.tryEdited(edit)
	if err != nil {
		r.t.Fatal(err)
	}
	return x
}

// tryEdited is edited for entries that may be none of an index.
func (r *liarRegistry) tryEdited(edit func(list []layerindex.Entry) []layerindex.Entry, points ...layerindex.Checkpoint) (*layerindex.Index, error) {
	r.t.Helper()
	x := r.own
	list, err := x.ListDigests(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	var all []layerindex.Entry
	for e := range list.All() {
		all = append(all, *e)
	}
	w := layerindex.NewWriter(nil)
	for _, e := range edit(all) {
		if err := w.AddEntry(&e); err != nil {
			return nil, err
		}
	}
	if x.Codec() != layerindex.Plain {
		if err := w.AddCheckpoints(append([]layerindex.Checkpoint{{Start: true}}, points...)); err != nil {
			return nil, err
		}
	}
	sums, err := x.ChunkSums()
	if err != nil {
		r.t.Fatal(err)
	}
	for sum := sums; len(sum) > 0; sum = sum[32:] {
		w.AddChunk([32]byte(sum[:32]))
	}
	s := layerindex.Summary{Codec: x.Codec(), BlobSize: x.BlobSize(), ChunkSize: x.ChunkSize(), TarSize: x.Size()}
	hexInto(r.t, s.Blob[:], x.Digest())
	hexInto(r.t, s.DiffID[:], x.DiffID())
	return w.Finish(s)
}

// publish publishes an index in the index repository idx.
func (r *liarRegistry) publish(x *layerindex.Index) {
	r.t.Helper()
	p, err := x.Published(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	var index, digests bytes.Buffer
	if _, err = p.WriteTo(&index); err == nil {
		err = x.WriteDigests(r.t.Context(), &digests)
	}
	if err != nil {
		r.t.Fatal(err)
	}
	layer := x.Digest().String()
	sum := p.HeaderSum()
	d := r.PutBlob("application/vnd.imgfs.index.layer.v1", index.Bytes())
	d.Annotations = map[string]string{
		"io.github.imgfs.layer": layer, "io.github.imgfs.codec": "gzip",
		"io.github.imgfs.header": fmt.Sprintf("%x", sum), "io.github.imgfs.listing": fmt.Sprint(p.ListingEnd()),
	}
	layers := []ocispec.Descriptor{d}
	if digests.Len() > 0 {
		d := r.PutBlob("application/vnd.imgfs.index.digests.v1", digests.Bytes())
		d.Annotations = map[string]string{"io.github.imgfs.layer": layer}
		layers = append(layers, d)
	}
	r.PutArtifact("idx", "imgfs1."+strings.Replace(layer, ":", "-", 1), ocispec.Manifest{ArtifactType: "application/vnd.imgfs.index.v1", Layers: layers})
}

// options are those to open the image with the index repository.
func (r *liarRegistry) options() (*image.Options, func() string) {
	opts, warns := sizedOptions(r.t, r.Server)
	opts.IndexRepos = []string{r.Host() + "/idx"}
	opts.Debugf = r.t.Logf
	return opts, warns
}

func (r *liarRegistry) open(opts *image.Options) (*image.Image, error) {
	ctx, cancel := context.WithTimeout(r.t.Context(), time.Minute)
	defer cancel()
	return image.Open(ctx, r.Host()+"/app", opts)
}

func (r *liarRegistry) mustOpen(opts *image.Options) *image.Image {
	r.t.Helper()
	img, err := r.open(opts)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { img.Close() })
	return img
}

// TestLiarWithRightSums: an index that has the right sums of chunks and wrong names is
// found out, and what is made here in its place has the same sums and is used.
func TestLiarWithRightSums(t *testing.T) {
	r := newLiarRegistry(t, gzipLayer(t, "a", "honest", "b", strings.Repeat("b", 200_000)))
	r.publish(r.edited(func(list []layerindex.Entry) []layerindex.Entry {
		list[0].Name = "liar"
		return list
	}))
	opts, warns := r.options()
	img := r.mustOpen(opts)
	if u := img.Layers()[0].Use(); u.Vouched != image.VouchedByRegistry {
		t.Fatalf("read by %+v", u)
	}
	if got, err := iofs.ReadFile(img.FS(t.Context()), "liar"); string(got) != "honest" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if err := image.Check(t.Context(), img); !errors.Is(err, image.ErrLiar) {
		t.Errorf("checked: %v", err)
	}
	if got, err := iofs.ReadFile(img.FS(t.Context()), "liar"); !errors.Is(err, image.ErrLiar) {
		t.Errorf("after the check: %q, %v", got, err)
	}
	img.Close()
	if w := warns(); !strings.Contains(w, `the name of entry "a"`) {
		t.Errorf("warned of %q", w)
	}
	n := r.Bytes(registrytest.Blob)
	for range 2 {
		img = r.mustOpen(opts)
		if got, err := iofs.ReadFile(img.FS(t.Context()), "a"); string(got) != "honest" || err != nil {
			t.Errorf("opened again: %q, %v", got, err)
		}
		if u := img.Layers()[0].Use(); u.Vouched != image.VouchedHere {
			t.Errorf("opened again it is read by %+v", u)
		}
		img.Close()
	}
	if w := warns(); w != "" {
		t.Errorf("opened again: warned of %s", w)
	}
	if now := r.Bytes(registrytest.Blob); now != n {
		t.Errorf("opened again: fetched %d bytes", now-n)
	}
}

// TestLiarCannotBeMerged: an index of which no tree can be made does not fail the image.
func TestLiarCannotBeMerged(t *testing.T) {
	t.Parallel()
	for name, edit := range map[string]func(e *layerindex.Entry){
		"outside":   func(e *layerindex.Entry) { e.Name = "../x" },
		"long name": func(e *layerindex.Entry) { e.Name = strings.Repeat("x", 300) },
		"whiteout":  func(e *layerindex.Entry) { e.Name = ".wh.." },
		"root":      func(e *layerindex.Entry) { e.Name = "./" },
		"link": func(e *layerindex.Entry) {
			*e = layerindex.Entry{Type: layerindex.TypeLink, Name: "l", Linkname: "none"}
		},
		"link itself":   func(e *layerindex.Entry) { *e = layerindex.Entry{Type: layerindex.TypeLink, Name: "l", Linkname: "l"} },
		"below a file":  func(e *layerindex.Entry) { e.Name = "b/x" },
		"empty symlink": func(e *layerindex.Entry) { *e = layerindex.Entry{Type: layerindex.TypeSymlink, Name: "l"} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newLiarRegistry(t, gzipLayer(t, "b", "honest", "c", "more"))
			x := r.edited(func(list []layerindex.Entry) []layerindex.Entry {
				edit(&list[1])
				return list
			})
			r.publish(x)
			opts, warns := r.options()
			img, err := r.open(opts)
			if err != nil {
				t.Fatalf("%v; warned of %s", err, warns())
			}
			defer img.Close()
			if w := warns(); !strings.Contains(w, "may be false") {
				t.Errorf("warned of %q", w)
			}
			if u := img.Layers()[0].Use(); u.Vouched != image.VouchedHere {
				t.Errorf("read by %+v", u)
			}
			if got, err := iofs.ReadFile(img.FS(t.Context()), "b"); string(got) != "honest" || err != nil {
				t.Errorf("read %q, %v", got, err)
			}
		})
	}
}

// TestLiarComesBack: an index that was found to be false is not used again, also where
// nothing is left of what was made in its place.
func TestLiarComesBack(t *testing.T) {
	r := newLiarRegistry(t, gzipLayer(t, "a", "honest", "b", "more"))
	r.publish(r.edited(func(list []layerindex.Entry) []layerindex.Entry {
		list[0].Mode = 0o4755
		return list
	}))
	opts, warns := r.options()
	img := r.mustOpen(opts)
	if err := image.Check(t.Context(), img); !errors.Is(err, image.ErrLiar) {
		t.Errorf("checked: %v", err)
	}
	img.Close()
	for _, dir := range []string{"indexes", "blobs"} {
		if err := os.RemoveAll(filepath.Join(opts.CacheDir, dir)); err != nil {
			t.Fatal(err)
		}
	}
	opts.IndexTrust = image.TrustPublished
	for offline := range 2 {
		opts.Offline = offline == 1
		img = r.mustOpen(opts)
		if u := img.Layers()[0].Use(); u.Vouched != image.VouchedHere {
			t.Errorf("opened again it is read by %+v; warned of %s", u, warns())
		}
		img.Close()
	}
}

// TestLiarOfDigests: a digest that nothing binds leads to no content of another image,
// also where nobody can compare it in the end.
func TestLiarOfDigests(t *testing.T) {
	t.Parallel()
	honest, evil := random(1, 300_000), random(2, 300_000)
	r := newLiarRegistry(t, gzipLayer(t, "a", honest))
	lie := r.edited(func(list []layerindex.Entry) []layerindex.Entry {
		list[0].Digest = sha256.Sum256([]byte(evil))
		return list
	})
	r.publish(lie)
	opts, _ := r.options()
	forgetful(opts)
	disk, err := cache.Open(opts.CacheDir, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	store(t, disk, evil)
	img := r.mustOpen(opts)
	n := lookup(t, img, "a")
	for range 5 {
		pass(t, n, honest)
		image.KeptFiles(img).Wait()
	}
	var digests bytes.Buffer
	if err := lie.WriteDigests(t.Context(), &digests); err != nil {
		t.Fatal(err)
	}
	r.DeleteBlob(digest.FromBytes(digests.Bytes()))
	if err := os.RemoveAll(filepath.Join(opts.CacheDir, "indexes")); err != nil {
		t.Fatal(err)
	}
	if err := image.Check(t.Context(), img); err != nil && !errors.Is(err, image.ErrLiar) {
		t.Error(err)
	}
}

// TestProvenDigests: once it is proven, a digest leads to what is kept.
func TestProvenDigests(t *testing.T) {
	testenv.Slow(t)
	t.Parallel()
	content := random(1, 3<<20) // more than the reader has in memory
	r := newLiarRegistry(t, gzipLayer(t, "a", content))
	r.publish(r.own)
	opts, _ := r.options()
	forgetful(opts)
	disk, err := cache.Open(opts.CacheDir, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	store(t, disk, content)
	img := r.mustOpen(opts)
	for proven, want := range []int{0, 1} {
		if proven == 1 {
			if err := image.Check(t.Context(), img); err != nil {
				t.Fatal(err)
			}
		}
		for range 40 {
			pass(t, lookup(t, img, "a"), content)
			if image.KeptFiles(img).Wait(); img.Stats().Contents.Open > 0 {
				break
			}
		}
		if s := img.Stats().Contents; s.Open != want {
			t.Errorf("proven %d: %+v", proven, s)
		}
	}
}

// TestLargeChunks: a published index has chunks of the size that ours have, or is not
// used.
func TestLargeChunks(t *testing.T) {
	t.Parallel()
	layer := gzipLayer(t, "a", random(1, 300_000))
	r := newLiarRegistry(t, layer)
	for _, size := range []int64{4096, 128 << 10, 1 << 30} {
		claim := layerindex.Layer{Digest: r.own.Digest(), Size: r.own.BlobSize(), DiffID: r.own.DiffID()}
		x, err := build.Index(t.Context(), claim, bytes.NewReader(layer.Content), &build.Options{ChunkSize: size})
		if err != nil {
			t.Fatal(err)
		}
		r.publish(x)
		opts, _ := r.options()
		if u := r.mustOpen(opts).Layers()[0].Use(); u.Vouched != image.VouchedHere {
			t.Errorf("chunks of %d bytes: read by %+v", size, u)
		}
	}
}

// TestLiarOfTheRoot: the root's own attributes are compared, too.
func TestLiarOfTheRoot(t *testing.T) {
	r := newLiarRegistry(t, gzipLayer(t, "a", "honest"))
	r.publish(r.edited(func(list []layerindex.Entry) []layerindex.Entry {
		return append(list, layerindex.Entry{Type: layerindex.TypeDir, Name: "./", Mode: 0o1777, UID: 77})
	}))
	opts, _ := r.options()
	img := r.mustOpen(opts)
	if err := image.Check(t.Context(), img); !errors.Is(err, image.ErrLiar) {
		t.Errorf("checked: %v; root %+v", err, img.Tree().Root().Attr())
	}
}

func hexInto(t *testing.T, to []byte, d digest.Digest) {
	t.Helper()
	if _, err := hex.Decode(to, []byte(d.Encoded())); err != nil {
		t.Fatal(err)
	}
}

// TestLiarTakesTheMetadata: an index that nothing binds takes nothing of what the image
// may have of metadata from layers that need it.
func TestLiarTakesTheMetadata(t *testing.T) {
	t.Parallel()
	r := newLiarRegistry(t, gzipLayer(t, "a", "honest"))
	r.publish(r.edited(func(list []layerindex.Entry) []layerindex.Entry {
		for i := range 500 {
			list = append(list, layerindex.Entry{Type: layerindex.TypeSymlink, Name: fmt.Sprint(i), Linkname: strings.Repeat("x", 4000)})
		}
		return list
	}))
	second := headersLayer(t, func() (all []tar.Header) {
		for i := range 1000 {
			all = append(all, tar.Header{Typeflag: tar.TypeSymlink, Name: fmt.Sprint("y", i), Linkname: strings.Repeat("y", 2000)})
		}
		return all
	}()...)
	r.pushImage(r.layer, second)
	opts, warns := r.options()
	opts.MaxMetadata = 3 << 20 // for both of which it is too little
	img, err := r.open(opts)
	if err != nil {
		t.Fatalf("%v; warned of %s", err, warns())
	}
	defer img.Close()
	if u := img.Layers()[0].Use(); u.Vouched != image.VouchedHere {
		t.Errorf("read by %+v", u)
	}
}

// pushImage puts an image of these layers behind the tag of the registry's.
func (r *liarRegistry) pushImage(layers ...sourcetest.Layer) {
	r.t.Helper()
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Annotations: r.annotations}
	m.SchemaVersion = 2
	var ids []digest.Digest
	for _, l := range layers {
		d := r.PutBlob(cmp.Or(l.MediaType, ocispec.MediaTypeImageLayer), l.Content)
		d.Annotations = l.Annotations
		m.Layers = append(m.Layers, d)
		ids = append(ids, cmp.Or(l.DiffID, d.Digest))
	}
	config, err := json.Marshal(map[string]any{"os": "linux", "architecture": "amd64", "rootfs": map[string]any{"type": "layers", "diff_ids": ids}})
	if err != nil {
		r.t.Fatal(err)
	}
	m.Config = r.PutBlob(ocispec.MediaTypeImageConfig, config)
	data, err := json.Marshal(m)
	if err != nil {
		r.t.Fatal(err)
	}
	r.Tag("app", "latest", r.PutManifest(m.MediaType, data).Digest)
}

func layerDigest(l sourcetest.Layer) string { return digest.FromBytes(l.Content).String() }

// TestHonestAndGone: an index whose parts cannot be had any more is no liar.
func TestHonestAndGone(t *testing.T) {
	testenv.Slow(t)
	t.Parallel()
	content := random(1, 4<<20)
	for _, fault := range []int{http.StatusNotFound, http.StatusForbidden, http.StatusInternalServerError} {
		r := newLiarRegistry(t, gzipLayer(t, "a", content, "b", words(6<<20)))
		r.publish(r.own)
		opts, warns := r.options()
		img := r.mustOpen(opts)
		layer := digest.FromBytes(r.layer.Content).Encoded()
		r.Inject(registrytest.Blob, registrytest.Always(func(w http.ResponseWriter, q *http.Request, serve http.HandlerFunc) {
			if strings.HasSuffix(q.URL.Path, layer) {
				serve(w, q)
			} else {
				registrytest.Status(fault)(w, q, serve)
			}
		}))
		if err := image.Check(t.Context(), img); err != nil {
			t.Errorf("%d: %v; warned of %s", fault, err, warns())
		}
		if got, err := iofs.ReadFile(img.FS(t.Context()), "a"); string(got) != content || err != nil {
			t.Errorf("%d: %d bytes, %v", fault, len(got), err)
		}
	}
}

// TestLiarOfSpans: an index says of a gzip member that it begins a block before where it
// does, and so its last span ends too early.
func TestLiarOfSpans(t *testing.T) {
	t.Parallel()
	layer := gzipLayer(t, "a", random(1, 200_000), "b", strings.Repeat("b", 512)+strings.Repeat("c", 512)+random(2, 200_000))
	raw := gunzip(t, layer.Content)
	const split = 512 + 200_192 + 512 + 512 // behind the first block of b
	var blob bytes.Buffer
	z := gzip.NewWriter(&blob)
	z.Write(raw[:split])
	z.Close()
	in := int64(blob.Len())
	z.Reset(&blob)
	z.Write(raw[split:])
	z.Close()
	layer.Content = blob.Bytes()
	r := newLiarRegistry(t, layer)
	lie, err := r.tryEdited(func(list []layerindex.Entry) []layerindex.Entry { return list }, layerindex.Checkpoint{Start: true, In: in, Out: split - 512})
	if err != nil {
		t.Fatal(err)
	}
	r.publish(lie)
	opts, _ := r.options()
	img := r.mustOpen(opts)
	p := make([]byte, 512)
	if n, err := lookup(t, img, "b").ReadAt(t.Context(), p, 0); err != nil || p[0] != 'c' {
		t.Fatalf("the lie is not told: %d bytes, %q, %v", n, p[:1], err)
	}
	if err := image.Check(t.Context(), img); !errors.Is(err, image.ErrLiar) {
		t.Errorf("checked: %v", err)
	}
}
