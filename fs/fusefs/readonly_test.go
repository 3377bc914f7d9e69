//go:build linux

package fusefs

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/testdata/testenv"
)

// A change is a way to change a tree that the kernel has.
type change struct {
	what string
	do   func() error
}

// changes are all of them, as the sample has something to change.
func changes(dir string) []change {
	at := func(name string) string { return filepath.Join(dir, name) }
	open := func(name string, flags int) func() error { return func() error { return openWith(at(name), flags) } }
	times := []unix.Timespec{{Sec: 1}, {Sec: 2}}
	const here = unix.AT_FDCWD
	return []change{
		{"open read-write", open("mega", unix.O_RDWR)},
		{"open write-only", open("mega", unix.O_WRONLY)},
		{"open to append", open("mega", unix.O_WRONLY|unix.O_APPEND)},
		{"open read-write, truncated", open("mega", unix.O_RDWR|unix.O_TRUNC)},
		{"open read-only, truncated", open("mega", unix.O_RDONLY|unix.O_TRUNC)},
		{"create", open("newfile", unix.O_CREAT|unix.O_RDWR)},
		{"create exclusively", open("etc/newfile", unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY)},
		{"open without a name", open("tmp", unix.O_TMPFILE|unix.O_RDWR)},
		{"truncate", func() error { return unix.Truncate(at("mega"), 1) }},
		{"mkdir", func() error { return unix.Mkdir(at("etc/newdir"), 0o755) }},
		{"unlink", func() error { return unix.Unlink(at("mega")) }},
		{"rmdir", func() error { return unix.Rmdir(at("tmp")) }},
		{"rename", func() error { return unix.Rename(at("mega"), at("newfile")) }},
		{"rename over another", func() error { return unix.Rename(at("mega"), at("setuid")) }},
		{"exchange", func() error { return unix.Renameat2(here, at("mega"), here, at("setuid"), unix.RENAME_EXCHANGE) }},
		{"link", func() error { return unix.Link(at("mega"), at("newfile")) }},
		{"symlink", func() error { return unix.Symlink("x", at("newfile")) }},
		{"mknod of a fifo", func() error { return unix.Mknod(at("newfile"), unix.S_IFIFO|0o600, 0) }},
		{"mknod of a file", func() error { return unix.Mknod(at("newfile"), unix.S_IFREG|0o600, 0) }},
		{"chmod", func() error { return unix.Chmod(at("mega"), 0o600) }},
		{"chown of a symlink", func() error { return unix.Lchown(at("link"), 1, 1) }},
		{"setxattr", func() error { return unix.Setxattr(at("mega"), "user.x", []byte("y"), 0) }},
		{"removexattr", func() error { return unix.Removexattr(at("caps"), "user.empty") }},
		{"utimes", func() error { return unix.UtimesNanoAt(here, at("mega"), times, 0) }},
		{"utimes of a symlink", func() error { return unix.UtimesNanoAt(here, at("link"), times, unix.AT_SYMLINK_NOFOLLOW) }},
	}
}

// TestReadOnly: whatever would change the tree is EROFS, and nothing is changed.
func TestReadOnly(t *testing.T) {
	forEachMounter(t, func(t *testing.T, w who) {
		if w.uid != os.Getuid() {
			t.Skip("this process may not use the mount")
		}
		_, dir := serve(t, w, task{Tree: "sample"})
		before := dumpOfMount(t, dir, w.uid)
		for _, c := range changes(dir) {
			if err := c.do(); !errors.Is(err, unix.EROFS) {
				t.Errorf("%s: %v, want %v", c.what, err, unix.EROFS)
			}
		}
		if err := unix.Access(filepath.Join(dir, "mega"), unix.W_OK); !errors.Is(err, unix.EROFS) {
			t.Errorf("access to write: %v, want %v", err, unix.EROFS)
		}
		compareDumps(t, dumpOfMount(t, dir, w.uid), before)
	})
}

// TestReadOnlyThoughRemounted: so it is when root has remounted the tree
// read-write, and the kernel lets all through to the daemon.
func TestReadOnlyThoughRemounted(t *testing.T) {
	testenv.Slow(t)
	needRoot(t)
	needFUSE(t)
	forEachMode(t, func(t *testing.T, w who) {
		_, dir := serve(t, w, task{Tree: "sample"})
		before := dumpOfMount(t, dir, 0)
		if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_NOSUID|unix.MS_NODEV, ""); err != nil {
			t.Skipf("this kernel does not remount: %v", err)
		}
		var st unix.Statfs_t
		if err := unix.Statfs(dir, &st); err != nil || st.Flags&unix.ST_RDONLY != 0 {
			t.Fatalf("the mount is not read-write: flags %#x, %v", st.Flags, err)
		}
		for _, c := range changes(dir) {
			err := c.do()
			if err == nil && w.opensAreFree() && strings.HasPrefix(c.what, "open ") {
				err = writeTo(filepath.Join(dir, "mega")) // the kernel no longer asks about opens
			}
			if !errors.Is(err, unix.EROFS) {
				t.Errorf("%s: %v, want %v", c.what, err, unix.EROFS)
			}
		}
		compareDumps(t, dumpOfMount(t, dir, 0), before)
	})
}

// writeTo writes to a file, and says what came of it.
func writeTo(name string) error {
	fd, err := unix.Open(name, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	_, err = unix.Pwrite(fd, []byte("changed"), 5)
	return errors.Join(err, unix.Close(fd))
}

// TestOthersAreKeptOut: without AllowOther nobody gets in but who mounted.
func TestOthersAreKeptOut(t *testing.T) {
	needRoot(t)
	for _, w := range mounters(t) {
		other := nobody
		if w.uid == nobody {
			other = 1
		}
		_, dir := serve(t, w, task{Tree: "sample"})
		c := start(t, other, task{Role: "read", Dir: filepath.Join(dir, "etc/passwd")})
		c.next() // its thread
		if got, want := c.next(), "error: permission denied"; got != want {
			t.Errorf("mounted by %s, read by user %d: %s, want %s", w.name, other, got, want)
		}
		_ = c.cmd.Wait()
	}
}
