//go:build linux

package fusefs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/fs"
)

// dropInodes has the kernel forget inodes that nobody uses, where it lets this process do so.
func dropInodes() { _ = os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0) }

// handleOf is the kernel's handle of an inode of a FUSE mount: its number, the upper half
// first, and the generation.
func handleOf(ino uint64) unix.FileHandle {
	var b [12]byte
	binary.NativeEndian.PutUint32(b[:], uint32(ino>>32))
	binary.NativeEndian.PutUint32(b[4:], uint32(ino))
	const inodeAndGeneration = 0x81 // FILEID_INO64_GEN
	return unix.NewFileHandle(inodeAndGeneration, b[:])
}

// opensByHandle opens an inode by a handle, and checks that it is the one.
func opensByHandle(t *testing.T, root int, handle unix.FileHandle, n fs.Node) *os.File {
	t.Helper()
	flags := unix.O_RDONLY | unix.O_CLOEXEC
	if n.Mode()&unix.S_IFMT != unix.S_IFREG && !isDir(n) {
		flags = unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC
	}
	fd, err := unix.OpenByHandleAt(root, handle, flags)
	if err != nil {
		t.Errorf("inode %d by its handle: %v", n.Ino(), err)
		return nil
	}
	f := os.NewFile(uintptr(fd), fmt.Sprint("inode ", n.Ino()))
	t.Cleanup(func() { f.Close() })
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Ino != n.Ino() || st.Mode != n.Mode() {
		t.Errorf("inode %d by its handle is inode %d of mode %o, %v; want mode %o", n.Ino(), st.Ino, st.Mode, err, n.Mode())
	}
	return f
}

// TestHandles opens inodes by handles that the kernel gave before it forgot them, that it has
// never seen, and after another server has come.
func TestHandles(t *testing.T) {
	needFUSE(t)
	needRoot(t)
	h := keep(t, who{}, task{Tree: "sample", Export: true})
	tree := treeNamed(t, "sample")
	root := int(mustOpen(t, h.dir, os.O_RDONLY).Fd())
	names := []string{"etc/passwd", "etc/deep/er", "closed/inside", "link", "mega", "etc"}
	given := map[string]unix.FileHandle{}
	for _, name := range names[:3] {
		handle, _, err := unix.NameToHandleAt(unix.AT_FDCWD, filepath.Join(h.dir, name), 0)
		if err != nil {
			t.Fatal(err)
		}
		given[name] = handle
	}
	check := func() {
		t.Helper()
		for _, name := range names {
			n := mustLookup(t, tree, name)
			handle, ok := given[name]
			if !ok {
				handle = handleOf(n.Ino())
			}
			f := opensByHandle(t, root, handle, n)
			if f == nil {
				continue
			}
			if isDir(n) {
				if path, err := os.Readlink(procFD(int(f.Fd()))); path != filepath.Join(h.dir, name) {
					t.Errorf("%s by its handle is at %q, %v", name, path, err)
				}
			} else if n.Mode()&unix.S_IFMT == unix.S_IFREG {
				compareAll(t, f, n)
			}
			f.Close()
		}
		for _, ino := range []uint64{0, uint64(tree.Len()) + 1, 1 << 40} {
			if fd, err := unix.OpenByHandleAt(root, handleOf(ino), unix.O_PATH); !errors.Is(err, unix.ESTALE) {
				t.Errorf("inode %d: descriptor %d, %v, want %v", ino, fd, err, unix.ESTALE)
			}
		}
	}
	dropInodes()
	check()
	h.kill()
	h.mustNext(9)
	dropInodes()
	check()
}

// TestLookupDots: an inode by "." and the directory that it is in by "..".
func TestLookupDots(t *testing.T) {
	tree := treeNamed(t, "sample")
	r := newRawFS(tree, &Options{})
	for _, c := range []struct {
		name, dots, want string
		status           fuse.Status
	}{
		{"etc/deep/er", ".", "etc/deep/er", fuse.OK}, {"etc/deep/er", "..", "etc/deep", fuse.OK}, {"etc", "..", ".", fuse.OK}, {".", "..", ".", fuse.OK},
		{".", ".", ".", fuse.OK}, {"mega", ".", "mega", fuse.OK}, {"link", ".", "link", fuse.OK}, {"mega", "..", "", fuse.ENOTDIR},
	} {
		var out fuse.EntryOut
		h := &fuse.InHeader{NodeId: mustLookup(t, tree, c.name).Ino()}
		status := r.Lookup(nil, h, c.dots, &out)
		want := uint64(0)
		if c.want != "" {
			want = mustLookup(t, tree, c.want).Ino()
		}
		if status != c.status || out.NodeId != want || out.Generation != 0 {
			t.Errorf("%q of %s: inode %d, %v, want %d, %v", c.dots, c.name, out.NodeId, status, want, c.status)
		}
	}
	if status := r.Lookup(nil, &fuse.InHeader{NodeId: uint64(tree.Len()) + 1}, ".", &fuse.EntryOut{}); status != fuse.Status(unix.ESTALE) {
		t.Errorf("no inode: %v", status)
	}
}

// TestSucceedsOlder: a server goes on with what an older version has announced less of.
func TestSucceedsOlder(t *testing.T) {
	needFUSE(t)
	h := keep(t, who{mode: mode{Disabled: fuse.CAP_EXPORT_SUPPORT | fuse.CAP_ALLOW_IDMAP}}, task{Tree: "sample", Engine: true, Export: true})
	h.k.Disabled = 0
	h.kill()
	h.mustNext(9)
	compareAll(t, mustOpen(t, filepath.Join(h.dir, "mega"), os.O_RDONLY), mustLookup(t, treeNamed(t, "sample"), "mega"))
}
