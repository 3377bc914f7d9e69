//go:build linux

package main

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/imgfs/imgfs/testdata/testenv"
	"golang.org/x/sys/unix"
)

// die kills all processes that hold the FUSE device of what is mounted on a directory, the
// newest mount if there are several: what serves it, and what would start another server.
func (s *sandbox) die(dir string) {
	s.t.Helper()
	fields := strings.Fields(tableLine(s.t, dir))
	_, minor, _ := strings.Cut(fields[2], ":")
	if !eventually(soon, func() bool {
		holders := deviceHolders(minor)
		for _, pid := range holders {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		return len(holders) == 0
	}) {
		s.t.Fatalf("there are always processes that hold the device of %s", dir)
	}
}

// tableLine returns the line of the newest mount on a directory in the mount table.
func tableLine(t testing.TB, dir string) (last string) {
	t.Helper()
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 4 && f[4] == dir {
			last = line
		}
	}
	if last == "" {
		t.Fatalf("nothing is mounted on %s", dir)
	}
	return last
}

// deviceHolders returns the processes that have a FUSE connection open, by the minor number
// of its device.
func deviceHolders(minor string) (pids []int) {
	links, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, link := range links {
		if to, err := os.Readlink(link); err != nil || to != "/dev/fuse" {
			continue
		}
		info, _ := os.ReadFile(strings.Replace(link, "/fd/", "/fdinfo/", 1))
		if strings.Contains(string(info), "fuse_connection:\t"+minor+"\n") {
			pid, _ := strconv.Atoi(strings.Split(link, "/")[2])
			pids = append(pids, pid)
		}
	}
	return pids
}

// TestDeadMounts: imgfs umount and imgfs mount deal with what was left by processes that
// were killed, whatever it is, and leave all the rest.
func TestDeadMounts(t *testing.T) {
	testenv.Slow(t)
	forEachMounter(t, func(t *testing.T, who account) {
		s := sandboxOf(t, who)
		image := overlayImage(t, s, "a image")
		root := os.Geteuid() == 0
		dead := func() (dir string) {
			t.Helper()
			dir = s.mount(image)
			s.die(dir)
			return dir
		}
		well := func(what, dir string) {
			t.Helper()
			if r := s.finish(s.program("head", "-c", "1", dir+"/letters")); r.stdout != "a" {
				t.Errorf("%s: in the new mount there is %q, %s", what, r.stdout, r.stderr)
			}
			s.umount(dir)
		}
		inside := func(dir string) (end func()) { // a process whose working directory it is
			t.Helper()
			cmd := s.program("sleep", "1000")
			cmd.Dir = dir
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			return func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }
		}

		s.umount(dead())
		dir := dead()
		s.ok("umount", image)
		s.gone(dir)
		dir = dead()
		s.ok("mount", image, dir)
		well("mounted over a dead one", dir)
		// By another path, and in the foreground.
		dir = dead()
		link := filepath.Join(s.dir, "link")
		if err := os.Symlink(dir, link); err != nil {
			t.Fatal(err)
		}
		s.ok("mount", image, link)
		s.fails(1, []string{"already a mount point", "imgfs umount " + dir}, "mount", image, dir)
		well("mounted over a dead one, by a symlink", dir)

		for _, command := range [][]string{{"umount"}, {"mount", image}, {"umount", "-l"}} {
			dir := s.mount(image)
			end := inside(dir)
			s.die(dir)
			s.ok(append(command, dir)...)
			if command[0] == "mount" {
				well("mounted over a dead one in use", dir)
			}
			s.gone(dir)
			end()
		}

		made := s.mountMade(image)
		s.die(made)
		s.ok("umount", made)
		missingSoon(t, "imgfs umount of a dead one", made)
		made = s.mountMade(image)
		s.die(made)
		s.ok("mount", image, made)
		well("mounted on a made directory", made)

		if !root {
			return
		}
		bind := func(from, to string) {
			t.Helper()
			if err := unix.Mount(from, to, "", unix.MS_BIND, ""); err != nil {
				t.Fatal(err)
			}
		}
		// Its bind mounts, of it and of a part.
		dir, whole, part := s.mount(image), s.mountpoint(), s.mountpoint()
		bind(dir, whole)
		if who.uid == 0 {
			bind(filepath.Join(dir, "etc"), part) // of another user's root cannot look there
		}
		s.die(dir)
		s.ok("umount", dir)
		s.gone(dir)
		s.gone(whole)
		s.gone(part)
		dir = s.mount(image)
		bind(dir, whole)
		s.die(dir)
		s.ok("umount", whole)
		s.gone(whole)
		s.gone(dir)

		// One under another: mounted by way of a parent, since imgfs does not.
		outer, low := s.mountpoint(), s.mount(image)
		on := filepath.Join(outer, "on")
		if err := os.Mkdir(on, 0o755); err != nil {
			t.Fatal(err)
		}
		high := s.mount(image)
		bind(low, on)
		bind(high, on)
		s.die(low)
		s.die(high)
		s.ok("umount", on)
		s.gone(on)

		if who.uid != 0 {
			s.deadOfOthers(image)
			return
		}
		// Something alive in it is named, and stays until that is gone.
		for _, command := range [][]string{{"umount"}, {"mount", image}} {
			dir := s.mount(image)
			sub := filepath.Join(dir, "etc")
			if err := unix.Mount("tmpfs", sub, "tmpfs", 0, ""); err != nil {
				t.Fatal(err)
			}
			s.die(dir)
			s.fails(1, []string{"unmount " + dir + ": in use by a mount on " + sub, "imgfs umount -l " + dir}, append(command, dir)...)
			if !mounted(sub) {
				t.Errorf("%s has taken what is mounted in the dead mount", command)
			}
			if err := unix.Unmount(sub, 0); err != nil {
				t.Fatal(err)
			}
			s.ok(append(command, dir)...)
			s.umountIf(dir)
		}
		// What is dead in it, too, goes.
		dir = s.mount(image)
		in := s.mount(image)
		bind(in, filepath.Join(dir, "etc"))
		s.die(in)
		s.die(dir)
		s.ok("umount", dir)
		s.gone(dir)
	})
}

