//go:build linux

package treecopy

import (
	"context"
	"errors"
	iofs "io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/fs"
	l "github.com/imgfs/imgfs/fs/internal/layertest"
	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/testdata/testenv"
	"golang.org/x/sys/unix"
)

// TestAttributes: what cp -a keeps, and what is left without it.
func TestAttributes(t *testing.T) {
	tree := membersTree(t,
		l.Dir("d", l.Mode(0o2550), l.Owner(11, 12), l.MTime(5, 6)), l.File("d/f", "text", l.Mode(0o4711), l.Owner(21, 22), l.MTime(-7, 8), l.Xattr("user.a", "b\x00")),
		l.Link("d/g", "d/f", l.Mode(0o4711), l.Owner(21, 22), l.MTime(-7, 8), l.Xattr("user.a", "b\x00")), l.Symlink("d/s", "../../x", l.Owner(31, 32), l.MTime(9, 10)), l.Fifo("d/p", l.Mode(0o604), l.MTime(11, 12)),
		l.Device(layerindex.TypeChar, "d/c", 1, 3, l.Mode(0o606), l.MTime(13, 0)), l.Sparse("d/h", 1<<30, "ab", []layerindex.Extent{{Off: 1 << 20, Size: 2}}))
	old := unix.Umask(0o027)
	defer unix.Umask(old)
	for _, named := range []bool{false, true} {
		t.Run(map[bool]string{false: "without a name", true: "with a name"}[named], func(t *testing.T) {
			c := newCopyTest(t)
			c.needRoot()
			n, _ := tree.Lookup("/d", false)
			copier := New(&everything)
			copier.named = named
			if err := copier.Copy(t.Context(), tree, "/d", n, c.dir, "d"); err != nil {
				t.Fatal(err)
			}
			for name, want := range map[string]unix.Stat_t{
				"d":   {Mode: 0o042550, Uid: 11, Gid: 12, Mtim: unix.Timespec{Sec: 5, Nsec: 6}},
				"d/f": {Mode: 0o104711, Uid: 21, Gid: 22, Mtim: unix.Timespec{Sec: -7, Nsec: 8}},
				"d/g": {Mode: 0o104711, Uid: 21, Gid: 22, Mtim: unix.Timespec{Sec: -7, Nsec: 8}},
				"d/s": {Mode: 0o120777, Uid: 31, Gid: 32, Mtim: unix.Timespec{Sec: 9, Nsec: 10}},
				"d/p": {Mode: 0o010604, Mtim: unix.Timespec{Sec: 11, Nsec: 12}},
				"d/c": {Mode: 0o020606, Mtim: unix.Timespec{Sec: 13}, Rdev: unix.Mkdev(1, 3)},
			} {
				got := c.stat(name)
				if got.Mode != want.Mode || got.Uid != want.Uid || got.Gid != want.Gid || got.Mtim != want.Mtim || got.Rdev != want.Rdev {
					t.Errorf("%s: got mode %o owner %d:%d time %v device %x, want %o %d:%d %v %x", name, got.Mode, got.Uid, got.Gid, got.Mtim, got.Rdev, want.Mode, want.Uid, want.Gid, want.Mtim, want.Rdev)
				}
			}
			if f, g := c.stat("d/f"), c.stat("d/g"); f.Ino != g.Ino || f.Nlink != 2 {
				t.Errorf("f and g are inodes %d and %d of %d links", f.Ino, g.Ino, f.Nlink)
			}
			if h := c.stat("d/h"); h.Size != 1<<30 || h.Blocks > 64 {
				t.Errorf("the sparse file has %d bytes, %d blocks", h.Size, h.Blocks)
			}
			buf := make([]byte, 10)
			if k, err := unix.Getxattr(filepath.Join(c.path, "d/f"), "user.a", buf); err == nil && string(buf[:k]) != "b\x00" {
				t.Errorf("the xattr is %q", buf[:k])
			} else if err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
				t.Error(err)
			}
			if got := c.names(); got != "d" {
				t.Errorf("left behind: %s", got)
			}
		})
	}
	mask := uint32(0o027)
	for _, opts := range []Options{{}, {Umask: &mask}} {
		testNoAttributes(t, tree, opts)
		unix.Umask(0o077) // as imgfs has it, where the option holds
	}
}

