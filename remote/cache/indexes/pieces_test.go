package indexes

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/beneath"
	"github.com/imgfs/imgfs/remote/cache/internal/cachetest"
)

// farBlob is a blob elsewhere that notes what is asked of it.
type farBlob struct {
	cachetest.FakeBlob
	asked []string
	fail  error // instead of an answer
	mu    sync.Mutex
}

func newFarBlob(t *testing.T, data []byte) *farBlob {
	return &farBlob{FakeBlob: cachetest.FakeBlob{T: t, Data: data}}
}

func (b *farBlob) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	b.mu.Lock()
	b.asked = append(b.asked, fmt.Sprintf("%d+%d", off, len(p)))
	fail := b.fail
	b.mu.Unlock()
	if fail != nil {
		return 0, fail
	}
	return b.FakeBlob.ReadAt(ctx, p, off)
}

// take returns what was asked since it was called last.
func (b *farBlob) take() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	asked := b.asked
	b.asked = nil
	return asked
}

// testTable is the pieces of data from an offset on.
type testTable struct {
	data  []byte
	start int64
}

const pieceSize = 64 << 10

func (t testTable) Bounds(k int) (off, end int64) {
	off = t.start + int64(k)*pieceSize
	return off, min(off+pieceSize, int64(len(t.data)))
}

func (t testTable) Range(off, end int64) (from, to int, ok bool) {
	return int((off - t.start) / pieceSize), int((end-t.start-1)/pieceSize) + 1, true
}

func (t testTable) Match(k int, data []byte) bool {
	off, end := t.Bounds(k)
	return bytes.Equal(data, t.data[off:end])
}

// testPieces returns a reader of data, of which the first head bytes are no piece, with a
// file in a directory.
func testPieces(t *testing.T, b remote.Blob, data []byte, head int, disk *partFile) *pieceReader {
	ctx, cancel := context.WithCancel(context.Background())
	r := &pieceReader{ctx: ctx, what: "a test", blob: b, head: data[:head], disk: disk, at: 100, limit: patience{silence: 5 * time.Second},
		load:  func() (pieceTable, error) { return testTable{data, int64(head)}, nil },
		widen: func(first, last int) (int, int) { return first, last }}
	t.Cleanup(func() {
		cancel()
		r.close()
		disk.close()
	})
	return r
}

// testPart returns a file below dir that takes what it is given.
func testPart(t *testing.T, dir string) *partFile {
	t.Helper()
	d, err := beneath.Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return openPart(d, "sha256/x", func(int64) bool { return true }, func(err error) { t.Errorf("the disk failed: %v", err) })
}

// checkRead reads a range and compares it.
func checkRead(t *testing.T, r *pieceReader, data []byte, off, n int) {
	t.Helper()
	p := make([]byte, n)
	got, err := r.ReadAt(p, int64(off))
	want := data[min(off, len(data)):min(off+n, len(data))]
	if wantErr := len(want) < n; got != len(want) || (err == io.EOF) != wantErr || err != nil && err != io.EOF || !bytes.Equal(p[:got], want) {
		t.Errorf("ReadAt of %d bytes at %d: %d bytes, equal %t, error %v", n, off, got, bytes.Equal(p[:got], want), err)
	}
}

// TestPieces reads ranges of content elsewhere: each piece is asked for once, neighbours
// together, and what is on disk not at all.
func TestPieces(t *testing.T) {
	const head = 321
	data := cachetest.RandomBytes(head+5*pieceSize+1000, 1)
	dir := t.TempDir()
	b := newFarBlob(t, data)
	r := testPieces(t, b, data, head, testPart(t, dir))
	steps := []struct {
		off, n int
		asked  []string
	}{
		{0, head, nil},
		{10, 20, nil},
		{head - 1, 2, []string{fmt.Sprintf("%d+%d", head, pieceSize)}},
		{head + 100, 200, nil},
		{head + 2*pieceSize - 1, 2, []string{fmt.Sprintf("%d+%d", head+pieceSize, 2*pieceSize)}},
		{len(data) - 5, 10, []string{fmt.Sprintf("%d+%d", head+5*pieceSize, 1000)}},
		{0, len(data), []string{fmt.Sprintf("%d+%d", head+3*pieceSize, 2*pieceSize)}},
		{len(data), 1, nil},
		{len(data) + 77, 1, nil},
		{0, 2 * len(data), nil},
	}
	for _, s := range steps {
		checkRead(t, r, data, s.off, s.n)
		if asked := b.take(); !slices.Equal(asked, s.asked) {
			t.Errorf("for %d bytes at %d: asked for %q, want %q", s.n, s.off, asked, s.asked)
		}
	}
	if len(r.held) > heldOnDisk {
		t.Errorf("%d pieces in memory", len(r.held))
	}
	again := newFarBlob(t, data)
	r = testPieces(t, again, data, head, testPart(t, dir))
	checkRead(t, r, data, 0, len(data))
	if asked := again.take(); asked != nil {
		t.Errorf("asked for %q though all is on disk", asked)
	}
}

