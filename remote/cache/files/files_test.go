package files

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/remote/cache/internal/blobfile"
	"github.com/imgfs/imgfs/remote/cache/internal/cachetest"
	"github.com/imgfs/imgfs/remote/cache/internal/directory"
)

// storeContent stores a content and checks what it gets.
func storeContent(t testing.TB, c *testCache, data []byte) *Kept {
	t.Helper()
	x, err := c.Store(t.Context(), digest.FromBytes(data), int64(len(data)), bytes.NewReader(data))
	return checkContent(t, x, err, data)
}

// openContent opens a content that must be there.
func openContent(t testing.TB, c *testCache, data []byte) *Kept {
	t.Helper()
	x, err := c.Open(t.Context(), digest.FromBytes(data), int64(len(data)))
	return checkContent(t, x, err, data)
}

func checkContent(t testing.TB, x *Kept, err error, data []byte) *Kept {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { x.Close() })
	got, err := io.ReadAll(io.NewSectionReader(x.File(), 0, x.Size()+1))
	if err != nil || x.Size() != int64(len(data)) || !bytes.Equal(got, data) {
		t.Fatalf("the content has %d bytes, %v; want the %d that it is of", len(got), err, len(data))
	}
	if got, err = io.ReadAll(io.NewSectionReader(x, 0, x.Size()+1)); err != nil || !bytes.Equal(got, data) {
		t.Fatalf("ReadAt() gives %d bytes, %v; want the %d that it is of", len(got), err, len(data))
	}
	return x
}

func contentPath(dir string, data []byte) string {
	return filepath.Join(dir, directory.Kept, "sha256", digest.FromBytes(data).Encoded())
}

func TestContent(t *testing.T) {
	dir := t.TempDir()
	c, other := openCache(t, dir, nil), openCache(t, dir, nil)
	var total int64
	sizes := []int{0, 1, blobfile.BlockSize, pieceSize - 1, pieceSize, pieceSize + 1, 3*pieceSize + 5}
	for i, size := range sizes {
		data := cachetest.RandomBytes(size, uint64(400+i))
		d, n := digest.FromBytes(data), int64(size)
		total += n
		for _, c := range []*testCache{c, other} {
			if _, err := c.Open(t.Context(), d, n); !errors.Is(err, fs.ErrNotExist) || c.Has(d, n) {
				t.Errorf("%d bytes, not stored: Open() gave %v; has it: %v", size, err, c.Has(d, n))
			}
		}
		x := storeContent(t, c, data)
		st, err := os.Stat(contentPath(dir, data))
		if err != nil || st.Mode() != 0o400 {
			t.Errorf("%d bytes: mode %v, %v", size, st.Mode(), err)
		}
		if flags, err := unix.FcntlInt(x.File().Fd(), unix.F_GETFL, 0); err != nil || flags&unix.O_ACCMODE != unix.O_RDONLY {
			t.Errorf("%d bytes: open with flags %#x, %v", size, flags, err)
		}
		if !c.Has(d, n) || c.Has(d, n+1) {
			t.Errorf("%d bytes: not there, or of another size too", size)
		}
		y, err := c.OpenChecked(d, n)
		checkContent(t, y, err, data)
		// The other one believes nothing.
		if _, err := other.OpenChecked(d, n); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%d bytes: another Cache's OpenChecked() gave %v", size, err)
		}
		openContent(t, other, data)
		y, err = other.OpenChecked(d, n)
		checkContent(t, y, err, data)
	}
	cachetest.CheckTmp(t, dir)
	s := c.Stats()
	if s.ContentsStored != int64(len(sizes)) || s.ContentBytes != total || s.BadStored != 0 || other.Stats().ContentsStored != 0 {
		t.Errorf("Stats() = %+v and %+v", s, other.Stats())
	}
}

