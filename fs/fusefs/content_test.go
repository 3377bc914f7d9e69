//go:build linux

package fusefs

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/testdata/testenv"
)

// TestDirectReads go past the kernel's pages: what the program asks for is what
// the daemon is asked for.
func TestDirectReads(t *testing.T) {
	testenv.Slow(t)
	forEachMode(t, testDirectReads)
}

func testDirectReads(t *testing.T, w who) {
	tree := treeNamed(t, "sample")
	_, dir := serve(t, w, task{Tree: "sample"})
	for _, name := range []string{"mega", "holes", "hole", "empty", "setuid"} {
		fd, err := unix.Open(filepath.Join(dir, name), unix.O_RDONLY|unix.O_DIRECT|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		f := os.NewFile(uintptr(fd), name)
		defer f.Close()
		n := mustLookup(t, tree, name)
		size := n.Attr().Size
		for _, at := range []struct{ off, n int64 }{
			{0, 1}, {1, 1}, {3, 5}, {4095, 2}, {8191, 4097}, {99, 60}, {1<<20 - 3, 1<<20 + 9}, {sparse1 - 1, 3}, {sparse1 + 4990, 20},
			{1<<32 - 1, 2}, {size - 1, 1}, {size - 1, 100}, {size - 5000, 10_000}, {size, 10}, {size + 1, 10}, {size + 1<<30, 10},
		} {
			if at.off >= 0 {
				compareReads(t, name, f, n, at.off, at.n)
			}
		}
	}
}

// TestSequentialReads in pieces that fit nothing end where the file does.
func TestSequentialReads(t *testing.T) {
	testenv.Slow(t)
	forEachMode(t, testSequentialReads)
}

func testSequentialReads(t *testing.T, w who) {
	want, err := io.ReadAll(contentOf(mustLookup(t, treeNamed(t, "sample"), "mega")))
	if err != nil {
		t.Fatal(err)
	}
	_, dir := serve(t, w, task{Tree: "sample"})
	for _, size := range []int{1021, 4097, 131_073} {
		f, err := os.Open(filepath.Join(dir, "mega"))
		if err != nil {
			t.Fatal(err)
		}
		var got bytes.Buffer
		_, err = io.CopyBuffer(struct{ io.Writer }{&got}, struct{ io.Reader }{f}, make([]byte, size))
		f.Close()
		if err != nil || !bytes.Equal(got.Bytes(), want) {
			t.Errorf("in pieces of %d: %d bytes of %d, or others; %v", size, got.Len(), len(want), err)
		}
	}
}

// TestMmapBeyond4GiB maps pages at the end of a file of 5 GiB, where the last
// ends in zeros, and some where data begins within a page.
func TestMmapBeyond4GiB(t *testing.T) {
	testenv.Slow(t)
	forEachMode(t, testMmapBeyond4GiB)
}

func testMmapBeyond4GiB(t *testing.T, w who) {
	n := mustLookup(t, treeNamed(t, "sample"), "holes")
	_, dir := serve(t, w, task{Tree: "sample"})
	f, err := os.Open(filepath.Join(dir, "holes"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	page := int64(os.Getpagesize())
	for _, off := range []int64{0, (sparse1 - page) / page * page, sparse / page * page} {
		size := 3 * page
		if off+size > sparse {
			size = page // behind the end there is nothing to touch
		}
		want := make([]byte, size)
		if _, err := (readerAt{n}).ReadAt(want, off); err != nil && err != io.EOF {
			t.Fatal(err)
		}
		for _, flags := range []int{unix.MAP_SHARED, unix.MAP_PRIVATE} {
			got, err := unix.Mmap(int(f.Fd()), off, int(size), unix.PROT_READ, flags)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%d bytes mapped at %d are not the file's", size, off)
			}
			if err := unix.Munmap(got); err != nil {
				t.Error(err)
			}
		}
	}
	if _, err := unix.Mmap(int(f.Fd()), 0, int(page), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); !errors.Is(err, unix.EACCES) {
		t.Errorf("mapped to be written to: %v, want %v", err, unix.EACCES)
	}
	private, err := unix.Mmap(int(f.Fd()), 0, int(page), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	copy(private, "changed")
	compareReads(t, "holes", f, n, 0, page)
	if err := unix.Munmap(private); err != nil {
		t.Error(err)
	}
}

// TestTimesDoNotMove: reading changes no time, as it would on a disk.
func TestTimesDoNotMove(t *testing.T) {
	testenv.Slow(t)
	forEachMode(t, testTimesDoNotMove)
}

func testTimesDoNotMove(t *testing.T, w who) {
	_, dir := serve(t, w, task{Tree: "sample"})
	name := filepath.Join(dir, "mega")
	if _, err := os.ReadFile(name); err != nil {
		t.Fatal(err)
	}
	st := lstat(t, name)
	for what, got := range map[string]unix.Timespec{"atime": st.Atim, "mtime": st.Mtim, "ctime": st.Ctim} {
		if want := (unix.Timespec{Sec: noon, Nsec: 1}); got != want {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
}
