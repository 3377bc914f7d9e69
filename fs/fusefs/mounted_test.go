//go:build linux

package fusefs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/testdata/testenv"
)

func TestMountEqualsTree(t *testing.T) {
	testenv.Slow(t)
	forEachMounter(t, testMountEqualsTree)
	forEachMode(t, testMountEqualsTree)
}

func testMountEqualsTree(t *testing.T, w who) {
	names := []string{"plain", "sample"}
	if inNamespace() {
		names = names[:1] // it has no other owner than root
	}
	for _, name := range names {
		tree := treeNamed(t, name)
		_, dir := serve(t, w, task{Tree: name})
		want := dumpOfTree(t, tree, w.uid)
		// Once cold, once from the kernel's caches.
		for range 2 {
			compareDumps(t, dumpOfMount(t, dir, w.uid), want)
		}
	}
}

func TestInodesAreStableOverMounts(t *testing.T) {
	testenv.Slow(t)
	forEachMode(t, testInodesAreStableOverMounts)
}

func testInodesAreStableOverMounts(t *testing.T, w who) {
	var dumps [2][]string
	for i := range dumps {
		c, dir := serve(t, w, task{Tree: "sample"})
		dumps[i] = dumpOfMount(t, dir, w.uid)
		c.send("unmount")
		c.ended()
	}
	compareDumps(t, dumps[1], dumps[0])
}

func TestAllowOther(t *testing.T) {
	needFUSE(t)
	needRoot(t)
	_, dir := serve(t, who{}, task{Tree: "sample", AllowOther: true})
	compareDumps(t, dumpOfMount(t, dir, nobody), dumpOfTree(t, treeNamed(t, "sample"), nobody))
}

func TestACL(t *testing.T) {
	needFUSE(t)
	needRoot(t)
	_, dir := serve(t, who{}, task{Tree: "acl", AllowOther: true})
	for name, want := range map[string]string{"open": "10 bytes", "shut": "error: permission denied"} {
		c := start(t, nobody, task{Role: "read", Dir: filepath.Join(dir, name)})
		c.next() // its thread
		if got := c.next(); got != want {
			t.Errorf("reading %s as user %d: %s, want %s", name, nobody, got, want)
		}
		_ = c.cmd.Wait()
	}
}

// A dirent is what getdents(2) gives.
type dirent struct {
	ino  uint64
	next int64 // offset of the entry behind it
	kind byte
	name string
}

func getdents(t *testing.T, fd int, buf []byte) []dirent {
	t.Helper()
	n, err := unix.Getdents(fd, buf)
	if err != nil {
		t.Fatalf("getdents with a buffer of %d bytes: %v", len(buf), err)
	}
	var entries []dirent
	for b := buf[:n]; len(b) > 0; {
		size := binary.NativeEndian.Uint16(b[16:])
		name, _, _ := bytes.Cut(b[19:size], []byte{0})
		entries = append(entries, dirent{
			ino:  binary.NativeEndian.Uint64(b),
			next: int64(binary.NativeEndian.Uint64(b[8:])),
			kind: b[18],
			name: string(name),
		})
		b = b[size:]
	}
	return entries
}

