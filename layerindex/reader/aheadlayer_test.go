package reader

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/layerindex/build"
	"github.com/imgfs/imgfs/layerindex/internal/samples"
)

// An aheadBlob takes down what is read and what is to be brought. Reads that
// go beyond edge can be made to wait and to fail.
type aheadBlob struct {
	samples.Blob
	held chan struct{} // gets a value when a read waits

	mu          sync.Mutex
	read, asked []fileRead // off and end
	edge        int64      // 0: there is none
	release     chan struct{}
	broken      error
	active      int
}

func (b *aheadBlob) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	end := off + int64(len(p))
	b.mu.Lock()
	b.read = append(b.read, fileRead{off: off, end: end})
	beyond, release, broken := b.edge > 0 && end > b.edge, b.release, b.broken
	b.active++
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		b.active--
		b.mu.Unlock()
	}()
	if beyond && release != nil {
		b.held <- struct{}{}
		select {
		case <-release:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	if beyond && broken != nil {
		return 0, broken
	}
	return b.Blob.ReadAt(ctx, p, off)
}

func (b *aheadBlob) Prefetch(off, n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asked = append(b.asked, fileRead{off: off, end: off + n})
}

// touched returns from where to where anything was read or asked for, and the
// number of bytes asked for.
func (b *aheadBlob) touched() (from, to, asked int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	from = b.Size()
	for _, r := range b.read {
		from, to = min(from, r.off), max(to, r.end)
	}
	for _, r := range b.asked {
		from, to, asked = min(from, r.off), max(to, r.end), asked+r.end-r.off
	}
	return from, to, asked
}

// An aheadTest is a layer of 2.5 MiB, which shrink to a good half, and a reader
// of it.
type aheadTest struct {
	tar  []byte
	x    *layerindex.Index
	m    blobMap
	blob *aheadBlob
	r    *Reader
}

// aheadLayers are the layers that newAheadTest has made: that takes long.
var aheadLayers = map[string]*aheadTest{}

// newAheadTest takes the name of a wrapping in codecs.
func newAheadTest(t *testing.T, name string) *aheadTest {
	t.Helper()
	layer := aheadLayers[name]
	if layer == nil {
		layer = makeAheadLayer(t, name)
		aheadLayers[name] = layer
	}
	a := *layer
	a.blob = &aheadBlob{Blob: layer.blob.Blob, held: make(chan struct{}, 100)}
	a.r = New(a.x, a.blob, nil)
	t.Cleanup(func() { a.r.Close() })
	return &a
}

func makeAheadLayer(t *testing.T, name string) *aheadTest {
	t.Helper()
	var file bytes.Buffer
	w := tar.NewWriter(&file)
	text := make([]byte, 5<<18)
	rand.NewChaCha8([32]byte{}).Read(text)
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "hex", Mode: 0o644, Size: int64(2 * len(text))}); err != nil {
		t.Fatal(err)
	}
	_, err := hex.NewEncoder(w).Write(text)
	if err = errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	a := &aheadTest{tar: file.Bytes()}
	for _, c := range samples.Codecs {
		if c.Name == name {
			a.blob = &aheadBlob{Blob: c.Wrap(t, a.tar)}
		}
	}
	a.x = mustBuild(t, a.blob.Blob, a.tar, &build.Options{SpanSize: 256 << 10})
	a.m = blobMap{}
	if a.x.Codec() != layerindex.Plain {
		if a.m.l, err = newLayout(a.x); err != nil {
			t.Fatal(err)
		}
	}
	return a
}

// readFile reads from off to end of a file that ends at fileEnd, in pieces. It
// returns how far it came.
func (a *aheadTest) readFile(t *testing.T, off, end, fileEnd int64) (int64, error) {
	t.Helper()
	p := make([]byte, 64<<10)
	for off < end {
		p := p[:min(int64(len(p)), end-off)]
		n, err := a.r.ReadFileAt(context.Background(), p, off, fileEnd)
		if !bytes.Equal(p[:n], a.tar[off:off+int64(n)]) {
			t.Fatalf("wrong bytes at %d", off)
		}
		if err != nil {
			return off, err
		}
		off += int64(n)
	}
	return off, nil
}

// decoded reports whether n bytes from off of the tar are in memory.
func (a *aheadTest) decoded(off, n int64) bool {
	for i := a.m.l.Find(off); i < a.m.l.Len() && startOut(a.m.l, i) < off+n; i++ {
		s := a.r.opts.Cache.get(spanKey{a.r, i}, func() *span { return a.r.newSpan(a.m.l, i) })
		s.mu.Lock()
		have := s.out()
		s.mu.Unlock()
		if end, _ := a.m.l.End(i); have < min(end, off+n) {
			return false
		}
	}
	return true
}
