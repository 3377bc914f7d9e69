//go:build linux

package fusefs

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/fs"
)

// needOverlay skips a test where this process cannot mount overlays, and returns a directory
// for what is written to them.
func needOverlay(t *testing.T) (dir string) {
	t.Helper()
	needFUSE(t)
	needRoot(t)
	dir, err := os.MkdirTemp("", "imgfs-overlay")
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("imgfs-test", dir, "tmpfs", 0, ""); err != nil {
		os.Remove(dir)
		t.Skipf("no tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := errors.Join(unix.Unmount(dir, 0), os.Remove(dir)); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// overlay mounts an overlayfs on a directory below dir, and returns that. Below dir is also
// what is written; done unmounts it.
func overlay(t *testing.T, lower, dir, name, options string) (view string, done func(), err error) {
	t.Helper()
	below := mustOpen(t, lower, unix.O_PATH) // its name may need quotes
	view = filepath.Join(dir, name)
	upper, work := view+".upper", view+".work"
	for _, d := range []string{view, upper, work} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	err = unix.Mount("imgfs-test", view, "overlay", 0,
		fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s,index=off%s", procFD(int(below.Fd())), upper, work, options))
	below.Close()
	return view, func() {
		if err := unix.Unmount(view, 0); err != nil {
			t.Errorf("unmounting the overlay: %v", err)
			_ = unix.Unmount(view, unix.MNT_DETACH)
		}
	}, err
}

func mustOverlay(t *testing.T, lower, dir, name, options string) (view string, done func()) {
	t.Helper()
	view, done, err := overlay(t, lower, dir, name, options)
	if err != nil {
		t.Fatalf("an overlay on %s: %v", lower, err)
	}
	return view, done
}

// TestOverlayKeepsFiles: what an overlay has copied up is there also when the kernel has
// forgotten it, and has it looked at again: with handles it is not (Options.Export).
func TestOverlayKeepsFiles(t *testing.T) {
	scratch := needOverlay(t)
	h := keep(t, who{}, task{Tree: "sample", Engine: true})
	view, done := mustOverlay(t, h.dir, scratch, "view", "")
	names := []string{"closed/inside", "mega", "caps", "setuid"}
	for _, name := range names {
		if err := os.Chmod(filepath.Join(view, name), 0o600); err != nil {
			t.Errorf("chmod of %s: %v", name, err)
		}
	}
	same := func(when string) {
		t.Helper()
		for range 3 {
			for _, name := range names {
				if st, err := os.Lstat(filepath.Join(view, name)); err != nil || st.Mode().Perm() != 0o600 {
					t.Errorf("%s: %s is %v, %v", when, name, st, err)
				}
			}
			compareAll(t, mustClose(t, filepath.Join(view, "mega")), mustLookup(t, treeNamed(t, "sample"), "mega"))
		}
	}
	same("copied up")
	dropInodes()
	same("forgotten")
	done()
	dropInodes()
	view, done = mustOverlay(t, h.dir, scratch, "view", "")
	same("mounted again")
	done()
	h.kill()
	h.mustNext(9)
	dropInodes()
	view, done = mustOverlay(t, h.dir, scratch, "view", "")
	same("served again")
	done()
}

// A closedFile reads a file that it opens for each read: nothing of it stays open.
type closedFile string

func (c closedFile) ReadAt(p []byte, off int64) (int, error) {
	f, err := os.Open(string(c))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return f.ReadAt(p, off)
}

func mustClose(t *testing.T, name string) closedFile {
	t.Helper()
	if _, err := os.Stat(name); err != nil {
		t.Fatal(err)
	}
	return closedFile(name)
}

// TestOverlayOnOverlay: an engine within a container of an engine puts an overlay on one,
// which passthrough would not let it do, and which a mount for an engine has not unless it is
// asked for.
func TestOverlayOnOverlay(t *testing.T) {
	scratch := needOverlay(t)
	tree := treeNamed(t, "program")
	for _, c := range []struct {
		name        string
		passthrough Choice
		works       bool
	}{{"auto", Auto, true}, {"off", Off, true}, {"on", On, false}} {
		t.Run(c.name, func(t *testing.T) {
			if c.passthrough == On {
				needPassthrough(t)
			}
			_, dir := serve(t, who{mode: mode{Passthrough: c.passthrough, Disk: true}}, task{Tree: "program", Engine: true})
			outer, done := mustOverlay(t, dir, scratch, c.name+"-outer", ",metacopy=on")
			defer done()
			inner, done, err := overlay(t, outer, scratch, c.name+"-inner", "")
			if err != nil {
				if c.works || !errors.Is(err, unix.EINVAL) {
					t.Errorf("an overlay on an overlay: %v", err)
				}
				return
			}
			defer done()
			if !c.works {
				t.Error("an overlay on an overlay on a mount with passthrough works: it need not be off")
			}
			compareOnce(t, filepath.Join(inner, "program"), mustLookup(t, tree, "program"))
			if err := os.Chmod(filepath.Join(inner, "program"), 0o700); err != nil {
				t.Error(err)
			}
			compareOnce(t, filepath.Join(inner, "program"), mustLookup(t, tree, "program"))
		})
	}
}

func compareOnce(t *testing.T, path string, n fs.Node) {
	t.Helper()
	compareReads(t, path, closedFile(path), n, 0, n.Attr().Size)
}

// TestIdmapped: a copy of a mount for an engine shows shifted owners, and reads work there.
func TestIdmapped(t *testing.T) {
	needFUSE(t)
	needRoot(t)
	const base, count = 100_000, 65_536
	space := exec.Command("sleep", "600")
	space.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, Pdeathsig: syscall.SIGKILL,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: base, Size: count}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: base, Size: count}}}
	if err := space.Start(); err != nil {
		t.Skipf("no user namespace: %v", err)
	}
	defer func() {
		_ = space.Process.Kill()
		_ = space.Wait()
	}()
	users := mustOpen(t, fmt.Sprintf("/proc/%d/ns/user", space.Process.Pid), os.O_RDONLY)
	shifted := func(dir string) (copied *os.File, err error) {
		fd, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
		if err != nil {
			t.Skipf("open_tree: %v", err)
		}
		copied = os.NewFile(uintptr(fd), "copy")
		t.Cleanup(func() { copied.Close() })
		return copied, unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(users.Fd())})
	}
	_, plain := serve(t, who{}, task{Tree: "sample"})
	if _, err := shifted(plain); !errors.Is(err, unix.EINVAL) {
		t.Errorf("of a mount that is not for an engine: %v, want %v", err, unix.EINVAL)
	}
	h := keep(t, who{}, task{Tree: "sample", Engine: true, Control: true, AllowOther: true})
	copied, err := shifted(h.dir)
	if err != nil {
		if kernelBefore(6, 12) {
			t.Skipf("mount_setattr: %v", err)
		}
		t.Fatalf("mount_setattr: %v", err)
	}
	tree := treeNamed(t, "sample")
	at := func(name string) string { return filepath.Join(procFD(int(copied.Fd())), name) }
	check := func() {
		t.Helper()
		for name, want := range map[string][2]uint32{"etc/passwd": {base, base}, "private": {base + nobody, base + 7}, "secret": {65534, 65534}} {
			var st unix.Stat_t
			if err := unix.Lstat(at(name), &st); err != nil || st.Uid != want[0] || st.Gid != want[1] {
				t.Errorf("%s belongs to %d:%d, %v, want %d", name, st.Uid, st.Gid, err, want)
			}
			if err := unix.Lstat(filepath.Join(h.dir, name), &st); err != nil || st.Uid != mustLookup(t, tree, name).Attr().UID {
				t.Errorf("where it is not shifted %s belongs to %d, %v", name, st.Uid, err)
			}
		}
		for _, name := range []string{"etc/passwd", "mega"} {
			compareOnce(t, at(name), mustLookup(t, tree, name))
		}
		names, err := os.ReadDir(at("etc"))
		if want := mustLookup(t, tree, "etc").NumChildren(); err != nil || len(names) != want {
			t.Errorf("etc has %d names, %v, want %d", len(names), err, want)
		}
		// As its owner, who is not root outside.
		for uid, want := range map[int]bool{base + nobody: true, base + 1: false} {
			cmd := exec.Command("cat", "/proc/self/fd/3/private")
			cmd.ExtraFiles = []*os.File{copied}
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
			out, err := cmd.CombinedOutput()
			if (err == nil) != want || !want && !strings.Contains(string(out), "Permission denied") {
				t.Errorf("user %d reads a file of %d: %q, %v", uid, base+nobody, out, err)
			}
		}
		if got := xattrOf(t, h.dir, ownPrefix+"size-1"); len(got) != 1 {
			t.Errorf("the mount says %q of itself", got)
		}
	}
	check()
	h.kill()
	h.mustNext(9)
	dropInodes()
	check()
}

