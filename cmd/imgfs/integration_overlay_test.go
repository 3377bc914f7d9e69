//go:build linux

package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/imgfs/imgfs/fs/fusefs"
	"github.com/imgfs/imgfs/testdata/labimage"
)

// overlayImage writes a layout that a sandbox can mount, with 1 MiB of letters.
func overlayImage(t *testing.T, s *sandbox, name string) (image string) {
	t.Helper()
	dir := filepath.Join(s.dir, name)
	if _, err := labimage.Write(dir, small, func(a *labimage.Archive) error { return a.File("letters", strings.Repeat(name[:1], 1<<20)) }); err != nil {
		t.Fatal(err)
	}
	return "oci:" + dir + ":" + labimage.Tag
}

// written checks that a program of the sandbox's user sees a text in a file, which it has
// appended it to.
func (s *sandbox) written(dir string) {
	s.t.Helper()
	out, err := s.program("sh", "-c", `printf changed >>"$0/letters" && tail -c 9 "$0/letters"`, dir).CombinedOutput()
	if string(out) != "aachanged" || err != nil {
		s.t.Errorf("what was written in %s reads %q, %v", dir, out, err)
	}
}

// left checks that nothing is left of the mounts of a sandbox but what was written.
func (s *sandbox) left(upper string) {
	s.t.Helper()
	s.waitGone(s.dir)
	if mounts := mountsBelow(s.dir); len(mounts) > 0 {
		s.t.Errorf("still mounted: %q", mounts)
	}
	if made, _ := filepath.Glob(filepath.Join(s.dir, "xdg-run", "imgfs", "*")); len(made) > 0 {
		s.t.Errorf("made and left: %q", made)
	}
	entries, err := os.ReadDir(filepath.Join(upper, "upper"))
	if len(entries) != 1 || entries[0].Name() != "letters" || err != nil {
		s.t.Errorf("the upper directory has %v, %v", entries, err)
	}
}

// TestMountOverlay: what is written in a mount with --overlay goes to its directory, by
// whatever way both mounts end, and is there at the next mount.
func TestMountOverlay(t *testing.T) {
	t.Parallel()
	forEachMounter(t, func(t *testing.T, who account) {
		s := sandboxOf(t, who)
		need(t, "fuse-overlayfs")
		if err := errors.Join(os.Mkdir(filepath.Join(s.dir, "xdg-run"), 0o700), os.Chown(filepath.Join(s.dir, "xdg-run"), s.uid, s.gid)); err != nil {
			t.Fatal(err)
		}
		image, dir := overlayImage(t, s, "a image"), s.mountpoint()
		plain := "umount"
		if who.uid != 0 {
			plain = "fusermount3 -u"
		}
		for i, end := range []func(dir string){
			func(dir string) { s.ok("umount", dir) },
			func(dir string) { s.ok("umount", image) },
			func(dir string) {
				if out, err := s.program("sh", "-c", plain+` "$0"`, dir).CombinedOutput(); err != nil {
					t.Errorf("%s: %v, %s", plain, err, out)
				}
			},
			func(dir string) { // that of the image, whose view lies elsewhere
				for _, m := range mountsBelow(filepath.Join(s.dir, "xdg-run")) {
					if out, err := s.program("sh", "-c", plain+` "$0" || `+plain+` -z "$0"`, m).CombinedOutput(); err != nil && who.uid == 0 {
						t.Errorf("%s: %v, %s", plain, err, out)
					} else if err != nil {
						s.ok("umount", dir)
					}
				}
			},
			func(dir string) { _ = syscall.Kill(s.daemon(image), syscall.SIGTERM) },
			func(dir string) {
				kill9(dir)
				eventually(soon, func() bool { return len(processes(image)) == 0 })
				s.fails(1, []string{"another mount uses it, on " + dir, "imgfs umount " + dir}, "mount", "--overlay", "up", image, s.mountpoint())
				s.ok("umount", dir)
			},
		} {
			upper := filepath.Join(s.dir, "up")
			if i == 0 {
				s.ok("mount", "--overlay", "up", image, dir)
			} else {
				s.ok("mount", "-o", "overlay="+upper, image, dir)
			}
			s.written(dir)
			if r := s.ok("stats", filepath.Join(dir, "etc")); !strings.Contains(r.stdout, " "+dir+"\n") {
				t.Errorf("stats say %q", r.stdout)
			}
			end(dir)
			s.left(upper)
			if t.Failed() {
				t.Fatalf("at end %d", i)
			}
			if err := os.RemoveAll(filepath.Join(upper, "upper", "letters")); err != nil {
				t.Fatal(err)
			}
		}
		made := strings.TrimSuffix(s.ok("mount", "-q", "--overlay", "up", image).stdout, "\n")
		s.written(made)
		s.ok("umount", made)
		s.left(filepath.Join(s.dir, "up"))
	})
}

