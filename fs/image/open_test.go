package image_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/fs/image"
	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache"
	"github.com/imgfs/imgfs/remote/sourcetest"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// gzipLayer is a gzip layer of files: name and content in turn.
func gzipLayer(t testing.TB, files ...string) sourcetest.Layer {
	t.Helper()
	var tarBytes, blob bytes.Buffer
	tw, gw := tar.NewWriter(&tarBytes), gzip.NewWriter(&blob)
	for f := range slices.Chunk(files, 2) {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: f[0], Mode: 0o644, Size: int64(len(f[1]))}
		if err := tw.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		io.WriteString(tw, f[1])
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	gw.Write(tarBytes.Bytes())
	if err := gw.Close(); err != nil {
		t.Fatal(err)
	}
	return sourcetest.Layer{Content: blob.Bytes(), MediaType: ocispec.MediaTypeImageLayerGzip, DiffID: digest.FromBytes(tarBytes.Bytes())}
}

// countedSource counts the bytes that are read from a source's blobs.
type countedSource struct {
	remote.Source
	read atomic.Int64
	hang func(ctx context.Context) // if not nil, called by each read of a blob
}

type countedBlob struct {
	remote.Blob
	s *countedSource
}

func (s *countedSource) Blob(d ocispec.Descriptor) (remote.Blob, error) {
	b, err := s.Source.Blob(d)
	return countedBlob{b, s}, err
}

func (b countedBlob) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if b.s.hang != nil {
		b.s.hang(ctx)
	}
	n, err := b.Blob.ReadAt(ctx, p, off)
	b.s.read.Add(int64(n))
	return n, err
}

// An opened is an image with a cache to open it with.
type opened struct {
	t     testing.TB
	store *sourcetest.Store
	src   *countedSource
	dir   string

	budget int64 // of the cache
	bounds image.Options
	cache  *cache.Cache // the one opened last
	mu     sync.Mutex
	warns  []string
}

func newOpened(t testing.TB, layers ...sourcetest.Layer) *opened {
	t.Helper()
	store := sourcetest.NewStore()
	top := store.AddImage(sourcetest.Image{Layers: layers})
	return &opened{t: t, store: store, src: &countedSource{Source: store.Source("test", top)}, dir: t.TempDir()}
}

// open opens the image with a new Cache on the same directory.
func (o *opened) open(ctx context.Context, progress func(image.Progress)) (*image.Image, error) {
	o.t.Helper()
	img, err := remote.Open(ctx, o.src, "")
	if err != nil {
		o.t.Fatal(err)
	}
	warnf := func(format string, args ...any) {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.warns = append(o.warns, fmt.Sprintf(format, args...))
	}
	disk, err := cache.Open(o.dir, &cache.Options{Budget: o.budget, Warnf: warnf})
	if err != nil {
		o.t.Fatal(err)
	}
	o.t.Cleanup(func() { disk.Close() })
	o.cache = disk
	opts := o.bounds
	opts.Cache, opts.Progress, opts.Warnf = disk, progress, warnf
	t, err := image.New(ctx, img, &opts)
	if err == nil {
		o.t.Cleanup(func() { t.Close() })
	}
	return t, err
}

// has checks the content of one file.
func (o *opened) has(t *image.Image, name, want string) {
	o.t.Helper()
	got, err := iofs.ReadFile(t.FS(o.t.Context()), name)
	if err != nil || string(got) != want {
		o.t.Errorf("%s: %q, %v; want %q", name, got, err, want)
	}
}

// files returns the files below the cache directory, but for its version.
func (o *opened) files() []string {
	o.t.Helper()
	var all []string
	err := filepath.WalkDir(o.dir, func(name string, e iofs.DirEntry, err error) error {
		if err == nil && !e.IsDir() && e.Name() != "version" {
			all = append(all, strings.TrimPrefix(name, o.dir))
		}
		return err
	})
	if err != nil {
		o.t.Fatal(err)
	}
	return all
}

