package image_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/fs/image"
	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache/meta"
	"github.com/imgfs/imgfs/remote/sourcetest"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// random returns text that hardly compresses.
func random(seed uint64, n int) string {
	b := make([]byte, n)
	rng := rand.New(rand.NewPCG(seed, 0))
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return string(b)
}

// dropBlobs removes the layers' bytes from the cache, but not the indexes.
func (o *opened) dropBlobs() {
	o.t.Helper()
	if err := os.RemoveAll(filepath.Join(o.dir, "blobs", "sha256")); err != nil {
		o.t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(o.dir, "blobs", "sha256"), 0o700); err != nil {
		o.t.Fatal(err)
	}
}

// opens is open of what must open.
func (o *opened) opens() *image.Image {
	o.t.Helper()
	tree, err := o.open(o.t.Context(), nil)
	if err != nil {
		o.t.Fatal(err)
	}
	return tree
}

func (o *opened) read(t *image.Image, name string) {
	o.t.Helper()
	if _, err := iofs.ReadFile(t.FS(o.t.Context()), name); err != nil {
		o.t.Fatal(err)
	}
}

func TestStats(t *testing.T) {
	base := gzipLayer(t, "small", "1234", "big", random(1, 2<<20), "bin/unread", random(2, 1<<20))
	top := gzipLayer(t, "top", random(3, 300_000))
	o := newOpened(t, base, top, base)
	o.opens()
	o.dropBlobs()
	tree := o.opens()
	o.read(tree, "big")
	o.read(tree, "top")
	n, err := tree.Tree().Lookup("small", false)
	if err != nil {
		t.Fatal(err)
	}
	// Only bytes that a file has are asked for.
	for _, at := range []struct {
		off  int64
		size int
	}{{0, 4}, {1, 100}, {4, 1}, {100, 1}, {0, 0}} {
		if _, err := n.ReadAt(t.Context(), make([]byte, at.size), at.off); err != nil && err != io.EOF {
			t.Fatal(err)
		}
	}
	if _, err := tree.Tree().Root().ReadAt(t.Context(), make([]byte, 1), 0); err == nil {
		t.Error("the root was read")
	}

	s := tree.Stats()
	if want := int64(2<<20 + 300_000 + 4 + 3); s.Asked != want || s.Errors != 0 || s.Reads < 4 {
		t.Errorf("%d bytes asked in %d reads with %d errors, want %d, more than 4, none", s.Asked, s.Reads, s.Errors, want)
	}
	want := []struct {
		layer sourcetest.Layer
		asked int64
	}{{base, 2<<20 + 7}, {top, 300_000}}
	if len(s.Layers) != len(want) {
		t.Fatalf("%d layers, want %d: one is there twice", len(s.Layers), len(want))
	}
	for i, w := range want {
		l := s.Layers[i]
		if l.Digest != digest.FromBytes(w.layer.Content) || l.Size != int64(len(w.layer.Content)) || l.Asked != w.asked || l.Verified != meta.VerifiedWhole {
			t.Errorf("layer %d: %+v, want %d bytes asked of %d, verified whole", i, l, w.asked, len(w.layer.Content))
		}
		if l.Blob.Fetched < w.asked || l.Blob.Fetched > l.Size {
			t.Errorf("layer %d: %d bytes fetched for %d", i, l.Blob.Fetched, w.asked)
		}
	}
	costs := map[string]image.FileCost{}
	for _, f := range s.Files {
		costs[f.Path] = f
	}
	if f := costs["/big"]; f.Asked != 2<<20 || f.Fetched == 0 {
		t.Errorf("/big: %+v, want %d bytes asked, and some fetched", f, 2<<20)
	}
	if f, ok := costs["/bin/unread"]; ok {
		t.Errorf("of a file that nobody has read: %+v", f)
	}
	if len(s.Files) == 0 || s.Files[0].Path != "/big" {
		t.Errorf("%+v cost most, want /big", s.Files)
	}
}