// TestOverlayBusy: the unmounting of an overlay in use names its user, and is done lazily
// when the daemon is to end, or when it is asked for.
func TestOverlayBusy(t *testing.T) {
	t.Parallel()
	forEachMounter(t, func(t *testing.T, who account) {
		s := sandboxOf(t, who)
		need(t, "fuse-overlayfs")
		image := overlayImage(t, s, "a image")
		for _, end := range []string{"umount -l", "signal"} {
			dir := s.mountpoint()
			s.ok("mount", "--overlay", "up", image, dir)
			cmd := s.program("sh", "-c", `cd "$0"; echo there; read _; head -c 3 letters`, dir)
			stdin, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			cmd.Stdout = &out
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			eventually(soon, func() bool { to, _ := os.Readlink("/proc/" + strconv.Itoa(cmd.Process.Pid) + "/cwd"); return to == dir })
			s.fails(1, []string{"in use by sh (pid " + strconv.Itoa(cmd.Process.Pid) + ")", "imgfs umount -l"}, "umount", dir)
			if end == "signal" {
				_ = syscall.Kill(s.daemon(image), syscall.SIGTERM)
			} else {
				s.ok("umount", "-l", dir)
			}
			if !eventually(soon, func() bool { return !mounted(dir) }) {
				t.Fatalf("%s: still mounted", end)
			}
			if end == "umount -l" {
				time.Sleep(100 * time.Millisecond) // for what should not happen
			}
			stdin.Close()
			if err := cmd.Wait(); err != nil || out.String() != "there\naaa" {
				t.Errorf("%s: its user reads %q, %v", end, out.String(), err)
			}
			s.waitGone(s.dir)
		}
	})
}

// TestOverlayOf: Mounts tells where the view of an image is, and a view that was mounted
// by hand is none of ours.
func TestOverlayOf(t *testing.T) {
	t.Parallel()
	needFUSE(t)
	needRoot(t)
	s := newSandbox(t)
	image := overlayImage(t, s, "a image")
	dir, by := s.mountpoint(), s.mountpoint()
	s.ok("mount", "--overlay", "up", image, dir)
	plain := s.mount(image)
	hand := filepath.Join(s.dir, "hand")
	if err := errors.Join(os.MkdirAll(hand+"/up", 0o755), os.Mkdir(hand+"/work", 0o755),
		syscall.Mount("overlay", by, "overlay", 0, "lowerdir="+plain+",upperdir="+hand+"/up,workdir="+hand+"/work")); err != nil {
		t.Fatal(err)
	}
	mounts, err := fusefs.Mounts()
	if err != nil {
		t.Fatal(err)
	}
	shown := map[string]string{}
	for _, m := range mounts {
		if strings.HasPrefix(m.Place(), s.dir) {
			shown[m.Place()] = m.Shown
		}
	}
	if len(shown) != 2 || shown[dir] != dir || shown[plain] != "" {
		t.Errorf("Mounts shows %q", shown)
	}
	s.fails(1, []string{"not an imgfs mount"}, "umount", by)
	if err := syscall.Unmount(by, 0); err != nil {
		t.Error(err)
	}
	s.umount(plain)
	s.umount(dir)
}