func TestNew(t *testing.T) {
	big := strings.Repeat("0123456789", 100_000)
	o := newOpened(t, gzipLayer(t, "a", "1", "b", "2"), gzipLayer(t, ".wh.a", "", "b", big))
	var built, done atomic.Int32
	tree, err := o.open(t.Context(), func(p image.Progress) {
		if p.Done {
			done.Add(1)
			if p.Built && p.Read == p.Size {
				built.Add(1)
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if built.Load() != 2 || done.Load() != 2 {
		t.Errorf("%d layers done, %d built; want 2", done.Load(), built.Load())
	}
	o.has(tree, "b", big)
	if _, err := tree.Tree().Lookup("a", false); !errors.Is(err, iofs.ErrNotExist) {
		t.Errorf("a: %v", err)
	}
	// Again: nothing is built, and nothing read from the source.
	o.src.read.Store(0)
	tree, err = o.open(t.Context(), func(p image.Progress) {
		if !p.Done || p.Built {
			t.Errorf("progress %+v of a layer that is there", p)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	o.has(tree, "b", big)
	if n := o.src.read.Load(); n != 0 {
		t.Errorf("%d bytes read from the source", n)
	}
}

// TestNewWithoutBytes has the indexes, and none of the layers' bytes.
func TestNewWithoutBytes(t *testing.T) {
	o := newOpened(t, gzipLayer(t, "a", "1"))
	if _, err := o.open(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(o.dir, "blobs")); err != nil {
		t.Fatal(err)
	}
	o.src.read.Store(0)
	tree, err := o.open(t.Context(), nil)
	if err != nil || o.src.read.Load() != 0 {
		t.Fatalf("opening: %v, %d bytes read", err, o.src.read.Load())
	}
	o.has(tree, "a", "1")
	if o.src.read.Load() == 0 {
		t.Error("nothing was read from the source")
	}
}

// TestNewDamagedIndex makes an index again that cannot be used: from the
// cache's bytes, if they are right.
func TestNewDamagedIndex(t *testing.T) {
	l := gzipLayer(t, "a", "1")
	for _, damaged := range []bool{false, true} {
		o := newOpened(t, l)
		if _, err := o.open(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(o.dir, "indexes", "sha256", digest.FromBytes(l.Content).Encoded())
		if err := os.WriteFile(name, []byte("imgfsidx, but no more"), 0o600); err != nil {
			t.Fatal(err)
		}
		if damaged {
			o.damageBlobs()
		}
		o.src.read.Store(0)
		tree, err := o.open(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		o.has(tree, "a", "1")
		if got := o.src.read.Load() > 0; got != damaged {
			t.Errorf("bytes damaged: %v, source read: %v", damaged, got)
		}
		if len(o.warns) != 1 || !strings.Contains(o.warns[0], "making it again") {
			t.Errorf("warnings: %q", o.warns)
		}
	}
}

// TestNewFlippedIndex makes an index again whichever byte of it is another one.
func TestNewFlippedIndex(t *testing.T) {
	testenv.Slow(t)
	l := gzipLayer(t, "a", "1", "b/c", strings.Repeat("22", 300))
	o := newOpened(t, l)
	if _, err := o.open(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(o.dir, "indexes", "sha256", digest.FromBytes(l.Content).Encoded())
	good, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(good); i += testenv.Every(8) {
		bad := bytes.Clone(good)
		bad[i] ^= 0x10
		if err := os.WriteFile(name, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		o.warns = nil
		tree, err := o.open(t.Context(), nil)
		if err != nil {
			t.Fatalf("byte %d: %v", i, err)
		}
		o.has(tree, "a", "1")
		if len(o.warns) != 1 || !strings.Contains(o.warns[0], "making it again") {
			t.Errorf("byte %d: warnings: %q", i, o.warns)
		}
		if again, err := os.ReadFile(name); err != nil || !bytes.Equal(again, good) {
			t.Fatalf("byte %d: the index was not made again: %v", i, err)
		}
		tree.Close()
	}
}

// damageBlobs flips a bit in every cached blob.
func (o *opened) damageBlobs() {
	o.t.Helper()
	for _, name := range o.files() {
		if !strings.HasPrefix(name, "/blobs/") {
			continue
		}
		b, err := os.ReadFile(o.dir + name)
		if err != nil {
			o.t.Fatal(err)
		}
		b[50] ^= 1
		if err := os.WriteFile(o.dir+name, b, 0o600); err != nil {
			o.t.Fatal(err)
		}
	}
}

// TestNewRefuses: a layer that is not what it should be leaves nothing.
func TestNewRefuses(t *testing.T) {
	good, other := gzipLayer(t, "a", "1"), gzipLayer(t, "a", "2")
	wrongDiffID := good
	wrongDiffID.DiffID = other.DiffID
	escape := gzipLayer(t, "../../etc/passwd", "root::0:0")
	d := digest.FromBytes(good.Content)
	tests := []struct {
		name   string
		layer  sourcetest.Layer
		change func(*sourcetest.Store)
		want   error
		keeps  bool // its bytes are right
	}{
		{"other bytes", good, func(s *sourcetest.Store) { s.Replace(d, append([]byte{}, other.Content...)) }, nil, false},
		{"flipped bit", good, func(s *sourcetest.Store) {
			b := bytes.Clone(good.Content)
			b[len(b)/2] ^= 1
			s.Replace(d, b)
		}, layerindex.ErrDigest, false},
		{"missing", good, func(s *sourcetest.Store) { s.Delete(d) }, remote.ErrNotFound, false},
		{"diff_id", wrongDiffID, nil, layerindex.ErrDiffID, false},
		{"escaping name", escape, nil, fs.ErrEscape, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := newOpened(t, tt.layer)
			if tt.change != nil {
				tt.change(o.store)
			}
			_, err := o.open(t.Context(), nil)
			if err == nil || tt.want != nil && !errors.Is(err, tt.want) {
				t.Fatalf("New = %v, want %v", err, tt.want)
			}
			if name := digest.FromBytes(tt.layer.Content).String(); !strings.Contains(err.Error(), name) || strings.Count(err.Error(), "layer sha256:") != 1 {
				t.Errorf("the error does not name the layer once: %v", err)
			}
			if left := o.files(); !tt.keeps && len(left) != 0 {
				t.Errorf("left in the cache: %q", left)
			}
		})
	}
}

// TestNewSameLayerTwice reads a layer once that an image has several times.
func TestNewSameLayerTwice(t *testing.T) {
	l := gzipLayer(t, "a", "1")
	o := newOpened(t, l, gzipLayer(t, ".wh.a", ""), l, l)
	tree, err := o.open(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	o.has(tree, "a", "1")
	if n := o.src.read.Load(); n >= 2*int64(len(l.Content)) {
		t.Errorf("%d bytes read, the layer has %d", n, len(l.Content))
	}
}

func TestNewCancelled(t *testing.T) {
	o := newOpened(t, gzipLayer(t, "a", strings.Repeat("x", 1000)))
	ctx, cancel := context.WithCancel(t.Context())
	_, err := o.open(ctx, func(image.Progress) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("New = %v", err)
	}
	if left := o.files(); len(left) != 0 {
		t.Errorf("left in the cache: %q", left)
	}
}
