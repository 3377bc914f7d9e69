//go:build linux

package overlayfs

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/fs/fusefs"
)

// fileSystem mounts a file system for a test, on a new directory.
func fileSystem(t *testing.T, kind, options string, flags uintptr) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("none", dir, kind, flags, options); err != nil {
		t.Skipf("mounting %s: %v", kind, err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// refused checks that an error says something, and what to type.
func refused(t *testing.T, err error, says, hint string) {
	t.Helper()
	var failed *fusefs.Error
	if !errors.As(err, &failed) || !strings.Contains(err.Error(), says) || !strings.Contains(failed.Hint, hint) || strings.Contains(err.Error(), "\n") {
		t.Errorf("%v (%+v), want one line with %q and the hint %q", err, failed, says, hint)
	}
}

// TestRefused: directories that cannot take what is written are refused, and left as they
// were.
func TestRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can mount these file systems")
	}
	kernel := &Options{Kind: Kernel}
	fits := func(t *testing.T, dir string, o *Options) error {
		t.Helper()
		u, err := Open(t.Context(), filepath.Join(dir, "up"))
		if err != nil {
			return err
		}
		defer u.Close()
		return u.Check(t.Context(), t.TempDir(), o)
	}
	t.Run("no attributes", func(t *testing.T) {
		dir := fileSystem(t, "ramfs", "", 0)
		for _, o := range []*Options{nil, kernel, {Kind: Fuse}} {
			refused(t, fits(t, dir, o), "no extended attributes", "ext4, xfs or btrfs")
		}
		if left, err := os.ReadDir(dir); len(left) > 0 || err != nil {
			t.Errorf("left are %v, %v", left, err)
		}
	})
	t.Run("read-only", func(t *testing.T) {
		refused(t, fits(t, fileSystem(t, "tmpfs", "", unix.MS_RDONLY), nil), "read-only", "ext4")
	})
	t.Run("full", func(t *testing.T) {
		refused(t, fits(t, fileSystem(t, "tmpfs", "nr_inodes=1", 0), nil), "full", "make room")
	})
	t.Run("on an overlay", func(t *testing.T) {
		base := fileSystem(t, "tmpfs", "", 0)
		for _, dir := range []string{"l", "u", "w"} {
			if err := os.Mkdir(filepath.Join(base, dir), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		dir := fileSystem(t, "overlay", strings.ReplaceAll("lowerdir=@/l,upperdir=@/u,workdir=@/w", "@", base), 0)
		refused(t, fits(t, dir, kernel), "itself on an overlay", "another file system")
	})
	t.Run("another user's", func(t *testing.T) {
		dir := t.TempDir()
		if err := errors.Join(os.Mkdir(dir+"/up", 0o755), os.Chown(dir+"/up", nobody, nobody)); err != nil {
			t.Fatal(err)
		}
		refused(t, fits(t, dir, nil), "belongs to user 65534", "new directory")
	})
}

// TestOpenRefused is TestRefused for what needs no file system of its own.
func TestOpenRefused(t *testing.T) {
	for name, c := range map[string]struct {
		prepare     func(dir string) error
		says, hints string
	}{
		"a file":       {func(dir string) error { return os.WriteFile(dir, nil, 0o600) }, "not a directory", "new directory"},
		"other things": {func(dir string) error { return os.MkdirAll(dir+"/a\nb", 0o700) }, `such as $'a\nb'`, "new directory"},
		"upper a file": {func(dir string) error {
			return errors.Join(os.Mkdir(dir, 0o700), os.WriteFile(dir+"/upper", nil, 0o600))
		}, "called upper", "new directory"},
		"upper a link": {func(dir string) error { return errors.Join(os.Mkdir(dir, 0o700), os.Symlink("/etc", dir+"/upper")) }, "called upper", "new directory"},
		"notes garbage": {func(dir string) error {
			return errors.Join(os.Mkdir(dir, 0o700), os.WriteFile(dir+"/imgfs.json", []byte("{"), 0o600))
		}, "not what imgfs writes", "remove"},
		"notes a pipe": {func(dir string) error {
			return errors.Join(os.Mkdir(dir, 0o700), unix.Mkfifo(dir+"/imgfs.json", 0o600))
		}, "not what imgfs writes", "remove"},
		"no parent": {func(dir string) error { return os.Remove(filepath.Dir(dir)) }, "does not exist", "mkdir -p"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "parent", "up")
			if err := errors.Join(os.Mkdir(filepath.Dir(dir), 0o700), c.prepare(dir)); err != nil {
				t.Fatal(err)
			}
			u, err := Open(t.Context(), dir)
			if err == nil {
				u.Close()
			}
			refused(t, err, c.says, c.hints)
		})
	}
}

// TestNoDirectories: where nobody can make a directory, the hint is not to make one above.
func TestNoDirectories(t *testing.T) {
	u, err := Open(t.Context(), "/proc/imgfs-upper")
	if err == nil {
		u.Close()
	}
	refused(t, err, "makes no directories", "on a disk")
}

// TestOneMount: an Upper is for one mount at a time, and closed to others.
func TestOneMount(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "up")
	if err := os.Mkdir(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	u, err := Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("its mode is %v, %v", info.Mode(), err)
	}
	_, err = Open(t.Context(), dir)
	refused(t, err, "another mount uses it", "new directory")
	u.Close()
	if left, err := os.ReadDir(dir); len(left) > 0 || err != nil {
		t.Errorf("left are %v, %v", left, err)
	}
	if u, err = Open(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	for target, says := range map[string]string{filepath.Dir(dir): "would hide it", dir: "would hide it", filepath.Join(dir, "upper"): "is in it"} {
		if err := u.outside(target); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("on %s: %v, want %q", target, err, says)
		}
	}
	u.Close()
}

// TestOtherNotes: what one kind of overlay has written is nothing for another one.
func TestOtherNotes(t *testing.T) {
	dir := t.TempDir()
	for before := range map[namespace]bool{trusted: true, user: true, fuse: true} {
		u, err := Open(t.Context(), dir)
		if err != nil {
			t.Fatal(err)
		}
		u.notes.Notes = before
		for now := range map[namespace]bool{trusted: true, user: true, fuse: true} {
			err := u.fits(now)
			if now != before && (err == nil || !strings.Contains(err.Error(), before.describe())) {
				t.Errorf("from %s to %s: %v", before, now, err)
			}
		}
		u.Close()
	}
}

// TestNotes: notes are read as they were written, and those of another run of the machine
// name no mount.
func TestNotes(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, workName), 0o700); err != nil {
		t.Fatal(err)
	}
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	want := notes{Notes: user, Image: "im\"age\n", Manifest: "sha256:1", Mount: "1 0:2 overlay", Boot: "another"}
	if err := want.write(d); err != nil {
		t.Fatal(err)
	}
	if got, err := readNotes(d); got != want || err != nil || got.mountedOn() != "" {
		t.Errorf("%+v, %v, on %q, want %+v", got, err, got.mountedOn(), want)
	}
	if _, err := os.Stat(filepath.Join(dir, workName, notesName)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the temporary file: %v", err)
	}
}
