package blobs

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/remote/cache/internal/cachetest"
	"github.com/imgfs/imgfs/remote/cache/internal/directory"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// newTemp makes a temporary file, closed with the test.
func newTemp(t *testing.T, c *testCache, opts *directory.TempOptions) *directory.TempFile {
	t.Helper()
	f, err := c.NewTempFile(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// grow writes n bytes to the end of a temporary file.
func grow(f *directory.TempFile, n int) error {
	_, err := f.WriteAt(cachetest.RandomBytes(n, 500), f.End)
	return err
}

func TestTempFile(t *testing.T) {
	dir := t.TempDir()
	f := newTemp(t, openCache(t, dir, nil), nil)
	cachetest.CheckTmp(t, dir)
	data := cachetest.RandomBytes(3*directory.TempStep/2, 501)
	for off := 0; off < len(data); off += 100_000 {
		if n, err := f.WriteAt(data[off:min(off+100_000, len(data))], int64(off)); err != nil {
			t.Fatalf("WriteAt = %d, %v", n, err)
		}
	}
	got := make([]byte, len(data)+1)
	if n, err := f.ReadAt(got, 0); n != len(data) || err != io.EOF || !bytes.Equal(got[:n], data) {
		t.Errorf("ReadAt = %d, %v; want the %d bytes that were written, and the end", n, err, len(data))
	}
	if err := f.Truncate(10); err != nil {
		t.Error(err)
	}
	if n, err := f.ReadAt(got, 0); n != 10 || err != io.EOF {
		t.Errorf("after Truncate: ReadAt = %d, %v", n, err)
	}
	for range 2 {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := f.WriteAt(data, 0); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("WriteAt after Close: %v", err)
	}
	if _, err := f.WriteAt(data, -1); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("WriteAt at -1: %v", err)
	}
}

// A temporary file takes the room of chunks that were used before it was made,
// counts while it is open, and is seen by others who use the directory.
func TestTempFileCounts(t *testing.T) {
	const size = 200 * cachetest.TestChunk
	dir := t.TempDir()
	c := limited(t, dir, 2*size)
	old := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(60*cachetest.TestChunk, 510)}
	cachetest.Fill(t, c.at("."), old, 0, 60, 1000)
	other := openCache(t, dir, &testOptions{Budget: c.Budget()})
	f := newTemp(t, c, nil)
	for range 2 {
		if err := grow(f, size-10*cachetest.TestChunk); err != nil {
			t.Fatal(err)
		}
		if all := cachetest.Usage(t, c) + f.End; all > c.Budget() {
			t.Fatalf("%d bytes on disk, the budget is %d", all, c.Budget())
		}
	}
	if cachetest.Held(c.at("."), old) == 1<<60-1 {
		t.Error("nothing was removed for the file")
	}
	if n := c.Stats().Temporary; n != f.End {
		t.Errorf("Stats has %d bytes, want %d", n, f.End)
	}
	for _, c := range []*testCache{c, other} {
		if n := c.Temporary(); n < f.End || n > f.End+directory.TempStep {
			t.Errorf("Temporary says %d bytes, want %d or a little more", n, f.End)
		}
	}
	if err := grow(newTemp(t, other, nil), size); !errors.Is(err, directory.ErrFull) {
		t.Errorf("another file in the same directory: %v, want ErrFull", err)
	}
	before, _ := directory.KnownUse(c.Files())
	was := f.End
	f.Close()
	after, _ := directory.KnownUse(c.Files())
	if back := before - after; back < was {
		t.Errorf("%d bytes given back of %d", back, was)
	}
	if n := c.Temporary() + other.Temporary() + c.Stats().Temporary; n != 0 {
		t.Errorf("%d bytes count as temporary when it is closed", n)
	}
	if err := grow(newTemp(t, other, nil), size); err != nil {
		t.Errorf("another file when there is room: %v", err)
	}
}

