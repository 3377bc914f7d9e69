//go:build linux

package fusefs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/testdata/testenv"
)

func TestUnmount(t *testing.T) {
	testenv.Slow(t)
	ways := []struct {
		name    string
		root    bool // whether only root can
		unmount func(t *testing.T, c *child, dir string) error
	}{
		{"from outside", false, func(_ *testing.T, _ *child, dir string) error { return Unmount(context.Background(), dir) }},
		{"by the server", false, func(_ *testing.T, c *child, _ string) error { c.send("unmount"); return nil }},
		{"fusermount3", false, func(t *testing.T, _ *child, dir string) error {
			needHelper(t)
			return exec.Command("fusermount3", "-u", dir).Run()
		}},
		{"umount", true, func(_ *testing.T, _ *child, dir string) error { return exec.Command("umount", dir).Run() }},
		{"lazily", false, func(_ *testing.T, _ *child, dir string) error { return UnmountLazy(context.Background(), dir) }},
		{"through a symlink", false, func(t *testing.T, _ *child, dir string) error {
			link := filepath.Join(t.TempDir(), "link")
			return errors.Join(os.Symlink(dir, link), Unmount(t.Context(), link))
		}},
		{"by a relative path", false, func(t *testing.T, _ *child, dir string) error {
			t.Chdir(filepath.Dir(dir))
			return Unmount(t.Context(), filepath.Base(dir)+"/")
		}},
	}
	forEachMounter(t, func(t *testing.T, w who) {
		for _, way := range ways {
			if way.root && !isRoot() {
				continue
			}
			t.Run(way.name, func(t *testing.T) {
				c, dir := serve(t, w, task{Tree: "plain"})
				if err := way.unmount(t, c, dir); err != nil {
					t.Fatal(err)
				}
				c.ended()
				if isMounted(t, dir) {
					t.Error("still mounted")
				}
				if logs := c.logs; len(logs) > 0 {
					t.Errorf("the log is %q, want nothing", logs)
				}
			})
		}
	})
}

// holdRole keeps a file open until it gets a line, and reads it then.
func holdRole(k task) error {
	f, err := os.Open(k.Dir)
	if err != nil {
		return err
	}
	defer f.Close()
	say("holding")
	if _, err := fmt.Scanln(new(string)); err != nil {
		return err
	}
	b, err := io.ReadAll(f)
	say("%d bytes, %v", len(b), err)
	return nil
}

func TestUnmountBusy(t *testing.T) {
	testenv.Slow(t)
	forEachMounter(t, func(t *testing.T, w who) {
		c, dir := serve(t, w, task{Tree: "plain"})
		holder := start(t, w.uid, task{Role: "hold", Dir: filepath.Join(dir, "srv/index")})
		holder.expect("holding")
		by := fmt.Sprintf("%v by exe (pid %d)", ErrBusy, holder.cmd.Process.Pid)
		if err := Unmount(t.Context(), dir); !errors.Is(err, ErrBusy) || !strings.HasSuffix(err.Error(), by) {
			t.Errorf("%v, want it %s", err, by)
		}
		c.send("unmount")
		if got := c.next(); !strings.HasSuffix(got, by) {
			t.Errorf("the server says %q, want it %s", got, by)
		}
		if err := UnmountLazy(t.Context(), dir); err != nil {
			t.Fatal(err)
		}
		holder.send("go")
		holder.expect("4097 bytes, <nil>")
		holder.expect("")
		_ = holder.cmd.Wait()
		c.ended()
	})
}

// TestUnmountWaits has a user who goes while it is unmounted.
func TestUnmountWaits(t *testing.T) {
	testenv.Slow(t)
	forEachMounter(t, func(t *testing.T, w who) {
		c, dir := serve(t, w, task{Tree: "plain"})
		holder := start(t, w.uid, task{Role: "hold", Dir: filepath.Join(dir, "srv/index")})
		holder.expect("holding")
		time.AfterFunc(passing/5, func() { holder.send("go") })
		if err := Unmount(t.Context(), dir); err != nil {
			t.Error(err)
		}
		holder.expect("4097 bytes, <nil>")
		_ = holder.cmd.Wait()
		c.ended()
	})
}

func TestUnmountBusyByAMount(t *testing.T) {
	testenv.Slow(t)
	needFUSE(t)
	needRoot(t)
	_, dir := serve(t, who{}, task{Tree: "plain"})
	inner := filepath.Join(dir, "srv")
	if err := unix.Mount("none", inner, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(inner, unix.MNT_DETACH) })
	if err := Unmount(t.Context(), dir); !errors.Is(err, ErrBusy) || !strings.Contains(err.Error(), "a mount on "+inner) {
		t.Errorf("%v, want it busy by the mount on %s", err, inner)
	}
	if err := Unmount(t.Context(), inner); !errors.Is(err, ErrNotMounted) || !isMounted(t, inner) {
		t.Errorf("unmounting a tmpfs: %v, want it refused", err)
	}
}

func TestUnmountRefuses(t *testing.T) {
	dir := t.TempDir()
	for name, want := range map[string]error{
		"/proc":                           ErrNotMounted,
		dir:                               ErrNotMounted,
		filepath.Join(dir, "none"):        ErrNoDir,
		filepath.Join(dir, "none", "two"): ErrNoDir,
	} {
		for _, unmount := range []func(context.Context, string) error{Unmount, UnmountLazy} {
			err := unmount(t.Context(), name)
			if e := new(Error); !errors.Is(err, want) || !errors.As(err, &e) || e.Dir != name || e.Op != "unmount" {
				t.Errorf("unmounting %s: %v, want %v", name, err, want)
			}
		}
	}
}