func testNoAttributes(t *testing.T, tree *fs.Tree, opts Options) {
	c := newCopyTest(t)
	if err := c.copy(tree, "/d", "d", opts); err != nil {
		t.Fatal(err)
	}
	c.Cleanup(func() { _ = os.Chmod(c.path+"/d", 0o700) }) // or nobody but root can remove it
	uid := uint32(os.Geteuid())
	for name, mode := range map[string]uint32{"d": 0o040550, "d/f": 0o100710, "d/g": 0o100710, "d/s": 0o120777, "d/p": 0o010600} {
		if st := c.stat(name); st.Mode&^0o2000 != mode || st.Uid != uid || st.Nlink > 2 {
			t.Errorf("%s without attributes: got mode %o, owner %d, want %o, %d", name, st.Mode, st.Uid, mode, uid)
		}
	}
	if c.stat("d/f").Ino == c.stat("d/g").Ino {
		t.Error("without HardLinks f and g are one inode")
	}
	if want := "/d/c: " + ErrDevice.Error(); strings.Join(c.failed, "|") != want {
		t.Errorf("got the errors %q, want %q", c.failed, want)
	}
}

// TestSticky: where the owner cannot be set, a directory keeps the sticky bit, so that what
// is in /tmp can be removed by its owner alone; all else loses it, with setuid and setgid.
func TestSticky(t *testing.T) {
	tree := membersTree(t, l.Dir("tmp", l.Mode(0o1777), l.Owner(1, 1)), l.Dir("all", l.Mode(0o7755), l.Owner(1, 1)), l.File("file", "", l.Mode(0o7755), l.Owner(1, 1)))
	c := newCopyTest(t)
	if err := os.Chmod(c.path, 0o777); err != nil {
		t.Fatal(err)
	}
	leave := asNobody(t)
	err := c.copy(tree, "/", ".", everything)
	leave()
	if err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]uint32{"tmp": 0o041777, "all": 0o041755, "file": 0o100755} {
		if got := c.stat(name).Mode; got != mode {
			t.Errorf("%s: got mode %o, want %o", name, got, mode)
		}
	}
}

// asNobody has the goroutine, if it is root's, make files as another user until leave is
// called. It has to end in its thread.
func asNobody(t *testing.T) (leave func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		return func() {}
	}
	runtime.LockOSThread()
	_ = unix.Setfsgid(65534)
	if err := unix.Setfsuid(65534); err != nil {
		t.Fatal(err)
	}
	return func() {
		_ = unix.Setfsuid(0)
		_ = unix.Setfsgid(0)
		runtime.UnlockOSThread()
	}
}

