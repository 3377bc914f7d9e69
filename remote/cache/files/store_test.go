package files

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"

	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache/internal/cachetest"
	"github.com/imgfs/imgfs/remote/cache/internal/directory"
)

// A pausingReader gives data, but closes reached at some byte and waits for
// goOn before it gives more.
type pausingReader struct {
	data    []byte
	at, off int
	reached chan<- struct{}
	goOn    <-chan struct{}
}

func (r *pausingReader) Read(p []byte) (int, error) {
	if r.off >= r.at && r.reached != nil {
		close(r.reached)
		r.reached = nil
		<-r.goOn
	}
	n := copy(p, r.data[r.off:])
	if r.off < r.at {
		n = min(n, r.at-r.off)
	}
	if r.off += n; n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

func TestStoreReaders(t *testing.T) {
	data := cachetest.RandomBytes(2*pieceSize+77, 450)
	d, n := digest.FromBytes(data), int64(len(data))
	other := bytes.Clone(data)
	other[n-1] ^= 0x80
	whole := func() io.Reader { return bytes.NewReader(data) }
	broken := errors.New("broken")
	ctx, cancel := context.WithCancel(t.Context())
	tests := []struct {
		name string
		size int64
		r    io.Reader
		want error
	}{
		{"byte by byte", n, iotest.OneByteReader(whole()), nil},
		{"halves", n, iotest.HalfReader(whole()), nil},
		{"data with EOF", n, iotest.DataErrReader(whole()), nil},
		{"wrong", n, bytes.NewReader(other), remote.ErrDigest},
		{"one byte more", n, bytes.NewReader(append(bytes.Clone(data), 0)), remote.ErrDigest},
		{"much more", 5, whole(), remote.ErrDigest},
		{"one byte less", n, bytes.NewReader(data[:n-1]), io.ErrUnexpectedEOF},
		{"a piece less", n + pieceSize, whole(), io.ErrUnexpectedEOF},
		{"nothing", n, bytes.NewReader(nil), io.ErrUnexpectedEOF},
		{"a size that lies", 1 << 60, whole(), io.ErrUnexpectedEOF},
		{"a negative size", -1, whole(), fs.ErrInvalid},
		{"an error at once", n, iotest.ErrReader(broken), broken},
		{"an error at the end", n, io.MultiReader(whole(), iotest.ErrReader(broken)), broken},
		{"a context that ends", n, io.MultiReader(bytes.NewReader(data[:pieceSize]), cachetest.ReaderFunc(func(p []byte) (int, error) {
			cancel()
			return copy(p, data[pieceSize:]), nil
		})), context.Canceled},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			c := openCache(t, dir, &testOptions{Warnf: t.Errorf})
			x, err := c.Store(ctx, d, tt.size, tt.r)
			cachetest.CheckTmp(t, dir)
			if tt.want == nil {
				checkContent(t, x, err, data)
				return
			}
			if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), d.String()) {
				t.Errorf("Store() = %v, want %v and the digest", err, tt.want)
			}
			if left := cachetest.Files(t, dir); len(left) > 0 || c.Stats().ContentsStored > 0 {
				t.Errorf("left are %q, Stats() = %+v", left, c.Stats())
			}
		})
	}
}

// Of those that store a content in one Cache at a time one reads; if it fails
// the next one does.
func TestStoreOnce(t *testing.T) {
	data := cachetest.RandomBytes(3*pieceSize, 451)
	d, n := digest.FromBytes(data), int64(len(data))
	for _, fail := range []bool{false, true} {
		dir := t.TempDir()
		c := openCache(t, dir, nil)
		begun, goOn := make(chan struct{}), make(chan struct{})
		given := data
		if fail {
			given = data[:pieceSize+1]
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			x, err := c.Store(context.Background(), d, n, &pausingReader{data: given, at: pieceSize, reached: begun, goOn: goOn})
			if (err != nil) != fail {
				t.Errorf("the first: %v", err)
			}
			if err == nil {
				x.Close()
			}
		})
		<-begun
		var reads atomic.Int64
		for range 8 {
			wg.Go(func() {
				r := io.MultiReader(cachetest.ReaderFunc(func([]byte) (int, error) { reads.Add(1); return 0, io.EOF }), bytes.NewReader(data))
				x, err := c.Store(context.Background(), d, n, r)
				if err != nil {
					t.Error(err)
					return
				}
				defer x.Close()
				if got, err := io.ReadAll(io.NewSectionReader(x.File(), 0, n+1)); err != nil || !bytes.Equal(got, data) {
					t.Errorf("read %d bytes, %v", len(got), err)
				}
			})
		}
		// One that waits can leave.
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := c.Store(ctx, d, n, iotest.ErrReader(errors.New("read"))); !errors.Is(err, context.Canceled) {
			t.Errorf("with an ended context: %v", err)
		}
		// Nobody who only looks waits.
		if _, err := c.Open(t.Context(), d, n); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("before it is stored: %v", err)
		}
		close(goOn)
		wg.Wait()
		want := int64(0)
		if fail {
			want = 1
		}
		if got := reads.Load(); got != want || c.Stats().ContentsStored != 1 {
			t.Errorf("the first fails %v: %d of the others read, want %d; Stats() = %+v", fail, got, want, c.Stats())
		}
		cachetest.CheckTmp(t, dir)
	}
}