// TestForeignMount: a user who did not mount is told who did.
func TestForeignMount(t *testing.T) {
	needFUSE(t)
	needHelper(t)
	needRoot(t)
	_, dir := serve(t, who{}, task{Tree: "plain"})
	for role, want := range map[string]string{
		"unmount": "error: unmount " + dir + ": another user's mount: root mounted it",
		"check":   "error: mount " + dir + ": already a mount point: imgfs of type fuse.imgfs, mounted by root",
	} {
		c := start(t, nobody, task{Role: role, Dir: dir})
		if got := c.next(); got != want {
			t.Errorf("%s: %q, want %q", role, got, want)
		}
		_ = c.cmd.Wait()
	}
	if !isMounted(t, dir) {
		t.Error("it is unmounted")
	}
	hint := func(err error) string {
		e := new(Error)
		errors.As(mountError("unmount", dir, err), &e)
		return e.Hint
	}
	if got := hint(ErrForeign); got != "only that user and root can unmount it" {
		t.Errorf("the hint is %q", got)
	}
}

// unmountRole unmounts.
func unmountRole(k task) error { return Unmount(context.Background(), k.Dir) }

func TestMounts(t *testing.T) {
	testenv.Slow(t)
	names := []string{"", "fedora:latest", `oci:/a dir, with\ "odd" #names:t`, "oci:\t\n."}
	forEachMounter(t, func(t *testing.T, w who) {
		for _, name := range names {
			c, dir := serve(t, w, task{Tree: "plain", Name: name})
			want := MountPoint{Dir: dir, Name: name, Owner: "root", Part: "/", own: w.uid == os.Geteuid()}
			if w.uid != 0 {
				want.Owner = fmt.Sprintf("user %d", w.uid)
			}
			if name == "" {
				want.Name = "imgfs"
			}
			is := func(m MountPoint) bool {
				device, id := m.Device, m.id
				m.Device, m.id = "", ""
				return m == want && device != "" && id != ""
			}
			if got, err := Mounts(); err != nil || !slices.ContainsFunc(got, is) {
				t.Errorf("Mounts() = %+v, %v, want %+v among them", got, err, want)
			}
			c.send("unmount")
			c.ended()
			if got, err := Mounts(); err != nil || slices.ContainsFunc(got, is) {
				t.Errorf("Mounts() = %+v, %v after the unmount of %+v", got, err, want)
			}
		}
	})
}

func TestMountFlags(t *testing.T) {
	forEachMounter(t, func(t *testing.T, w who) {
		_, dir := serve(t, w, task{Tree: "plain"})
		text, err := os.ReadFile("/proc/self/mounts")
		if err != nil {
			t.Fatal(err)
		}
		for l := range strings.Lines(string(text)) {
			if !strings.Contains(l, filepath.Base(filepath.Dir(dir))) {
				continue
			}
			for _, want := range []string{"imgfs ", " fuse.imgfs ", " ro,", ",nosuid,", ",nodev,", "default_permissions"} {
				if !strings.Contains(l, want) {
					t.Errorf("%q has no %q", l, want)
				}
			}
		}
	})
}

func TestReadAheadIsRaised(t *testing.T) {
	needFUSE(t)
	needRoot(t)
	_, dir := serve(t, who{}, task{Tree: "plain"})
	table, err := mountTable()
	if err != nil {
		t.Fatal(err)
	}
	m, _ := mountedAt(table, dir)
	got, err := os.ReadFile("/sys/class/bdi/" + m.device + "/read_ahead_kb")
	if errors.Is(err, os.ErrNotExist) {
		t.Skip("no /sys/class/bdi")
	}
	if strings.TrimSpace(string(got)) != "1024" {
		t.Errorf("read_ahead_kb is %q, %v, want 1024", got, err)
	}
}

// A server that was killed leaves a dead mount: it is named so, and can be
// unmounted.
func TestDeadMount(t *testing.T) {
	forEachMounter(t, func(t *testing.T, w who) {
		if w.uid != os.Getuid() {
			t.Skip("this process may not use the mount")
		}
		c, dir := serve(t, w, task{Tree: "plain"})
		if err := c.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		c.expect("")
		_ = c.cmd.Wait()
		_, err := Check(t.Context(), dir, nil)
		if e := new(Error); !errors.Is(err, ErrDead) || !errors.As(err, &e) || e.Hint != "imgfs umount '"+dir+"'" {
			t.Errorf("Check: %v, want %v with a hint", err, ErrDead)
		}
		if err := Unmount(t.Context(), dir); err != nil || isMounted(t, dir) {
			t.Errorf("Unmount: %v, want it unmounted", err)
		}
	})
}

// An aborted connection ends the server, which must not leave a dead mount.
func TestAbortedConnection(t *testing.T) {
	needFUSE(t)
	needRoot(t)
	c, dir := serve(t, who{}, task{Tree: "plain"})
	aborter(t, dir)()
	c.ended()
	if isMounted(t, dir) {
		t.Error("a dead mount is left")
	}
}

// Root of a user namespace mounts directly as well, with no rights outside.
func TestUserNamespace(t *testing.T) {
	testenv.Slow(t)
	needFUSE(t)
	if err := exec.Command("unshare", "-Urm", "true").Run(); err != nil {
		t.Skipf("unshare -Urm: %v", err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	test := exec.Command("unshare", "-Urm", self, "-test.run=^(TestMountEqualsTree|TestUnmount|TestMounts)$")
	if out, err := test.CombinedOutput(); err != nil {
		t.Errorf("%v:\n%s", err, out)
	}
}