// TestStatsCostly names twenty files, those that cost most, the most first.
func TestStatsCostly(t *testing.T) {
	testenv.Slow(t)
	var files []string
	for i := range 25 {
		// Each in chunks of its own.
		files = append(files, fmt.Sprintf("d%d/f", i), random(uint64(i), 300_000), fmt.Sprintf("d%d/gap", i), random(uint64(100+i), 300_000))
	}
	o := newOpened(t, gzipLayer(t, files...))
	o.opens()
	o.dropBlobs()
	tree := o.opens()
	for i := range 25 {
		n, err := tree.Tree().Lookup(fmt.Sprintf("d%d/f", i), false)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := n.ReadAt(t.Context(), make([]byte, 1), int64(i*10_000)); err != nil {
			t.Fatal(err)
		}
	}
	costs := tree.Stats().Files
	if len(costs) != 20 || !slices.IsSortedFunc(costs, func(a, b image.FileCost) int { return int(b.Fetched - a.Fetched) }) {
		t.Fatalf("%d files, want 20 in order: %+v", len(costs), costs)
	}
	for _, c := range costs {
		if n, err := tree.Tree().Lookup(c.Path, false); err != nil || n.Mode()&syscall.S_IFMT != syscall.S_IFREG || c.Fetched <= 0 {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

// faultySource is a source whose blobs can be made to fail, and to wait.
type faultySource struct {
	remote.Source
	err  error
	gate chan struct{} // each read takes one
	seen chan struct{} // each read gives one
}

type faultyBlob struct {
	remote.Blob
	s *faultySource
}

func (s *faultySource) Blob(d ocispec.Descriptor) (remote.Blob, error) {
	b, err := s.Source.Blob(d)
	return faultyBlob{b, s}, err
}

func (b faultyBlob) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if b.s.seen != nil {
		select {
		case b.s.seen <- struct{}{}:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	if b.s.gate != nil {
		select {
		case <-b.s.gate:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	if b.s.err != nil {
		return 0, b.s.err
	}
	return b.Blob.ReadAt(ctx, p, off)
}

// faulty puts a faulty source between the image and who opens it.
func (o *opened) faulty() *faultySource {
	s := &faultySource{Source: o.src.Source}
	o.src.Source = s
	return s
}

func TestStatsErrorsAndWaits(t *testing.T) {
	o := newOpened(t, gzipLayer(t, "a", random(1, 100_000)))
	o.opens()
	o.dropBlobs()
	src := o.faulty()
	tree := o.opens()
	n, err := tree.Tree().Lookup("a", false)
	if err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 1)

	src.err = errors.New("out of order")
	if _, err := n.ReadAt(t.Context(), p, 0); !errors.Is(err, src.err) {
		t.Fatalf("reading: %v", err)
	}
	if s := tree.Stats(); s.Errors != 1 {
		t.Errorf("%d errors, want 1", s.Errors)
	}

	// A reader that leaves is no error.
	src.err, src.gate, src.seen = nil, make(chan struct{}), make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	read := func(ctx context.Context) {
		_, err := n.ReadAt(ctx, p, 0)
		done <- err
	}
	go read(ctx)
	<-src.seen
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Fatalf("reading: %v", err)
	}
	before := tree.Stats()
	if before.Errors != 1 {
		t.Errorf("%d errors, want 1", before.Errors)
	}

	go read(t.Context())
	<-src.seen
	const wait = 20 * image.WaitFloor
	time.Sleep(wait) // it cannot be shorter than this
	close(src.gate)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	after := tree.Stats()
	if after.Waits != before.Waits+1 || after.WaitP99 < wait {
		t.Errorf("%d waits, after %d; the longest took %v, want one more and at least %v", after.Waits, before.Waits, after.WaitP99, wait)
	}
	var reads, waits int64
	for _, l := range after.Layers {
		reads += l.Reads
		waits += l.Waits
		if (l.Waits > 0) != (l.WaitP50 > 0) || l.WaitP99 < l.WaitP50 || l.WaitP99 > after.WaitP99 {
			t.Errorf("layer %s: %d waits up to %v, %v", l.Digest, l.Waits, l.WaitP50, l.WaitP99)
		}
	}
	if reads != after.Reads || waits != after.Waits {
		t.Errorf("the layers had %d reads and %d waits, want %d and %d as in all", reads, waits, after.Reads, after.Waits)
	}
}

// TestProvenance finds every file's content where Provenance says it is, and
// compares ContentDigest with it.
func TestProvenance(t *testing.T) {
	layers := [][]string{
		{"etc/a", "first", "etc/b", random(1, 5000), "empty", "", "bin/same", "same"},
		{"etc/a", "second", "more", random(2, 100_000)},
	}
	var packed []sourcetest.Layer
	tars := map[digest.Digest][]byte{}
	for _, files := range layers {
		l := gzipLayer(t, files...)
		packed = append(packed, l)
		tars[digest.FromBytes(l.Content)] = gunzip(t, l.Content)
	}
	// One that is not from the image's last layer, with digests to be looked
	// for in several tables in turn.
	for _, limit := range []int64{0, 1 << 20} {
		o := newOpened(t, packed...)
		tree := o.opens()
		image.LimitDigests(tree, limit)
		want := map[string]string{}
		for _, files := range layers {
			for f := range slices.Chunk(files, 2) {
				want[f[0]] = f[1]
			}
		}
		for range 2 {
			for name, content := range want {
				n, err := tree.Tree().Lookup(name, false)
				if err != nil {
					t.Fatal(err)
				}
				layer, off, ok := n.Provenance()
				if got := tars[layer]; !ok || !bytes.HasPrefix(got[min(off, int64(len(got))):], []byte(content)) {
					t.Errorf("%s: %d of %s, %v: it is not there", name, off, layer, ok)
				}
				if d, ok, err := n.ContentDigest(); d != digest.FromString(content) || !ok || err != nil {
					t.Errorf("%s: %s, %v, %v, want %s", name, d, ok, err, digest.FromString(content))
				}
			}
		}
		if n, most := image.DigestTables(tree), 2; n > most || limit == 0 && n != 1 {
			t.Errorf("%d tables of digests in memory with a limit of %d", n, limit)
		}
		etc, err := tree.Tree().Lookup("etc", false)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, ok := etc.Provenance(); ok {
			t.Error("a directory has content")
		}
		if _, ok, err := etc.ContentDigest(); ok || err != nil {
			t.Errorf("a directory: %v, %v", ok, err)
		}
	}
}

// TestContentDigestDamaged: an index that has become wrong is an error, and
// the next call tries again.
func TestContentDigestDamaged(t *testing.T) {
	l := gzipLayer(t, "a", "1")
	o := newOpened(t, l)
	tree := o.opens()
	n, err := tree.Tree().Lookup("a", false)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(filepath.Join(o.dir, "indexes", "sha256", digest.FromBytes(l.Content).Encoded()), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	// The digests are the last section.
	last := []byte{0}
	if _, err := f.ReadAt(last, st.Size()-1); err != nil {
		t.Fatal(err)
	}
	for _, wrong := range []byte{1, 0} {
		if _, err := f.WriteAt([]byte{last[0] ^ wrong}, st.Size()-1); err != nil {
			t.Fatal(err)
		}
		_, ok, err := n.ContentDigest()
		if (wrong == 0) != (ok && err == nil) {
			t.Errorf("bits %d flipped: %v, %v", wrong, ok, err)
		}
		if err != nil && !strings.Contains(err.Error(), digest.FromBytes(l.Content).String()) {
			t.Errorf("the error does not name the layer: %v", err)
		}
	}
}