// A file that another process has made counts with whoever has taken it over, if there is
// room. One that has a name is not such a file.
func TestTempFileAdopted(t *testing.T) {
	const size = 100 * cachetest.TestChunk
	dir := t.TempDir()
	first := limited(t, dir, 2*size)
	f := newTemp(t, first, nil)
	if err := grow(f, size); err != nil {
		t.Fatal(err)
	}
	again := func() *os.File {
		t.Helper()
		fd, err := unix.FcntlInt(f.File().Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		return os.NewFile(uintptr(fd), "held")
	}
	held, late := again(), again()
	f.Close()
	next := openCache(t, dir, &testOptions{Budget: first.Budget()})
	adopted, err := next.Adopt(held)
	if err != nil {
		t.Fatal(err)
	}
	other := openCache(t, dir, &testOptions{Budget: first.Budget()})
	for _, c := range []*testCache{next, other} {
		if n := c.Temporary(); n < size {
			t.Errorf("Temporary says %d bytes, want %d or more", n, size)
		}
	}
	if err := grow(newTemp(t, other, nil), 3*size/2); !errors.Is(err, directory.ErrFull) {
		t.Errorf("another file in the same directory: %v, want ErrFull", err)
	}
	if err := adopted.Close(); err != nil {
		t.Error(err)
	}
	if n := other.Temporary(); n != 0 {
		t.Errorf("%d bytes count when it is closed", n)
	}
	src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(50*cachetest.TestChunk, 511)}
	small := limited(t, t.TempDir(), size+size/4)
	cachetest.Fill(t, small.at("."), src, 0, 50, 0)
	if err := small.Room.Locked(func() error { _, err := small.Room.Recount(); return err }); err != nil {
		t.Fatal(err)
	}
	if _, err := small.Adopt(late); !errors.Is(err, directory.ErrFull) {
		t.Errorf("without room: %v, want ErrFull", err)
	}
	if cachetest.Held(small.at("."), src) != 1<<50-1 {
		t.Error("chunks that are in use were removed for a file that is there already")
	}
	named, err := os.Create(filepath.Join(dir, "named"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := next.Adopt(named); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a file with a name: %v", err)
	}
	if _, err := named.Write([]byte("x")); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("it was not closed: %v", err)
	}
}

// What budget or disk cannot take is refused at once if the size is known, and
// where it does not fit if not. It gives back all of it.
func TestTempFileNoRoom(t *testing.T) {
	dir := t.TempDir()
	c := limited(t, dir, 100*cachetest.TestChunk)
	src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(20*cachetest.TestChunk, 520)}
	cachetest.Fill(t, c.at("."), src, 0, 20, 1000)
	if _, err := c.NewTempFile(&directory.TempOptions{Size: c.Budget() + 1}); !errors.Is(err, directory.ErrFull) {
		t.Errorf("a file of more than the budget: %v, want ErrFull", err)
	}
	if cachetest.Held(c.at("."), src) != 1<<20-1 {
		t.Error("chunks were removed for a file that is refused")
	}
	f := newTemp(t, c, nil)
	for off := 0; ; off += cachetest.TestChunk {
		if err := grow(f, cachetest.TestChunk); err != nil {
			if !errors.Is(err, directory.ErrFull) {
				t.Errorf("%v, want ErrFull", err)
			}
			break
		}
		if all := cachetest.Usage(t, c) + f.End; all > c.Budget() {
			t.Fatalf("%d bytes on disk, the budget is %d", all, c.Budget())
		}
	}
	if f.End < 95*cachetest.TestChunk {
		t.Errorf("only %d bytes of %d were taken", f.End, 100*cachetest.TestChunk)
	}
	if err := f.Truncate(0); err != nil {
		t.Error(err)
	}
	if n := c.Room.Temporary() + c.Stats().Temporary; n != 0 {
		t.Errorf("%d bytes count after Truncate", n)
	}
	if err := grow(f, 80*cachetest.TestChunk); err != nil {
		t.Errorf("with room again: %v", err)
	}
}

// Temporary files of several processes' caches together keep the budget.
func TestTempFilesTogether(t *testing.T) {
	dir := t.TempDir()
	c := limited(t, dir, 300*cachetest.TestChunk)
	var files []*directory.TempFile
	for range 4 {
		other := openCache(t, dir, &testOptions{Budget: c.Budget()})
		files = append(files, newTemp(t, other, nil), newTemp(t, other, nil))
	}
	var all sync.WaitGroup
	for _, f := range files {
		all.Go(func() {
			for grow(f, cachetest.TestChunk) == nil {
			}
		})
	}
	all.Wait()
	sum := cachetest.Usage(t, c)
	for _, f := range files {
		sum += f.End
	}
	if sum > c.Budget() || sum < c.Budget()-100*cachetest.TestChunk {
		t.Errorf("%d bytes on disk, the budget is %d", sum, c.Budget())
	}
}

// A copy takes nothing from what was used lately.
func TestTempFileCopy(t *testing.T) {
	dir := t.TempDir()
	src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(60*cachetest.TestChunk, 530)}
	openCache(t, dir, nil)
	cachetest.Fill(t, dir, src, 0, 60, 100)
	c := limited(t, dir, 40*cachetest.TestChunk)
	if err := grow(newTemp(t, c, &directory.TempOptions{Copy: true}), 60*cachetest.TestChunk); !errors.Is(err, directory.ErrFull) {
		t.Errorf("a copy: %v, want ErrFull", err)
	}
	if cachetest.Held(c.at("."), src) != 1<<60-1 {
		t.Error("chunks were removed for a copy")
	}
	if err := grow(newTemp(t, c, nil), 60*cachetest.TestChunk); err != nil {
		t.Errorf("another: %v", err)
	}
}