// kernelBefore reports whether the kernel is older than a version.
func kernelBefore(major, minor int) bool {
	var a, b int
	_, err := fmt.Sscanf(kernelRelease(), "%d.%d", &a, &b)
	return err == nil && (a < major || a == major && b < minor)
}

// TestOverlayNumbers: the inode number of a file that is copied up stays until the kernel
// forgets it, or the overlay is mounted again. It is another one then, which stays. With
// metacopy=on files keep their numbers of which only attributes were changed; all others are
// as without.
func TestOverlayNumbers(t *testing.T) {
	scratch := needOverlay(t)
	h := keep(t, who{}, task{Tree: "sample", Engine: true})
	for i, options := range []string{"", ",xino=on", ",redirect_dir=on", ",metacopy=on"} {
		name := fmt.Sprint("view", i)
		view, done := mustOverlay(t, h.dir, scratch, name, options)
		changed, written, left := filepath.Join(view, "closed/inside"), filepath.Join(view, "setuid"), filepath.Join(view, "mega")
		numbers := func() (all [3]uint64) {
			t.Helper()
			for i, name := range []string{changed, written, left} {
				var st unix.Stat_t
				if err := unix.Lstat(name, &st); err != nil {
					t.Errorf("%s: %v", options, err)
				}
				all[i] = st.Ino
			}
			return all
		}
		before := numbers()
		f, err := os.OpenFile(written, os.O_WRONLY|os.O_APPEND, 0)
		if err == nil {
			_, err = f.WriteString("more")
			f.Close()
		}
		if err := errors.Join(err, os.Chmod(changed, 0o640)); err != nil {
			t.Fatal(err)
		}
		if now := numbers(); now != before {
			t.Errorf("%s: copied up: numbers %d, and before %d", options, now, before)
		}
		dropInodes()
		forgotten := numbers()
		kept := [3]bool{forgotten[0] == before[0], forgotten[1] == before[1], forgotten[2] == before[2]}
		if want := [3]bool{options == ",metacopy=on", false, true}; kept != want {
			t.Errorf("%s: forgotten: numbers %d, and before %d: docs/engines.md says otherwise", options, forgotten, before)
		}
		for range 3 {
			done()
			dropInodes()
			_, done = mustOverlay(t, h.dir, scratch, name, options)
			for range 2 { // a second look is another one than the first
				if now := numbers(); now != forgotten {
					t.Errorf("%s: mounted again: numbers %d, want %d", options, now, forgotten)
				}
			}
		}
		done()
	}
}
