package blobs

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"testing"
	"testing/synctest"

	"github.com/imgfs/imgfs/remote/cache/internal/cachetest"
)

func TestPresent(t *testing.T) {
	const c = cachetest.TestChunk
	src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(10*c+7, 310)}
	dir := t.TempDir()
	b := cached(t, openCache(t, dir, nil), src)
	if b.Present(0, 1) {
		t.Error("a chunk of a blob without a file is there")
	}
	if _, err := os.Stat(cachetest.BlobPath(dir, src)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("asking has made the file: %v", err)
	}
	checkRead(t, b, src, 2*c, 3*c)
	checkRead(t, b, src, 10*c, 7)
	for _, tt := range []struct {
		off, n int64
		want   bool
	}{
		{2 * c, 3 * c, true}, {2*c - 1, 2, false}, {5*c - 1, 1, true}, {5*c - 1, 2, false}, {0, 1, false},
		{10 * c, 7, true}, {10*c + 6, 1 << 62, true}, {9 * c, 1 << 62, false},
		{0, 0, true}, {-1, 5, true}, {10*c + 7, 1, true}, // nothing of the blob
	} {
		if got := b.Present(tt.off, tt.n); got != tt.want {
			t.Errorf("Present(%d, %d) = %v", tt.off, tt.n, got)
		}
	}
}

// TestReadPresent reads what is on disk, by way of another Cache that has
// checked nothing of it, and counts nothing.
func TestReadPresent(t *testing.T) {
	const c = cachetest.TestChunk
	src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(10*c+7, 311)}
	dir := t.TempDir()
	checkRead(t, cached(t, openCache(t, dir, nil), src), src, 2*c, 8*c+7)
	b := cached(t, openCache(t, dir, nil), src)
	done := len(src.Asked())
	for _, tt := range []struct {
		off int64
		n   int
		got int
		err error
	}{
		{2 * c, 3 * c, 3 * c, nil},
		{2*c + 5, 2*c + 1, 2*c + 1, nil},
		{2*c + 5, 2*c + 1, 2*c + 1, nil}, // known by now
		{9 * c, 2 * c, c + 7, io.EOF},
		{10*c + 7, 1, 0, io.EOF},
		{c, 2 * c, 0, ErrAbsent},
		{-1, 1, 0, fs.ErrInvalid},
	} {
		p := make([]byte, tt.n)
		n, err := b.ReadPresent(t.Context(), p, tt.off)
		if n != tt.got || !errors.Is(err, tt.err) || n > 0 && !bytes.Equal(p[:n], src.Data[tt.off:tt.off+int64(n)]) {
			t.Errorf("ReadPresent(%d bytes, %d) = %d, %v, or wrong bytes; want %d, %v", tt.n, tt.off, n, err, tt.got, tt.err)
		}
	}
	if st := b.Stats(); st.Asked != 0 || st.Hits != 0 || st.Errors != 0 || len(src.Asked()) != done {
		t.Errorf("%+v, and %v asked of the source", st, src.Asked()[done:])
	}
}

// TestReadPresentWrong: a chunk that is wrong on disk is not there.
func TestReadPresentWrong(t *testing.T) {
	const c = cachetest.TestChunk
	src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(4*c, 312)}
	dir := t.TempDir()
	checkRead(t, cached(t, openCache(t, dir, nil), src), src, 0, 4*c)
	f, err := os.OpenFile(cachetest.BlobPath(dir, src), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte{^src.Data[c]}, c); err != nil {
		t.Fatal(err)
	}
	b := cached(t, openCache(t, dir, nil), src)
	p := make([]byte, 4*c)
	if n, err := b.ReadPresent(t.Context(), p, 0); n != c || !errors.Is(err, ErrAbsent) {
		t.Errorf("%d bytes, %v", n, err)
	}
	checkRead(t, b, src, 0, 4*c)
	if n, err := b.ReadPresent(t.Context(), p, 0); n != 4*c || err != nil || !bytes.Equal(p, src.Data) {
		t.Errorf("mended: %d bytes, %v, or wrong bytes", n, err)
	}
}

// TestArrived: what is under way is waited for, and what is not is not there. Bytes that were
// read as of nobody count as used when somebody has got them.
func TestArrived(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := lab()
		src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(60*bigChunk, 403), Answer: l.carry}
		c := openCache(t, t.TempDir(), nil)
		b := cachedBig(t, c, progressBlob{src}, src.Data)
		if b.Arrived(t.Context(), 0, 5*bigChunk) {
			t.Error("what nobody fetches is there")
		}
		if _, err := b.Expect(t.Context(), 0, 10*bigChunk); err != nil {
			t.Fatal(err)
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if b.Arrived(ended, 0, 10*bigChunk) {
			t.Error("it has not waited")
		}
		if !b.Arrived(t.Context(), 0, 10*bigChunk) {
			t.Error("what was under way is not there")
		}
		if b.Arrived(t.Context(), 0, 20*bigChunk) {
			t.Error("half of it is not there, and it says so")
		}
		p := make([]byte, 10*bigChunk)
		if n, err := b.ReadPresent(t.Context(), p, 0); n != len(p) || err != nil || !bytes.Equal(p, src.Data[:n]) {
			t.Errorf("%d bytes, %v", n, err)
		}
		if fetched, met := c.Expected(); fetched != 10*bigChunk || met != 0 {
			t.Errorf("%d bytes were fetched and %d read", fetched, met)
		}
		b.Used(t.Context(), 5*bigChunk-1, 2)
		b.Used(t.Context(), -1, 5)
		b.Used(t.Context(), 1<<40, 5)
		if _, met := c.Expected(); met != 2*bigChunk {
			t.Errorf("%d bytes were read, want two chunks", met)
		}
	})
}
