//go:build linux

package fusefs

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/testdata/testenv"
)

func openDir(t *testing.T, dir string) int {
	t.Helper()
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatalf("opening %s: %v", dir, err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// recordLen is how long the kernel's record of a name is: getdents(2).
func recordLen(name string) int { return (19 + len(name) + 1 + 7) &^ 7 }

// namesOf are the names in the root of a tree, as readdir has them.
func namesOf(t *testing.T, tree string) []string {
	names := []string{".", ".."}
	for name := range treeNamed(t, tree).Root().Children() {
		names = append(names, name)
	}
	return names
}

// TestReaddirOneByOne reads a directory with a buffer that has just the room
// for the next name, after one that is eight bytes too small for it.
func TestReaddirOneByOne(t *testing.T) { forEachMode(t, testReaddirOneByOne) }

func testReaddirOneByOne(t *testing.T, w who) {
	want := namesOf(t, "sample")
	_, dir := serve(t, w, task{Tree: "sample"})
	fd := openDir(t, dir)
	// First from the daemon, then from what the kernel keeps of it.
	for range 2 {
		if _, err := unix.Seek(fd, 0, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		for _, name := range want {
			size := recordLen(name)
			if n, err := unix.Getdents(fd, make([]byte, size-8)); !errors.Is(err, unix.EINVAL) {
				t.Fatalf("%q with room for %d bytes of %d: %d, %v, want %v", name, size-8, size, n, err, unix.EINVAL)
			}
			if got := getdents(t, fd, make([]byte, size)); len(got) != 1 || got[0].name != name {
				t.Fatalf("with room for %d bytes: %+v, want %q alone", size, got, name)
			}
		}
		if rest := getdents(t, fd, make([]byte, 4096)); len(rest) != 0 {
			t.Errorf("behind the last: %+v", rest)
		}
	}
}

// TestTelldir: a position is good for any descriptor, in any order, also of
// another mount of the tree.
func TestTelldir(t *testing.T) {
	testenv.Slow(t)
	forEachMode(t, testTelldir)
}

func testTelldir(t *testing.T, w who) {
	_, dir := serve(t, w, task{Tree: "sample"})
	entries := listing(t, openDir(t, dir), 4096)
	if want := namesOf(t, "sample"); len(entries) != len(want) {
		t.Fatalf("%d entries, want %d", len(entries), len(want))
	}
	w.mode = mode{KeepOpens: !w.KeepOpens}
	_, other := serve(t, w, task{Tree: "sample"})
	for _, d := range []string{dir, other} {
		fd := openDir(t, d)
		for i := len(entries) - 2; i >= 0; i -= 3 {
			if _, err := unix.Seek(fd, entries[i].next, io.SeekStart); err != nil {
				t.Fatal(err)
			}
			if at, err := unix.Seek(fd, 0, io.SeekCurrent); err != nil || at != entries[i].next {
				t.Errorf("telldir: %d, %v, want %d", at, err, entries[i].next)
			}
			var got []dirent
			for some := getdents(t, fd, make([]byte, 600)); len(some) > 0; some = getdents(t, fd, make([]byte, 600)) {
				got = append(got, some...)
			}
			if !slices.Equal(got, entries[i+1:]) {
				t.Errorf("from behind entry %d:\n%+v, want\n%+v", i, got, entries[i+1:])
			}
		}
	}
}

func lstat(t *testing.T, path string) (st unix.Stat_t) {
	t.Helper()
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return st
}

// TestDotDot: ".." leads up, in listings and in paths, and out of the mount at
// its root.
func TestDotDot(t *testing.T) { forEachMode(t, testDotDot) }

func testDotDot(t *testing.T, w who) {
	tree := treeNamed(t, "sample")
	_, dir := serve(t, w, task{Tree: "sample"})
	root := lstat(t, dir)
	for _, c := range []struct{ path, want string }{
		{"etc/..", "/"}, {"etc/deep/..", "etc"}, {"etc/deep/er/../..", "etc"}, {"etc/deep/er/../../..", "/"},
		{"tmp/../etc/deep/../passwd", "etc/passwd"}, {"etc/.", "etc"},
	} {
		if got := lstat(t, dir+"/"+c.path); got.Dev != root.Dev || got.Ino != mustLookup(t, tree, c.want).Ino() {
			t.Errorf("%s: inode %d of device %d, want that of %s", c.path, got.Ino, got.Dev, c.want)
		}
	}
	if up, want := lstat(t, dir+"/.."), lstat(t, filepath.Dir(dir)); up.Ino != want.Ino || up.Dev != want.Dev {
		t.Errorf("above the root: inode %d of device %d, want %d of %d", up.Ino, up.Dev, want.Ino, want.Dev)
	}
	fd := openDir(t, filepath.Join(dir, "etc/deep/er"))
	for range 2 {
		parent, err := unix.Openat(fd, "..", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(parent) })
		fd = parent
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Ino != mustLookup(t, tree, "etc").Ino() {
		t.Errorf("two up from etc/deep/er: inode %d, %v", st.Ino, err)
	}
	for name, above := range map[string]string{"": "/", "etc": "/", "etc/deep": "etc", "etc/deep/er": "etc/deep"} {
		list := listing(t, openDir(t, filepath.Join(dir, name)), 4096)
		self, up := mustLookup(t, tree, "/"+name).Ino(), mustLookup(t, tree, above).Ino()
		if list[0].name != "." || list[0].ino != self || list[1].name != ".." || list[1].ino != up {
			t.Errorf("%q begins with %+v, want inodes %d and %d", name, list[:2], self, up)
		}
	}
}

// TestSymlinks: those that lead nowhere, or round in circles, can be looked at.
func TestSymlinks(t *testing.T) { forEachMode(t, testSymlinks) }

func testSymlinks(t *testing.T, w who) {
	_, dir := serve(t, w, task{Tree: "sample"})
	for _, c := range []struct {
		name, target string
		follow       error
	}{
		{"dangling", "no/such/file", unix.ENOENT}, {"loop", "loop2", unix.ELOOP}, {"loop2", "loop", unix.ELOOP},
		{"far", strings.Repeat("x/", 2000) + "y", unix.ENOENT}, {"link", "etc/passwd", nil},
	} {
		p := filepath.Join(dir, c.name)
		if got, err := os.Readlink(p); got != c.target || err != nil {
			t.Errorf("readlink %s: %.50q, %v, want %.50q", c.name, got, err, c.target)
		}
		buf := make([]byte, 3) // readlink(2) cuts without a word
		if n, err := unix.Readlink(p, buf); n != 3 || string(buf) != c.target[:3] {
			t.Errorf("readlink %s into 3 bytes: %q, %v", c.name, buf, err)
		}
		if st := lstat(t, p); st.Size != int64(len(c.target)) || st.Nlink != 1 {
			t.Errorf("lstat %s: %d bytes, %d links, want %d bytes", c.name, st.Size, st.Nlink, len(c.target))
		}
		var st unix.Stat_t
		if err := unix.Stat(p, &st); !errors.Is(err, c.follow) {
			t.Errorf("stat %s: %v, want %v", c.name, err, c.follow)
		}
		if err := openWith(p, unix.O_RDONLY|unix.O_NOFOLLOW); !errors.Is(err, unix.ELOOP) {
			t.Errorf("open %s without following: %v, want %v", c.name, err, unix.ELOOP)
		}
	}
}

// TestInodeNumbers: names of one inode have one number, no two inodes the same,
// and readdir gives those that stat does.
func TestInodeNumbers(t *testing.T) { forEachMode(t, testInodeNumbers) }

func testInodeNumbers(t *testing.T, w who) {
	tree := treeNamed(t, "sample")
	_, dir := serve(t, w, task{Tree: "sample"})
	seen := map[uint64]string{}
	for _, sub := range []string{"", "etc"} {
		for _, e := range listing(t, openDir(t, filepath.Join(dir, sub)), 4096)[2:] {
			p := filepath.Join(sub, e.name)
			st, n := lstat(t, filepath.Join(dir, p)), mustLookup(t, tree, p)
			if st.Ino != e.ino || st.Ino != n.Ino() || uint32(st.Nlink) != n.Attr().Nlink || uint32(e.kind)<<12 != st.Mode&unix.S_IFMT {
				t.Errorf("%s: inode %d of type %d in the listing, %d of mode %o with %d links by stat", p, e.ino, e.kind, st.Ino, st.Mode, st.Nlink)
			}
			if other, ok := seen[st.Ino]; ok && other+" "+p != "etc/passwd etc/passwd-" {
				t.Errorf("%s and %s have the inode number %d", other, p, st.Ino)
			}
			seen[st.Ino] = p
		}
	}
	if len(seen) < 20 {
		t.Errorf("%d inodes, want those of the sample", len(seen))
	}
}
