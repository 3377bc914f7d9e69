//go:build linux

package fusefs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/testdata/testenv"
)

// replacements are what somebody can do to a directory, and to the one that it
// is in, while an image for it is fetched. other is another directory.
func replacements(dir, other string) map[string]func() error {
	moved := dir + ".moved"
	up := filepath.Dir(dir)
	return map[string]func() error{
		"removed":           func() error { return os.Remove(dir) },
		"renamed":           func() error { return os.Rename(dir, moved) },
		"another directory": func() error { return errors.Join(os.Rename(dir, moved), os.Mkdir(dir, 0o777)) },
		"a symlink":         func() error { return errors.Join(os.Rename(dir, moved), os.Symlink(other, dir)) },
		"a symlink to it":   func() error { return errors.Join(os.Rename(dir, moved), os.Symlink(moved, dir)) },
		"a file":            func() error { return errors.Join(os.Remove(dir), os.WriteFile(dir, nil, 0o666)) },
		"a symlink above": func() error {
			return errors.Join(os.Rename(up, up+".moved"), os.Symlink(filepath.Dir(other), up))
		},
	}
}

// replaceable makes two directories of the same name, in two others.
func replaceable(t *testing.T) (dir, other string) {
	t.Helper()
	top, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	dir, other = filepath.Join(top, "a/mnt"), filepath.Join(top, "b/mnt")
	if err := errors.Join(os.MkdirAll(dir, 0o777), os.MkdirAll(other, 0o777)); err != nil {
		t.Fatal(err)
	}
	return dir, other
}

// noMounts checks that nothing is mounted in a directory, or takes it away.
func noMounts(t *testing.T, top string) {
	t.Helper()
	table, err := mountTable()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range table {
		if strings.HasPrefix(m.dir, top) {
			t.Errorf("mounted on %s", m.dir)
			_ = unix.Unmount(m.dir, unix.MNT_DETACH)
		}
	}
}

// TestMountpointReplaced changes the directory between its check and the mount:
// nothing is mounted anywhere.
func TestMountpointReplaced(t *testing.T) {
	needFUSE(t)
	tree := treeNamed(t, "plain")
	for _, opts := range []*Options{{}, {useHelper: true}} {
		if opts.useHelper {
			needHelper(t)
		}
		d, o := replaceable(t)
		for name := range replacements(d, o) {
			t.Run(fmt.Sprintf("%s, helper %v", name, opts.useHelper), func(t *testing.T) {
				dir, other := replaceable(t)
				to, err := Check(t.Context(), dir, opts)
				if err != nil {
					t.Fatal(err)
				}
				defer to.Close()
				if err := replacements(dir, other)[name](); err != nil {
					t.Fatal(err)
				}
				if _, err := to.Mount(t.Context(), tree, opts); !errors.Is(err, ErrReplaced) {
					t.Errorf("%v, want %v", err, ErrReplaced)
				}
				noMounts(t, filepath.Dir(filepath.Dir(dir)))
			})
		}
	}
}