// TestOverlayRefused: what cannot take what is written is refused before anything is
// mounted, in a line with what to type, and nothing is left.
func TestOverlayRefused(t *testing.T) {
	t.Parallel()
	needFUSE(t)
	s := newSandbox(t)
	image, other, dir := overlayImage(t, s, "a image"), overlayImage(t, s, "b image"), s.mountpoint()
	file, full := filepath.Join(s.dir, "file"), filepath.Join(s.dir, "full")
	if err := errors.Join(os.WriteFile(file, nil, 0o644), os.MkdirAll(filepath.Join(full, "thing"), 0o755)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		upper, target string
		words         []string
	}{
		{"file", dir, []string{"is not a directory", "name a new directory"}},
		{"full", dir, []string{"other things in it, such as thing"}},
		{"no/such", dir, []string{"does not exist", "mkdir -p "}},
		{filepath.Join(dir, "in"), dir, []string{"would hide it"}},
		{"up", "up", nil},
		{"up", filepath.Join(s.dir, "nowhere"), []string{"mountpoint does not exist"}},
	} {
		s.fails(1, c.words, "mount", "--overlay", c.upper, image, c.target)
	}
	s.fails(2, []string{"name of the directory is empty"}, "mount", "--overlay=", image, dir)
	s.fails(2, []string{"exclude each other"}, "mount", "--overlay=up", "--no-wait", image, dir)
	s.fails(2, []string{"leave out one"}, "mount", "-o", "ro,overlay=up", image, dir)
	if mounts := mountsBelow(s.dir); len(mounts) > 0 {
		t.Errorf("mounted: %q", mounts)
	}
	if entries, err := os.ReadDir(dir); len(entries) > 0 || err != nil {
		t.Errorf("the mountpoint has %v, %v", entries, err)
	}
	if _, err := os.Stat(filepath.Join(s.dir, "up")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("up was made and left: %v", err)
	}
	// Another image below is allowed, and said.
	s.ok("mount", "--overlay", "up", image, dir)
	s.umount(dir)
	s.waitGone(s.dir)
	r := s.ok("mount", "-o", "rw,overlay=up", other, dir)
	if !strings.Contains(r.stderr, "was written over") {
		t.Errorf("another image: %s", r.stderr)
	}
	if !slices.Contains(mountsBelow(s.dir), dir) {
		t.Error("it is not mounted")
	}
	s.umount(dir)
}

// TestOverlayNoXattrs: an upper directory that cannot have extended attributes is refused by
// mount and by bundle, and nothing is left, there or elsewhere.
func TestOverlayNoXattrs(t *testing.T) {
	t.Parallel()
	needFUSE(t)
	needRoot(t)
	s := newSandbox(t)
	image, busybox := overlayImage(t, s, "a image"), "oci:"+runnables(t)["busybox"]
	s.ok("index", image)
	s.ok("index", busybox)
	before := machineOf(t, s)
	for _, command := range []string{"mount --overlay no/up \"$0\" dir", "mount --overlay no/up \"$0\"", "mount -o overlay=no/up \"$0\" dir", "bundle --overlay no/up " + busybox + " new"} {
		script := "mkdir no dir; mount -t ramfs none no; imgfs " + command + "; echo $? $(ls no) $(ls new 2>/dev/null); grep -c fuse.imgfs.*$PWD /proc/self/mountinfo; umount no; rmdir no dir"
		cmd := s.program("unshare", "--mount", "sh", "-c", script, image)
		cmd.Env = append(slices.Clone(s.env), "PATH="+filepath.Dir(imgfsBinary(t))+":"+os.Getenv("PATH"))
		r := s.finish(cmd)
		if r.stdout != "1\n0\n" {
			t.Errorf("%s: stdout is %q: exit code, what is in the directory, how many are mounted", command, r.stdout)
		}
		inLines(t, r, 0, "no/up: its file system has no extended attributes", "imgfs: hint: name a directory on a disk")
	}
	before.asBefore(t, s)
}