func listing(t *testing.T, fd, bufSize int) []dirent {
	t.Helper()
	if _, err := unix.Seek(fd, 0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	var all []dirent
	buf := make([]byte, bufSize)
	for {
		some := getdents(t, fd, buf)
		if len(some) == 0 {
			return all
		}
		all = append(all, some...)
	}
}

func TestReaddir(t *testing.T) {
	testenv.Slow(t)
	tree := treeNamed(t, "wide")
	node := mustLookup(t, tree, "wide")
	want := []dirent{{ino: node.Ino(), kind: unix.DT_DIR, name: "."}, {ino: tree.Root().Ino(), kind: unix.DT_DIR, name: ".."}}
	for name, n := range node.Children() {
		want = append(want, dirent{ino: n.Ino(), kind: unix.DT_REG, name: name})
	}
	if len(want) != wideCount+2 {
		t.Fatalf("the tree has %d names, want %d", len(want), wideCount+2)
	}
	first := true
	forEachMode(t, func(t *testing.T, w who) {
		sizes := []int{288, 4096, 1 << 20}
		switch {
		case first:
			slices.Reverse(sizes)
		case w.Disk:
			t.Skip("passthrough is not for directories")
		case w.Disabled != 0:
			sizes = sizes[1:] // of the smallest, two are enough
		}
		first = false
		_, dir := serve(t, w, task{Tree: "wide"})
		for _, size := range sizes {
			t.Run(fmt.Sprintf("buffer %d", size), func(t *testing.T) {
				testReaddir(t, filepath.Join(dir, "wide"), size, want)
			})
		}
	})
}

// testReaddir reads a directory from its start, and from some entries.
func testReaddir(t *testing.T, dir string, bufSize int, want []dirent) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	first := listing(t, fd, bufSize)
	again := listing(t, fd, bufSize) // from the kernel's cache
	if !slices.Equal(first, again) {
		t.Errorf("the second listing is not like the first")
	}
	for i, g := range first {
		g.next = 0
		if i < len(want) && g != want[i] {
			t.Fatalf("entry %d is %+v, want %+v", i, g, want[i])
		}
	}
	if len(first) != len(want) {
		t.Fatalf("%d entries, want %d", len(first), len(want))
	}
	for _, i := range []int{0, 1, 2, 17, 49_990, 24_999, 3} {
		if _, err := unix.Seek(fd, first[i].next, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		got := getdents(t, fd, make([]byte, 288))
		if len(got) == 0 || got[0] != first[i+1] {
			t.Errorf("after seekdir behind entry %d: %+v, want %+v", i, got, first[i+1])
		}
	}
	if _, err := unix.Seek(fd, first[len(first)-1].next, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	if got := getdents(t, fd, make([]byte, 4096)); len(got) != 0 {
		t.Errorf("after seekdir to the end: %+v, want nothing", got)
	}
}

func TestReads(t *testing.T) { forEachMode(t, testReads) }

func testReads(t *testing.T, w who) {
	tree := treeNamed(t, "sample")
	_, dir := serve(t, w, task{Tree: "sample"})
	for _, name := range []string{"mega", "holes", "hole", "empty", "setuid"} {
		n := mustLookup(t, tree, name)
		f, err := os.Open(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		size := n.Attr().Size
		for _, at := range []struct{ off, n int64 }{
			{0, 1}, {1, 1}, {4095, 2}, {1<<20 - 3, 1<<20 + 9}, {101, 49}, {99, 60}, {sparse1 - 1, 3}, {sparse1 + 4990, 20},
			{1 << 32, 4096}, {size - 1, 1}, {size - 1, 100}, {size, 10}, {size + 1, 10}, {size + 1<<30, 10}, {1<<63 - 11, 10},
		} {
			if at.off < 0 {
				continue
			}
			compareReads(t, name, f, n, at.off, at.n)
		}
	}
}

func compareReads(t *testing.T, name string, f io.ReaderAt, n fs.Node, off, size int64) {
	t.Helper()
	got, want := make([]byte, size), make([]byte, size)
	gotN, gotErr := f.ReadAt(got, off)
	wantN := 0
	if off < n.Attr().Size {
		wantN, _ = readerAt{n}.ReadAt(want, off)
	}
	if gotN != wantN || !bytes.Equal(got, want) || (gotErr == nil) != (int64(wantN) == size) {
		t.Errorf("%s: reading %d bytes at %d: %d bytes, %v, want %d; equal: %v",
			name, size, off, gotN, gotErr, wantN, bytes.Equal(got, want))
	}
}

func TestReadersAtTheSameTime(t *testing.T) {
	testenv.Slow(t)
	forEachMode(t, testReadersAtTheSameTime)
}

func testReadersAtTheSameTime(t *testing.T, w who) {
	tree := treeNamed(t, "sample")
	_, dir := serve(t, w, task{Tree: "sample"})
	var readers sync.WaitGroup
	for i := range 8 {
		readers.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(i)))
			for range 50 {
				name := []string{"mega", "holes", "setuid", "etc/passwd"}[random.IntN(4)]
				n := mustLookup(t, tree, name)
				f, err := os.Open(filepath.Join(dir, name))
				if err != nil {
					t.Error(err)
					return
				}
				compareReads(t, name, f, n, random.Int64N(n.Attr().Size), random.Int64N(200_000))
				f.Close()
			}
		})
	}
	readers.Wait()
}

func TestMmap(t *testing.T) { forEachMode(t, testMmap) }