// Of a process that is gone nothing counts.
func TestTempFileOfTheDead(t *testing.T) {
	dir := t.TempDir()
	c := limited(t, dir, 100*cachetest.TestChunk)
	dead := openCache(t, dir, &testOptions{Budget: c.Budget()})
	if err := grow(newTemp(t, dead, nil), 60*cachetest.TestChunk); err != nil {
		t.Fatal(err)
	}
	dead.Room.Ledger.Close() // as the kernel does
	if n := c.Temporary(); n != 0 {
		t.Errorf("%d bytes count as temporary", n)
	}
	if err := grow(newTemp(t, c, nil), 80*cachetest.TestChunk); err != nil {
		t.Errorf("its room is not to be had: %v", err)
	}
}

// A disk with too little room refuses a file of known size before it takes
// anything of it, and makes room for another as for chunks.
func TestTempFileDiskFull(t *testing.T) {
	dir := cachetest.SmallDisk(t, 2<<20)
	var w cachetest.Warnings
	c := openCache(t, dir, &testOptions{Budget: 1 << 30, Warnf: w.Warnf})
	src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(1<<20, 540)}
	cachetest.Fill(t, c.at("."), src, 0, src.Size()/cachetest.TestChunk, 1000)
	if _, err := c.NewTempFile(&directory.TempOptions{Size: 3 << 20}); !errors.Is(err, directory.ErrFull) || !errors.Is(err, unix.ENOSPC) {
		t.Errorf("a file of more than the disk: %v, want ErrFull and ENOSPC", err)
	}
	f := newTemp(t, c, nil)
	var err error
	for err == nil {
		err = grow(f, 16<<10)
	}
	if !errors.Is(err, directory.ErrFull) || !errors.Is(err, unix.ENOSPC) {
		t.Errorf("%v, want ErrFull and ENOSPC", err)
	}
	if f.End < 1<<20 {
		t.Errorf("%d bytes were taken, and no chunk made room", f.End)
	}
	c.WarnDisk(err)
	w.Check(t, "no space left")
}

// Where the directory cannot be written a file is elsewhere, within the budget.
func TestTempFileElsewhere(t *testing.T) {
	dir, temp := cachetest.SmallDisk(t, 1<<20), t.TempDir()
	t.Setenv("TMPDIR", temp)
	c := openCache(t, dir, &testOptions{Budget: 1 << 20})
	testenv.RemountReadOnly(t, filepath.Dir(dir))
	a, b := newTemp(t, c, nil), newTemp(t, c, nil)
	if err := grow(a, 600_000); err != nil {
		t.Error(err)
	}
	if err := grow(b, 600_000); !errors.Is(err, directory.ErrFull) {
		t.Errorf("beyond the budget: %v, want ErrFull", err)
	}
	if n := c.Stats().Temporary; n != 600_000 {
		t.Errorf("%d bytes count as temporary", n)
	}
	a.Close()
	if err := grow(b, 600_000); err != nil {
		t.Errorf("with room again: %v", err)
	}
	if left, err := os.ReadDir(temp); err != nil || len(left) > 0 {
		t.Errorf("there are names in the directory: %v, %v", left, err)
	}
}

func TestTempFileClosedCache(t *testing.T) {
	dir := t.TempDir()
	c := limited(t, dir, 100*cachetest.TestChunk)
	f := newTemp(t, c, nil)
	if err := grow(f, 10*cachetest.TestChunk); err != nil {
		t.Fatal(err)
	}
	c.Close()
	if _, err := c.NewTempFile(nil); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("after Close: %v, want fs.ErrClosed", err)
	}
	if err := grow(f, 100*cachetest.TestChunk); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("a file that was open grows after Close: %v, want fs.ErrClosed", err)
	}
	if n, err := f.ReadAt(make([]byte, 10), 0); n != 10 || err != nil {
		t.Errorf("of a file that was open: %d, %v", n, err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
}

// Recordings, and contents that are being stored, count as temporary while they
// are.
func TestTemporaryStats(t *testing.T) {
	c := openCache(t, t.TempDir(), nil)
	src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(4*cachetest.TestChunk, 550)}
	count := func(want int64) {
		t.Helper()
		if n := c.Stats().Temporary; n != want {
			t.Errorf("%d bytes count as temporary, want %d", n, want)
		}
	}
	r := startRecording(t, c, src, 1000)
	count(1000)
	if !finish(t, r, src) {
		t.Error("not recorded")
	}
	count(0)
	startRecording(t, c, src, 500).Abort()
	count(0)
	data := cachetest.RandomBytes(4*128<<10, 551)
	left := bytes.NewReader(data)
	_, err := c.Store(t.Context(), digest.FromBytes(data), int64(len(data)), cachetest.ReaderFunc(func(p []byte) (int, error) {
		// It is asked for a piece when the ones before are on disk.
		if read := int64(len(data) - left.Len()); read%128<<10 == 0 && left.Len() > 0 {
			count(read)
		}
		return left.Read(p)
	}))
	if err != nil {
		t.Error(err)
	}
	count(0)
}