// What lies in the place of a content and is not it is found by who has never
// seen it, and by who has checked another file there.
func TestContentWrong(t *testing.T) {
	data := cachetest.RandomBytes(pieceSize+100, 410)
	replace := func(data []byte) func(t *testing.T, path string) {
		return func(t *testing.T, path string) {
			if err := cachetest.ReplaceFile(path, data); err != nil {
				t.Fatal(err)
			}
		}
	}
	flip := bytes.Clone(data)
	flip[pieceSize] ^= 1
	tests := []struct {
		name   string
		damage func(t *testing.T, path string)
		known  bool // by who has checked it
	}{
		{"right", replace(data), true},
		{"a bit", replace(flip), false},
		{"short", replace(data[:pieceSize]), false},
		{"long", replace(append(bytes.Clone(data), 0)), false},
		{"empty", replace(nil), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, checked := range []bool{false, true} {
				dir := t.TempDir()
				storeContent(t, openCache(t, dir, nil), data)
				c := openCache(t, dir, nil)
				if checked {
					openContent(t, c, data)
				}
				tt.damage(t, contentPath(dir, data))
				if tt.known {
					openContent(t, c, data)
					continue
				}
				_, err := c.Open(t.Context(), digest.FromBytes(data), int64(len(data)))
				if !errors.Is(err, fs.ErrNotExist) || c.Stats().BadStored != 1 {
					t.Errorf("checked before %v: Open() = %v, Stats() = %+v", checked, err, c.Stats())
				}
				if left := cachetest.Files(t, dir); len(left) > 0 {
					t.Errorf("left are %q", left)
				}
				storeContent(t, c, data)
				openContent(t, openCache(t, dir, nil), data)
			}
		})
	}
}

// A size that is not the content's is no reason to remove it.
func TestContentOtherSize(t *testing.T) {
	data := cachetest.RandomBytes(1000, 411)
	dir := t.TempDir()
	storeContent(t, openCache(t, dir, nil), data)
	c := openCache(t, dir, nil)
	for range 2 {
		for _, size := range []int64{-1, 0, 999, 1001, 1 << 60} {
			if _, err := c.Open(t.Context(), digest.FromBytes(data), size); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("of %d bytes: %v", size, err)
			}
		}
		openContent(t, c, data)
	}
}

// What is wrong is removed only if it is still there.
func TestDropContentReplaced(t *testing.T) {
	data := cachetest.RandomBytes(1000, 412)
	dir := t.TempDir()
	c := openCache(t, dir, nil)
	x := storeContent(t, c, data)
	if err := os.Remove(contentPath(dir, data)); err != nil {
		t.Fatal(err)
	}
	storeContent(t, openCache(t, dir, nil), data)
	if err := c.drop(x); err != nil {
		t.Error(err)
	}
	openContent(t, c, data)
}

func TestContentRefuses(t *testing.T) {
	c := openCache(t, t.TempDir(), nil)
	for _, d := range []digest.Digest{"", "sha256:../x", digest.SHA512.FromString("x"), "md5:d41d8cd98f00b204e9800998ecf8427e"} {
		_, err := c.Open(t.Context(), d, 1)
		_, err2 := c.Store(t.Context(), d, 1, bytes.NewReader([]byte("x")))
		if !errors.Is(err, fs.ErrInvalid) || !errors.Is(err2, fs.ErrInvalid) || c.Has(d, 1) {
			t.Errorf("%q: %v and %v", d, err, err2)
		}
	}
	data := cachetest.RandomBytes(10, 413)
	storeContent(t, openCache(t, c.Path(), nil), data)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Open(ctx, digest.FromBytes(data), 10); !errors.Is(err, context.Canceled) {
		t.Errorf("with an ended context: %v", err)
	}
	// Something else in its place.
	dir := contentPath(c.Path(), []byte("x"))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Open(t.Context(), digest.FromString("x"), 1); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a directory: %v", err)
	}
}

// While a content is open nobody gets its lock; one that is being removed is
// not there.
func TestContentLock(t *testing.T) {
	data := cachetest.RandomBytes(1000, 414)
	dir := t.TempDir()
	c := openCache(t, dir, nil)
	stored := storeContent(t, c, data)
	opened := openContent(t, c, data)
	f, err := os.Open(contentPath(dir, data))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, x := range []*Kept{stored, opened} {
		if err := directory.Flock(f, unix.LOCK_EX|unix.LOCK_NB); err != unix.EWOULDBLOCK {
			t.Errorf("the lock of an open content: %v", err)
		}
		x.Close()
	}
	if err := directory.Flock(f, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		t.Errorf("the lock of a closed content: %v", err)
	}
	if _, err := c.Open(t.Context(), digest.FromBytes(data), 1000); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Open() of what is about to be removed = %v", err)
	}
}