func testMmap(t *testing.T, w who) {
	_, dir := serve(t, w, task{Tree: "sample"})
	want, err := io.ReadAll(contentOf(mustLookup(t, treeNamed(t, "sample"), "mega")))
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(filepath.Join(dir, "mega"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got, err := unix.Mmap(int(f.Fd()), 0, len(want), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("the mapped file is not the file")
	}
	if err := unix.Munmap(got); err != nil {
		t.Error(err)
	}
}

func TestSeekDataAndHole(t *testing.T) { forEachMode(t, testSeekDataAndHole) }

func testSeekDataAndHole(t *testing.T, w who) {
	_, dir := serve(t, w, task{Tree: "sample"})
	f, err := os.Open(filepath.Join(dir, "holes"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, c := range []struct {
		whence    int
		off, want int64
	}{{unix.SEEK_DATA, 1000, 1000}, {unix.SEEK_HOLE, 1000, sparse}, {io.SeekEnd, -1, sparse - 1}} {
		if got, err := f.Seek(c.off, c.whence); got != c.want || err != nil {
			t.Errorf("lseek(%d, %d): %d, %v, want %d", c.off, c.whence, got, err, c.want)
		}
	}
}

func TestErrors(t *testing.T) {
	forEachMounter(t, func(t *testing.T, w who) {
		if w.uid != os.Getuid() {
			t.Skip("this process may not use the mount")
		}
		_, dir := serve(t, w, task{Tree: "sample"})
		at := func(name string) string { return filepath.Join(dir, name) }
		var st unix.Stat_t
		for _, c := range []struct {
			what string
			err  error
			want error
		}{
			{"stat of a missing name", unix.Stat(at("none"), &st), unix.ENOENT},
			{"stat of it again", unix.Stat(at("none"), &st), unix.ENOENT},
			{"stat through a file", unix.Stat(at("empty/x"), &st), unix.ENOTDIR},
			{"stat of a name of 256 bytes", unix.Stat(at(strings.Repeat("n", 256)), &st), unix.ENAMETOOLONG},
			{"stat of a dangling link", unix.Stat(at("dangling"), &st), unix.ENOENT},
			{"stat of a loop", unix.Stat(at("loop"), &st), unix.ELOOP},
			{"open read-write", openWith(at("empty"), unix.O_RDWR), unix.EROFS},
			{"open write-only", openWith(at("empty"), unix.O_WRONLY), unix.EROFS},
			{"create", openWith(at("new"), unix.O_CREAT|unix.O_WRONLY), unix.EROFS},
			{"truncate", unix.Truncate(at("mega"), 1), unix.EROFS},
			{"mkdir", unix.Mkdir(at("newdir"), 0o755), unix.EROFS},
			{"unlink", unix.Unlink(at("empty")), unix.EROFS},
			{"rmdir", unix.Rmdir(at("tmp")), unix.EROFS},
			{"rename", unix.Rename(at("empty"), at("new")), unix.EROFS},
			{"link", unix.Link(at("empty"), at("new")), unix.EROFS},
			{"symlink", unix.Symlink("x", at("new")), unix.EROFS},
			{"mknod", unix.Mknod(at("new"), unix.S_IFIFO|0o600, 0), unix.EROFS},
			{"chmod", unix.Chmod(at("empty"), 0o600), unix.EROFS},
			{"chown", unix.Chown(at("empty"), 1, 1), unix.EROFS},
			{"setxattr", unix.Setxattr(at("empty"), "user.x", []byte("y"), 0), unix.EROFS},
			{"removexattr", unix.Removexattr(at("caps"), "user.empty"), unix.EROFS},
			{"a missing xattr", getxattr(at("caps"), "user.none", 10), unix.ENODATA},
			{"a buffer too small for an xattr", getxattr(at("caps"), "user.binary", 10), unix.ERANGE},
			{"open of a device", openWith(at("null"), unix.O_RDONLY), unix.EACCES},
		} {
			if !errors.Is(c.err, c.want) {
				t.Errorf("%s: %v, want %v", c.what, c.err, c.want)
			}
		}
	})
}

func openWith(path string, flags int) error {
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0o644)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

func getxattr(path, name string, size int) error {
	_, err := unix.Getxattr(path, name, make([]byte, size))
	return err
}

func TestStatfs(t *testing.T) { forEachMode(t, testStatfs) }

func testStatfs(t *testing.T, w who) {
	tree := treeNamed(t, "sample")
	_, dir := serve(t, w, task{Tree: "sample"})
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	if st.Files != uint64(tree.Len()) || st.Ffree != 0 || st.Bfree != 0 || st.Bavail != 0 || st.Namelen != 255 {
		t.Errorf("statfs: %+v, want %d files, nothing free, names of 255", st, tree.Len())
	}
	// Most of it is in the sparse file.
	if size := int64(st.Blocks) * st.Bsize; size < sparse || size > sparse+64<<20 {
		t.Errorf("statfs: %d blocks of %d, want a little over %d bytes", st.Blocks, st.Bsize, int64(sparse))
	}
}