// TestExisting: what is there is merged with, replaced, refused or kept.
func TestExisting(t *testing.T) {
	tree := membersTree(t, l.File("d/a", "new a"), l.File("d/sub/b", "new b"), l.Symlink("d/link", "x"), l.File("d/file", "new file"))
	setUp := func(t *testing.T) *copyTest {
		c := newCopyTest(t)
		outside := t.TempDir()
		for _, err := range []error{
			os.Mkdir(c.path+"/d", 0o755), os.WriteFile(c.path+"/d/a", []byte("old a"), 0o600), os.WriteFile(c.path+"/d/other", nil, 0o600),
			os.Symlink(outside, c.path+"/d/sub"), os.WriteFile(c.path+"/d/link", []byte("old"), 0o600),
			os.WriteFile(outside+"/target", []byte("outside"), 0o600), os.Symlink(outside+"/target", c.path+"/d/file"),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
		t.Cleanup(func() {
			if got, err := os.ReadFile(outside + "/target"); string(got) != "outside" || err != nil {
				t.Errorf("what a link leads to is %q, error %v", got, err)
			}
			if entries, err := os.ReadDir(outside); len(entries) != 1 || err != nil {
				t.Errorf("%d files outside, error %v", len(entries), err)
			}
		})
		return c
	}
	t.Run("replaced", func(t *testing.T) {
		c := setUp(t)
		if err := c.copy(tree, "/d", "d", Options{}); err != nil {
			t.Fatal(err)
		}
		c.want("d/a", "new a")
		c.want("d/other", "")
		c.want("d/file", "new file")
		if st := c.stat("d/file"); st.Mode&unix.S_IFMT != unix.S_IFREG {
			t.Errorf("d/file has mode %o", st.Mode)
		}
		if to, err := os.Readlink(c.path + "/d/link"); to != "x" || err != nil {
			t.Errorf("d/link is %s, error %v", to, err)
		}
		if want := "DEST/d/sub: " + ErrNotDirectory.Error(); strings.Join(c.failed, "|") != want {
			t.Errorf("got the errors %q, want %q", c.failed, want)
		}
	})
	t.Run("kept", func(t *testing.T) {
		c := setUp(t)
		if err := c.copy(tree, "/d", "d", Options{KeepExisting: true}); err != nil {
			t.Fatal(err)
		}
		c.want("d/a", "old a")
		c.want("d/link", "old")
		c.want("d/file", "outside")
	})
	t.Run("a directory in the way", func(t *testing.T) {
		c := newCopyTest(t)
		if err := os.MkdirAll(c.path+"/d/a", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := c.copy(tree, "/d", "d", Options{}); err != nil {
			t.Fatal(err)
		}
		if want := "DEST/d/a: " + ErrDirectory.Error(); strings.Join(c.failed, "|") != want {
			t.Errorf("got the errors %q, want %q", c.failed, want)
		}
		if got := c.names(); got != "d" {
			t.Errorf("left behind: %s", got)
		}
	})
	t.Run("what is in a directory", func(t *testing.T) {
		c := newCopyTest(t)
		if err := c.copy(tree, "/d", ".", Options{}); err != nil || c.names() != "a file link sub" {
			t.Errorf("got %s, error %v", c.names(), err)
		}
	})
}

// TestLinksAgain: hard links over several calls, onto themselves, and where the first
// copy is gone.
func TestLinksAgain(t *testing.T) {
	tree := membersTree(t, l.File("a", "text"), l.Link("d/b", "a"), l.Link("d/e/c", "a"))
	c := newCopyTest(t)
	copier := New(&Options{HardLinks: true})
	again := func(from, name string) {
		t.Helper()
		n, _ := tree.Lookup(from, false)
		if err := copier.Copy(t.Context(), tree, from, n, c.dir, name); err != nil {
			t.Fatal(err)
		}
	}
	again("/a", "a")
	again("/d", "d")
	if st := c.stat("a"); st.Nlink != 3 || st.Ino != c.stat("d/e/c").Ino {
		t.Errorf("%d links", st.Nlink)
	}
	copier.taken = map[target]bool{}
	again("/d", "d")
	if st := c.stat("a"); st.Nlink != 3 || c.names() != "a d" {
		t.Errorf("copied again: %d links; %s", st.Nlink, c.names())
	}
	if err := errors.Join(os.Remove(c.path+"/a"), os.WriteFile(c.path+"/a", []byte("another's"), 0o600)); err != nil {
		t.Fatal(err)
	}
	again("/d/b", "z")
	c.want("z", "text")
	n, _ := tree.Lookup("/a", false)
	if err := copier.Copy(t.Context(), tree, "/a", n, c.dir, "z"); !errors.Is(err, ErrTwice) {
		t.Errorf("a second source of one name: got the error %v", err)
	}
}

// TestDereference: links within the image are followed, in circles they are not.
func TestDereference(t *testing.T) {
	tree := membersTree(t, l.File("etc/f", "text"), l.Symlink("d/abs", "/etc/f"), l.Symlink("d/up", ".."), l.Symlink("d/self", "self"), l.Symlink("d/out", "../../../etc"), l.Symlink("d/gone", "no"))
	c := newCopyTest(t)
	if err := c.copy(tree, "/d", "d", Options{Dereference: true}); err != nil {
		t.Fatal(err)
	}
	c.want("d/abs", "text")
	c.want("d/out/f", "text")
	all := strings.Join(c.failed, "|")
	for _, want := range []string{"/d/up/d: " + ErrCycle.Error(), "d/self: the symlink /d/self: too many levels of symbolic links", "d/gone: the symlink /d/gone: no such file or directory"} {
		if !strings.Contains(all, want) {
			t.Errorf("no error %q in\n%s", want, strings.Join(c.failed, "\n"))
		}
	}
}

// TestEnds: of a copy that ends early nothing is there that is not whole.
func TestEnds(t *testing.T) {
	big := strings.Repeat("0123456789abcdef", 1<<18) // 4 MiB
	t.Run("interrupted", func(t *testing.T) {
		for _, named := range []bool{false, true} {
			tree := membersTree(t, l.File("d/a", "a"), l.File("d/b", big), l.File("d/c", "c"))
			c := newCopyTest(t)
			ctx, cancel := context.WithCancel(t.Context())
			copier := New(&Options{Attributes: true, Progress: func(n int64) {
				if n > 1 {
					cancel()
				}
			}})
			copier.named = named
			n, _ := tree.Lookup("/d", false)
			if err := copier.Copy(ctx, tree, "/d", n, c.dir, "d"); !errors.Is(err, context.Canceled) {
				t.Errorf("got the error %v", err)
			}
			c.path += "/d"
			if got := c.names(); got != "a" {
				t.Errorf("there is %s, want a alone", got)
			}
			if st := c.stat("."); st.Mode&0o777 != 0o755 {
				t.Errorf("the directory has mode %o", st.Mode)
			}
		}
	})
	t.Run("a full disk", func(t *testing.T) {
		c := newCopyTest(t)
		testenv.SmallDisk(t, c.path, 1<<20)
		c.open()
		defer c.dir.Close()
		err := c.copy(membersTree(t, l.File("a", "a"), l.File("b", big), l.File("c", "c")), "/", ".", Options{})
		var failed *Error
		if !errors.As(err, &failed) || failed.To != c.path+"/b" || !errors.Is(err, unix.ENOSPC) || len(c.failed) > 0 {
			t.Errorf("got the error %v, and %q", err, c.failed)
		}
		if got := c.names(); got != "a" {
			t.Errorf("there is %s, want a alone", got)
		}
	})
	t.Run("the directory is removed", func(t *testing.T) {
		tree := membersTree(t, l.File("d/a", "a"), l.File("d/b", "b"), l.Symlink("d/c", "c"), l.Dir("d/d"))
		for _, after := range []string{"a", "b"} {
			c := newCopyTest(t)
			var told []error
			copied := ""
			n, _ := tree.Lookup("/d", false)
			err := New(&Options{
				Failed: func(err error) { told = append(told, err) },
				Progress: func(int64) {
					if copied += "ab"[len(copied) : len(copied)+1]; copied[len(copied)-1:] == after {
						_ = os.RemoveAll(c.path + "/d")
					}
				},
			}).Copy(t.Context(), tree, "/d", n, c.dir, "d")
			var failed *Error
			if !errors.As(err, &failed) || failed.To != c.path+"/d" || !errors.Is(err, ErrRemoved) || len(told) > 0 {
				t.Errorf("after %s: got the error %v, and %v", after, err, told)
			}
		}
	})
	t.Run("a layer that is broken", func(t *testing.T) {
		c := newCopyTest(t)
		err := c.copy(brokenTree(t), "/", ".", Options{})
		var failed *Error
		if !errors.As(err, &failed) || !failed.Reading || failed.From != "/b" || !errors.Is(err, errRead) {
			t.Errorf("got the error %v", err)
		}
		if got := c.names(); got != "a" {
			t.Errorf("there is %s, want a alone", got)
		}
	})
}

// TestNoWindow: what only its owner may read is never open to others, and setuid comes
// last.
func TestNoWindow(t *testing.T) {
	tree := membersTree(t, l.Dir("d", l.Mode(0o700)), l.File("d/f", strings.Repeat("x", 3<<20), l.Mode(0o4600), l.Owner(1000, 1000)))
	for _, opts := range []Options{{}, everything} {
		c := newCopyTest(t)
		c.needRoot()
		seen := 0
		opts.Progress = func(int64) {
			seen++
			_ = filepath.WalkDir(c.path+"/d", func(p string, e iofs.DirEntry, err error) error {
				if info, err := e.Info(); err == nil && (info.Mode().Perm()&0o077 != 0 || info.Mode()&iofs.ModeSetuid != 0) {
					t.Errorf("%s has mode %v", p, info.Mode())
				}
				return err
			})
		}
		n, _ := tree.Lookup("/d", false)
		copier := New(&opts)
		copier.named = true
		if err := copier.Copy(t.Context(), tree, "/d", n, c.dir, "d"); err != nil || seen < 3 {
			t.Errorf("looked %d times, error %v", seen, err)
		}
	}
}