func TestContentUseIsNoted(t *testing.T) {
	data := cachetest.RandomBytes(1000, 415)
	dir := t.TempDir()
	c := openCache(t, dir, nil)
	storeContent(t, c, data)
	path := contentPath(dir, data)
	for _, tt := range []struct {
		ago   time.Duration
		noted bool
	}{{touchAfter / 2, false}, {2 * touchAfter, true}, {-10 * directory.FutureTime, true}} {
		cachetest.Age(t, path, tt.ago)
		x, err := c.OpenChecked(digest.FromBytes(data), 1000)
		checkContent(t, x, err, data)
		st, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if ago := time.Since(st.ModTime()); (ago.Abs() < time.Minute) != tt.noted {
			t.Errorf("used after %v: last used %v ago, noted should be %v", tt.ago, ago, tt.noted)
		}
	}
}

func TestContentClosed(t *testing.T) {
	dir := t.TempDir()
	c := openCache(t, dir, nil)
	data, other := cachetest.RandomBytes(1000, 416), cachetest.RandomBytes(3*pieceSize, 417)
	x := storeContent(t, c, data)

	begun := make(chan struct{})
	var wg sync.WaitGroup
	store := func(r io.Reader) {
		wg.Go(func() {
			if _, err := c.Store(context.Background(), digest.FromBytes(other), int64(len(other)), r); !errors.Is(err, fs.ErrClosed) {
				t.Errorf("Store() while the Cache is closed = %v", err)
			}
		})
	}
	first := &pausingReader{data: other, at: pieceSize, reached: begun, goOn: c.Closing()}
	store(first)
	<-begun
	store(bytes.NewReader(other)) // waits for the first
	c.Close()
	wg.Wait()
	cachetest.CheckTmp(t, dir)

	if _, err := c.Open(t.Context(), digest.FromBytes(data), 1000); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("Open() = %v", err)
	}
	if _, err := c.OpenChecked(digest.FromBytes(data), 1000); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("OpenChecked() = %v", err)
	}
	if _, err := c.Probe(); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("Probe() = %v", err)
	}
	checkContent(t, x, nil, data)
	if left, want := cachetest.Files(t, dir), []string{"contents/" + digest.FromBytes(data).Encoded()}; !slices.Equal(left, want) {
		t.Errorf("left are %q, want %q", left, want)
	}
	c.Close()
}

func TestProbe(t *testing.T) {
	dir := t.TempDir()
	c := openCache(t, dir, nil)
	f, err := c.Probe()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var st, there unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	if err := unix.Stat(dir, &there); err != nil {
		t.Fatal(err)
	}
	if st.Nlink != 0 || st.Size != 0 || st.Mode&unix.S_IFMT != unix.S_IFREG || st.Dev != there.Dev {
		t.Errorf("got %+v", st)
	}
	if _, err := f.Write([]byte("x")); err == nil {
		t.Error("it can be written")
	}
	cachetest.CheckTmp(t, dir)
}

// Of those that open a content at the same time one reads it.
func TestContentCheckedOnce(t *testing.T) {
	data := cachetest.RandomBytes(pieceSize, 418)
	dir := t.TempDir()
	storeContent(t, openCache(t, dir, nil), data)
	if err := cachetest.ReplaceFile(contentPath(dir, data), cachetest.RandomBytes(pieceSize, 419)); err != nil {
		t.Fatal(err)
	}
	c := openCache(t, dir, nil)
	unlock, err := c.known.lock(t.Context(), &c.known.checking, digest.FromBytes(data))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := c.Open(context.Background(), digest.FromBytes(data), pieceSize); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("Open() = %v", err)
			}
		})
	}
	unlock()
	wg.Wait()
	if got := c.Stats().BadStored; got != 1 {
		t.Errorf("found wrong %d times", got)
	}
	if len(c.known.checking.taken) > 0 {
		t.Errorf("still locked: %v", c.known.checking.taken)
	}
}