// Two processes store the same content at the same time.
func TestStoreTwice(t *testing.T) {
	data := cachetest.RandomBytes(3*pieceSize, 452)
	dir := t.TempDir()
	c, other := openCache(t, dir, nil), openCache(t, dir, nil)
	begun, goOn := make(chan struct{}), make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		r := &pausingReader{data: data, at: pieceSize, reached: begun, goOn: goOn}
		x, err := c.Store(context.Background(), digest.FromBytes(data), int64(len(data)), r)
		if err != nil {
			t.Error(err)
			return
		}
		x.Close()
	}()
	<-begun
	x := storeContent(t, other, data)
	// Who only opens is not kept waiting by who stores.
	openContent(t, c, data)
	close(goOn)
	<-done
	checkContent(t, x, nil, data)
	openContent(t, c, data)
	openContent(t, other, data)
	openContent(t, openCache(t, dir, nil), data)
	cachetest.CheckTmp(t, dir)
	if left := cachetest.Files(t, dir); len(left) != 1 {
		t.Errorf("left are %q", left)
	}
}

// Many contents, Caches and goroutines, some removing: all that is handed out
// is right.
func TestContentsCrowd(t *testing.T) {
	dir := t.TempDir()
	caches := []*testCache{openCache(t, dir, nil), limited(t, dir, 1<<20), limited(t, dir, 1<<20)}
	for _, c := range caches {
		c.Idle = 0
	}
	var wg sync.WaitGroup
	for g := range 6 {
		wg.Go(func() {
			c := caches[g%len(caches)]
			for i := range 100 {
				if err := useContent(c, cachetest.RandomBytes(1+(i*7+g)%10*9000, uint64(460+(i*7+g)%10))); err != nil {
					t.Error(err)
					return
				}
				if i%20 == g {
					if _, err := c.Prune(directory.PruneOptions{All: true}); err != nil && !errors.Is(err, directory.ErrBusy) {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	cachetest.CheckTmp(t, dir)
	for _, c := range caches {
		if c.Stats().BadStored > 0 {
			t.Errorf("%d found wrong", c.Stats().BadStored)
		}
	}
}

// What is stored is not kept in memory.
func TestStoreMemory(t *testing.T) {
	data := cachetest.RandomBytes(16<<20, 453)
	c := openCache(t, t.TempDir(), nil)
	var before, after runtime.MemStats
	d := digest.FromBytes(data)
	runtime.ReadMemStats(&before)
	x, err := c.Store(t.Context(), d, int64(len(data)), bytes.NewReader(data))
	runtime.ReadMemStats(&after)
	if err != nil {
		t.Fatal(err)
	}
	x.Close()
	if got := after.TotalAlloc - before.TotalAlloc; got > 1<<20 {
		t.Errorf("took %d bytes of memory for %d", got, len(data))
	}
}

// A disk that is full of what others store, or of chunks in use, is left
// alone, after one warning; idle chunks make room.
func TestDiskFullAtContent(t *testing.T) {
	const n = 600 << 10
	data := cachetest.RandomBytes(n, 454)
	for _, tt := range []struct {
		name   string
		chunks int64
		age    int // of the chunks, seconds
		want   error
	}{{"others'", 0, 0, directory.ErrFull}, {"in use", 130, 60, directory.ErrFull}, {"idle", 130, 7200, nil}} {
		t.Run(tt.name, func(t *testing.T) {
			dir := cachetest.SmallDisk(t, 1<<20)
			var w cachetest.Warnings
			c := openCache(t, dir, &testOptions{Warnf: w.Warnf})
			c.RetryWrites = 0
			src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(int(tt.chunks)*cachetest.TestChunk+1, 455)}
			if cachetest.Fill(t, c.at("."), src, 0, tt.chunks, tt.age); tt.chunks == 0 {
				cachetest.FillDisk(t, dir, n/2)
			}
			for range 2 {
				x, err := c.Store(t.Context(), digest.FromBytes(data), n, bytes.NewReader(data))
				if !errors.Is(err, tt.want) {
					t.Fatalf("Store() = %v, want %v", err, tt.want)
				}
				cachetest.CheckTmp(t, dir)
				if err == nil {
					checkContent(t, x, err, data)
				}
			}
			if tt.want == nil {
				return
			}
			w.Check(t, dir, "no space left on device")
			b := cached(t, c, src)
			if checkRead(t, b, src, 0, tt.chunks*cachetest.TestChunk); len(src.Asked()) > 0 {
				t.Errorf("chunks had to be fetched again: %v", src.Asked())
			}
		})
	}
}