// TestPiecesOnce: many readers that want the same pieces at once have them fetched once.
func TestPiecesOnce(t *testing.T) {
	data := cachetest.RandomBytes(20*pieceSize+7, 2)
	for _, kept := range []bool{true, false} {
		var disk *partFile
		if kept {
			disk = testPart(t, t.TempDir())
		}
		b := newFarBlob(t, data)
		r := testPieces(t, b, data, 0, disk)
		var all sync.WaitGroup
		for i := range 40 {
			all.Go(func() { checkRead(t, r, data, i*1000, 19*pieceSize) })
		}
		all.Wait()
		n := 0
		for _, asked := range b.take() {
			var off, size int
			if _, err := fmt.Sscanf(asked, "%d+%d", &off, &size); err != nil {
				t.Fatal(err)
			}
			n += size
		}
		if n > len(data) {
			t.Errorf("kept %t: %d bytes were asked for, of %d", kept, n, len(data))
		}
	}
}

// TestPiecesWrong: neither the network nor the disk can make a reader believe a wrong
// byte.
func TestPiecesWrong(t *testing.T) {
	data := cachetest.RandomBytes(3*pieceSize, 3)
	dir := t.TempDir()
	bad := bytes.Clone(data)
	bad[pieceSize+5] ^= 1
	b := newFarBlob(t, bad)
	r := testPieces(t, b, data, 0, testPart(t, dir))
	p := make([]byte, len(data))
	if n, err := r.ReadAt(p, 0); !errors.Is(err, layerindex.ErrIndex) || n != 0 {
		t.Errorf("%d bytes, error %v, want %v", n, err, layerindex.ErrIndex)
	}
	checkRead(t, r, data, 0, pieceSize)
	if _, err := r.ReadAt(p[:10], pieceSize+100); !errors.Is(err, layerindex.ErrIndex) {
		t.Errorf("error %v, want %v", err, layerindex.ErrIndex)
	}
	checkRead(t, r, data, 2*pieceSize, pieceSize)

	// On disk: a flipped bit, a hole, a file that was cut off, and one of zeros.
	good := newFarBlob(t, data)
	r = testPieces(t, good, data, 0, testPart(t, dir))
	checkRead(t, r, data, 0, len(data))
	path := filepath.Join(dir, "sha256/x")
	for what, damage := range map[string]func(f *os.File) error{
		"a bit": func(f *os.File) error {
			_, err := f.WriteAt([]byte{data[pieceSize+9] ^ 4}, 100+pieceSize+9)
			return err
		},
		"zeros":     func(f *os.File) error { _, err := f.WriteAt(make([]byte, pieceSize), 100); return err },
		"cut off":   func(f *os.File) error { return f.Truncate(100 + 2*pieceSize + 10) },
		"cut short": func(f *os.File) error { return f.Truncate(3) },
	} {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err == nil {
			err = errors.Join(damage(f), f.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
		good.take()
		r := testPieces(t, good, data, 0, testPart(t, dir))
		checkRead(t, r, data, 0, len(data))
		if asked := good.take(); len(asked) != 1 {
			t.Errorf("%s: asked for %q", what, asked)
		}
		checkRead(t, testPieces(t, good, data, 0, testPart(t, dir)), data, 0, len(data))
		if asked := good.take(); asked != nil {
			t.Errorf("%s: asked for %q though it was mended", what, asked)
		}
	}
}

// TestPiecesRemoved: another process removes the file while it is used, and removes the
// directory.
func TestPiecesRemoved(t *testing.T) {
	data := cachetest.RandomBytes(4*pieceSize, 4)
	dir := t.TempDir()
	b := newFarBlob(t, data)
	r := testPieces(t, b, data, 0, testPart(t, dir))
	checkRead(t, r, data, 0, 10)
	for i, name := range []string{"sha256/x", "sha256"} {
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		checkRead(t, r, data, (i+1)*pieceSize, 10)
		checkRead(t, r, data, 0, 10)
		if st, err := os.Stat(filepath.Join(dir, "sha256/x")); err != nil || st.Size() < int64(i+1)*pieceSize {
			t.Errorf("%s was removed: %v, %v", name, st, err)
		}
	}
}

// TestPiecesNotKept: without a place on disk, or with one that takes nothing, all is read
// all the same, and what was read last stays in memory.
func TestPiecesNotKept(t *testing.T) {
	data := cachetest.RandomBytes(10*pieceSize+1, 5)
	full := testPart(t, t.TempDir())
	full.makeRoom = func(int64) bool { return false }
	failing := testPart(t, t.TempDir())
	failed := 0
	failing.failed = func(error) { failed++ }
	failing.name = "sha256/a/b/../../../../out" // refused
	for what, disk := range map[string]*partFile{"none": nil, "full": full, "failing": failing} {
		b := newFarBlob(t, data)
		r := testPieces(t, b, data, 0, disk)
		checkRead(t, r, data, 0, len(data))
		b.take()
		checkRead(t, r, data, 3, len(data))
		if asked := b.take(); asked != nil {
			t.Errorf("%s: asked for %q", what, asked)
		}
	}
	if failed != 1 {
		t.Errorf("the disk was tried %d times", failed)
	}
}

// TestPiecesFail: an error is the blob's and is not remembered; who is interrupted waits
// no longer; one that says nothing is given up.
func TestPiecesFail(t *testing.T) {
	data := cachetest.RandomBytes(2*pieceSize, 6)
	b := newFarBlob(t, data)
	r := testPieces(t, b, data, 0, nil)
	b.fail = remote.ErrNotFound
	if _, err := r.ReadAt(make([]byte, 5), 0); !errors.Is(err, remote.ErrNotFound) || errors.Is(err, layerindex.ErrIndex) {
		t.Errorf("error %v, want %v", err, remote.ErrNotFound)
	}
	b.fail = nil
	checkRead(t, r, data, 0, 5)

	silent := newFarBlob(t, data)
	silent.Answer = func(ctx context.Context, _ int, _ []byte) (int, error) {
		<-ctx.Done()
		return 0, ctx.Err()
	}
	r = testPieces(t, silent, data, 0, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := r.read(ctx, make([]byte, 5), 0); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v, want that of the context", err)
	}
	silent = newFarBlob(t, data)
	silent.Answer = func(ctx context.Context, _ int, _ []byte) (int, error) {
		<-ctx.Done()
		return 0, ctx.Err()
	}
	r = testPieces(t, silent, data, 0, nil)
	r.limit = patience{silence: 30 * time.Millisecond}
	if _, err := r.ReadAt(make([]byte, 5), 0); !errors.Is(err, errSilent) {
		t.Errorf("error %v, want %v", err, errSilent)
	}
}

// A tricklingBlob brings a byte now and then.
type tricklingBlob struct{ remote.Blob }

func (tricklingBlob) ReadAtProgress(ctx context.Context, p []byte, _ int64, arrived func(int)) (int, error) {
	for n := range p {
		select {
		case <-time.After(5 * time.Millisecond):
			arrived(1)
		case <-ctx.Done():
			return n, ctx.Err()
		}
	}
	return len(p), nil
}

// TestTrickle: who gets a byte now and then waits no longer than eight times as long as
// for one who gets none.
func TestTrickle(t *testing.T) {
	t.Parallel()
	b := tricklingBlob{newFarBlob(t, []byte("x"))}
	for _, until := range []bool{false, true} {
		begin := time.Now()
		limit := patience{silence: 50 * time.Millisecond}
		if until {
			limit = patience{silence: time.Hour, end: begin.Add(400 * time.Millisecond)}
		}
		err := request(t.Context(), b, make([]byte, 1<<20), 0, limit)
		if d := time.Since(begin); !errors.Is(err, errSlow) || d < 300*time.Millisecond || d > 5*time.Second {
			t.Errorf("%+v: %v after %v", limit, err, d)
		}
	}
}