// TestMountpointTakenMeanwhile has another file system mounted there.
func TestMountpointTakenMeanwhile(t *testing.T) {
	needFUSE(t)
	needRoot(t)
	dir := mountDir(t, 0)
	to, err := Check(t.Context(), dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	if err := unix.Mount("none", dir, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	if _, err := to.Mount(t.Context(), treeNamed(t, "plain"), nil); !errors.Is(err, ErrMounted) {
		t.Errorf("%v, want %v", err, ErrMounted)
	}
}

// helperScript writes a program that is to be taken for fusermount3, with the
// path of the real one in $real.
func helperScript(t *testing.T, script string) string {
	t.Helper()
	real, err := thisHost().helper()
	if err != nil {
		missing(t, "%v", err)
		t.SkipNow()
	}
	path := filepath.Join(t.TempDir(), "fusermount3")
	if err := os.WriteFile(path, []byte("#!/bin/sh\nPATH=/bin:/usr/bin real='"+real+"'\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestMountpointReplacedAtTheLast changes the directory when fusermount3 has it
// already: it mounts somewhere else, which is undone.
func TestMountpointReplacedAtTheLast(t *testing.T) {
	needFUSE(t)
	needRoot(t)
	for _, c := range []struct{ name, script string }{
		{"renamed", `case "$*" in *-u*) ;; *) mv "$PWD" "$PWD.moved" && cd "$PWD.moved";; esac; exec "$real" "$@"`},
		{"elsewhere", `case "$*" in *-u*) ;; *) cd ../../b/mnt;; esac; exec "$real" "$@"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir, _ := replaceable(t)
			to := &Target{at: placeOf(t, dir), name: dir, helper: helperScript(t, c.script)}
			if _, err := to.Mount(t.Context(), treeNamed(t, "plain"), nil); !errors.Is(err, ErrReplaced) {
				t.Errorf("%v, want %v", err, ErrReplaced)
			}
			noMounts(t, filepath.Dir(filepath.Dir(dir)))
		})
	}
}

// TestUnmountAfterRename: a mount is found by what it is, not by its path.
func TestUnmountAfterRename(t *testing.T) {
	needFUSE(t)
	w := mounters(t)[0]
	for _, order := range []string{"unmount", "detach"} {
		dir, _ := replaceable(t)
		c, _ := serve(t, w, task{Tree: "plain", Dir: dir})
		up := filepath.Dir(dir)
		if err := errors.Join(os.Rename(up, up+".moved"), os.MkdirAll(dir, 0o777)); err != nil {
			t.Fatal(err)
		}
		c.send(order)
		c.ended()
		noMounts(t, filepath.Dir(up))
	}
}

// TestUnmountCovered: what is mounted over a mount is not unmounted in its
// place.
func TestUnmountCovered(t *testing.T) {
	testenv.Slow(t)
	needFUSE(t)
	needRoot(t)
	c, dir := serve(t, who{}, task{Tree: "plain"})
	if err := unix.Mount("none", dir, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	for _, order := range []string{"unmount", "detach"} {
		c.send(order)
		if got := c.next(); !strings.Contains(got, ErrBusy.Error()+" by what is mounted over it") {
			t.Errorf("%s: %q, want it busy", order, got)
		}
	}
	for _, unmount := range []func(context.Context, string) error{Unmount, UnmountLazy} {
		if err := unmount(t.Context(), dir); !errors.Is(err, ErrNotMounted) {
			t.Errorf("%v, want %v", err, ErrNotMounted)
		}
	}
	if err := unix.Unmount(dir, 0); err != nil {
		t.Fatal(err)
	}
	c.send("unmount")
	c.ended()
}

// TestDetach: who uses the tree goes on to, and the directory is as it was.
func TestDetach(t *testing.T) {
	forEachMounter(t, func(t *testing.T, w who) {
		c, dir := serve(t, w, task{Tree: "plain"})
		holder := start(t, w.uid, task{Role: "hold", Dir: filepath.Join(dir, "srv/index")})
		holder.expect("holding")
		c.send("detach")
		c.send("ping")
		c.expect("pong")
		if names, err := os.ReadDir(dir); err != nil || len(names) > 0 {
			t.Errorf("the directory has %v, %v, want nothing", names, err)
		}
		holder.send("go")
		holder.expect("4097 bytes, <nil>")
		_ = holder.cmd.Wait()
		c.ended()
	})
}

// TestHeldByAMap: what is only mapped is named, too.
func TestHeldByAMap(t *testing.T) {
	testenv.Slow(t)
	needFUSE(t)
	w := mounters(t)[0]
	c, dir := serve(t, w, task{Tree: "plain"})
	fd, err := unix.Open(filepath.Join(dir, "srv/index"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	data, err := unix.Mmap(fd, 0, 4097, unix.PROT_READ, unix.MAP_SHARED)
	unix.Close(fd)
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("(pid %d)", os.Getpid())
	if err := Unmount(t.Context(), dir); !errors.Is(err, ErrBusy) || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want it in use by %s", err, want)
	}
	if err := unix.Munmap(data); err != nil {
		t.Fatal(err)
	}
	c.send("unmount")
	c.ended()
}

// within fails the test if something takes longer than a limit. Tests run on
// busy machines: what is looked for takes minutes.
func within(t *testing.T, limit time.Duration, what string, do func()) {
	t.Helper()
	begun := time.Now()
	do()
	if took := time.Since(begun); took > limit {
		t.Errorf("%s took %v, want at most %v", what, took, limit)
	}
}

// TestServerHangs asks for a mount whose server is stopped.
func TestServerHangs(t *testing.T) {
	testenv.Slow(t)
	needFUSE(t)
	w := mounters(t)[0]
	w.IOUring = Off // what is on a ring cannot be taken back
	c, dir := serve(t, w, task{Tree: "plain"})
	testenv.Stop(t, c.cmd.Process.Pid)
	defer func() { _ = c.cmd.Process.Signal(unix.SIGCONT) }()
	const limit = 3 * patience
	within(t, limit, "Check", func() {
		_, err := Check(t.Context(), dir, nil)
		if e := new(Error); !errors.Is(err, ErrMounted) || !errors.Is(err, ErrNoAnswer) || !errors.As(err, &e) || e.Hint != "imgfs umount -l '"+dir+"'" {
			t.Errorf("Check: %v, want %v with a hint to umount -l", err, ErrNoAnswer)
		}
	})
	canceled, cancel := context.WithCancel(t.Context())
	time.AfterFunc(patience/10, cancel)
	within(t, patience, "Check that is given up", func() {
		if _, err := Check(canceled, dir, nil); !errors.Is(err, context.Canceled) {
			t.Errorf("Check: %v, want %v", err, context.Canceled)
		}
	})
	var mount MountPoint
	within(t, limit, "MountOf", func() {
		var err error
		if mount, err = MountOf(t.Context(), dir); err != nil || mount.Dir != dir {
			t.Errorf("MountOf: %+v, %v", mount, err)
		}
		if _, err := MountOf(t.Context(), filepath.Join(dir, "srv/index")); !errors.Is(err, ErrNoAnswer) {
			t.Errorf("MountOf below it: %v, want %v", err, ErrNoAnswer)
		}
		if _, err := Check(t.Context(), filepath.Join(dir, "etc"), nil); !errors.Is(err, ErrNoAnswer) {
			t.Errorf("Check below it: %v, want %v", err, ErrNoAnswer)
		}
	})
	within(t, limit, "Control", func() {
		short, cancel := context.WithTimeout(t.Context(), patience/10)
		defer cancel()
		if _, err := mount.Control(short, "user.imgfs.stats"); !errors.Is(err, ErrNoAnswer) {
			t.Errorf("Control: %v, want %v", err, ErrNoAnswer)
		}
	})
	// What was asked above is still on its way, and uses the mount.
	within(t, 2*limit, "UnmountLazy", func() {
		if err := UnmountLazy(t.Context(), dir); err != nil || isMounted(t, dir) {
			t.Errorf("UnmountLazy: %v, want it unmounted", err)
		}
	})
}

// TestHelperHangs has a fusermount3 that does not end.
func TestHelperHangs(t *testing.T) {
	testenv.Slow(t)
	needFUSE(t)
	dir, _ := replaceable(t)
	to := &Target{at: placeOf(t, dir), name: dir, helper: helperScript(t, "sleep 1000; echo late\n")}
	tree := treeNamed(t, "plain")
	within(t, 3*patience, "Mount", func() {
		if _, err := to.Mount(t.Context(), tree, nil); !errors.Is(err, ErrNoAnswer) || !strings.Contains(err.Error(), "fusermount3: ") {
			t.Errorf("Mount: %v, want fusermount3 not to answer", err)
		}
	})
	canceled, cancel := context.WithCancel(t.Context())
	time.AfterFunc(patience/10, cancel)
	within(t, patience, "Mount that is given up", func() {
		if _, err := to.Mount(canceled, tree, nil); !errors.Is(err, context.Canceled) {
			t.Errorf("Mount: %v, want %v", err, context.Canceled)
		}
	})
	noMounts(t, filepath.Dir(filepath.Dir(dir)))
	left := func() bool {
		return slices.ContainsFunc(processes(), func(p string) bool {
			cwd, _ := os.Readlink(p + "/cwd")
			return cwd == dir
		})
	}
	// What was killed may be seen until the kernel is done with it.
	for end := time.Now().Add(time.Second); left() && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	if left() {
		t.Error("a process is left behind")
	}
}

// TestHelperIsGone: a fusermount3 that is given up has ended when that is said, so
// that it does not mount afterwards.
func TestHelperIsGone(t *testing.T) {
	testenv.Slow(t)
	dir := t.TempDir()
	for range 20 {
		ctx, cancel := context.WithCancel(t.Context())
		helper := helperScript(t, "exec sleep 1000\n")
		time.AfterFunc(50*time.Millisecond, cancel)
		if _, err := runHelper(ctx, helper, placeOf(t, dir), nil); !errors.Is(err, context.Canceled) {
			t.Errorf("%v, want %v", err, context.Canceled)
		}
		for _, p := range processes() {
			if cwd, _ := os.Readlink(p + "/cwd"); cwd == dir {
				t.Fatalf("the process %s is still there", p)
			}
		}
	}
}

// TestHelperClaims has a fusermount3 that says that it has unmounted, and has not.
func TestHelperClaims(t *testing.T) {
	needFUSE(t)
	needRoot(t)
	dir, _ := replaceable(t)
	lie := filepath.Join(t.TempDir(), "lie")
	if err := os.WriteFile(lie, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	to := &Target{at: placeOf(t, dir), name: dir, helper: helperScript(t, `case "$*" in *-u*) [ -e '`+lie+`' ] && exit 0;; esac; exec "$real" "$@"`)}
	s, err := to.Mount(t.Context(), treeNamed(t, "plain"), nil)
	if err != nil {
		t.Fatal(err)
	}
	to.Close()
	for name, unmount := range map[string]func(context.Context) error{"Unmount": s.Unmount, "Detach": s.Detach} {
		if err := unmount(t.Context()); err == nil || !strings.Contains(err.Error(), "has not unmounted it") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := os.Remove(lie); err != nil {
		t.Fatal(err)
	}
	if err := s.Unmount(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestHelperDiesHalfWay has a fusermount3 that mounts, and is killed before it
// says so, or sends no descriptor.
func TestHelperDiesHalfWay(t *testing.T) {
	testenv.Slow(t)
	needFUSE(t)
	needRoot(t)
	for _, script := range []string{
		`case "$*" in *-u*) exec "$real" "$@";; esac; "$real" "$@"; sleep 1000`,
		`case "$*" in *-u*) exec "$real" "$@";; esac; _FUSE_COMMFD=0 "$real" "$@" </dev/null; exit 0`,
	} {
		dir, _ := replaceable(t)
		to := &Target{at: placeOf(t, dir), name: dir, helper: helperScript(t, script)}
		if _, err := to.Mount(t.Context(), treeNamed(t, "plain"), nil); err == nil {
			t.Errorf("%s: it is mounted", script)
		}
		noMounts(t, filepath.Dir(filepath.Dir(dir)))
	}
}