// deadOfOthers has dead mounts of root and of a user who is not root on each other's
// directories.
func (s *sandbox) deadOfOthers(image string) {
	s.t.Helper()
	root := newSandbox(s.t)
	dir := s.mount(image)
	root.fails(1, []string{"already a mount point"}, "mount", image, dir)
	s.die(dir)
	root.ok("mount", image, dir)
	root.umount(dir)
	root.ok("mount", image, dir)
	root.die(dir)
	s.fails(1, []string{"mounted by root"}, "mount", image, dir)
	s.fails(1, []string{"another user's mount"}, "umount", dir)
	root.umount(dir)
}

// umountIf unmounts what is mounted, if there is anything.
func (s *sandbox) umountIf(dir string) {
	s.t.Helper()
	if mounted(dir) {
		s.umount(dir)
	}
	s.gone(dir)
}

// TestDeadForeign: the dead mount of another program is named, and stays.
func TestDeadForeign(t *testing.T) {
	t.Parallel()
	needFUSE(t)
	needRoot(t)
	s := newSandbox(t)
	image, dir := overlayImage(t, s, "a image"), s.mountpoint()
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	err = unix.Mount("host:/files", dir, "fuse.sshfs", 0, "fd="+strconv.Itoa(fd)+",rootmode=40000,user_id=0,group_id=0")
	if err = errors.Join(err, unix.Close(fd)); err != nil {
		t.Fatal(err)
	}
	s.fails(1, []string{"mount " + dir + ": ", "is dead", "host:/files of type fuse.sshfs", "fusermount3 -u " + dir}, "mount", image, dir)
	s.fails(1, []string{"unmount " + dir + ": not an imgfs mount: host:/files of type fuse.sshfs"}, "umount", dir)
	if !mounted(dir) {
		t.Error("it was unmounted")
	}
}

// TestWaitingNotDead: a mount whose server does not answer is not dead: it stays, and what
// asks for it waits for no longer than a moment.
func TestWaitingNotDead(t *testing.T) {
	testenv.Slow(t)
	forEachMounter(t, func(t *testing.T, who account) {
		t.Parallel()
		s := sandboxOf(t, who)
		image := overlayImage(t, s, "a image")
		for _, command := range [][]string{{"umount"}, {"umount", "-l"}} {
			dir := s.mount(image, "--io-uring=off")
			pid := servers(t, dir)[0]
			testenv.Stop(t, pid)
			s.fails(1, []string{"already a mount point", "does not answer", "imgfs umount -l " + dir}, "mount", image, dir)
			if !mounted(dir) {
				t.Fatal("what waits was unmounted")
			}
			if r := s.ok(append(command, dir)...); r.took > 2*time.Second {
				t.Errorf("%q of what does not answer took %v", command, r.took)
			}
			if mounted(dir) {
				t.Errorf("%q has left it", command)
			}
			if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
				t.Fatal(err)
			}
			s.gone(dir)
		}
	})
}

// servers returns the processes that hold the device of a mount, the one that serves it
// first.
func servers(t testing.TB, dir string) []int {
	t.Helper()
	_, minor, _ := strings.Cut(strings.Fields(tableLine(t, dir))[2], ":")
	pids := deviceHolders(minor)
	if len(pids) == 0 {
		t.Fatalf("nobody serves %s", dir)
	}
	for i, pid := range pids {
		if words := cmdline(pid); len(words) > 1 && words[1] != "__hold" {
			pids[0], pids[i] = pids[i], pids[0]
			break
		}
	}
	return pids
}
