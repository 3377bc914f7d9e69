//go:build linux

package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/testdata/testenv"
)

// TestUnmount ends mounts in every way there is: each time the daemon ends by
// itself.
func TestUnmount(t *testing.T) {
	testenv.Slow(t)
	l := newLab(t)
	ways := []struct {
		name string
		end  func(s *sandbox, dir string) *exec.Cmd
	}{
		{"imgfs umount", func(s *sandbox, dir string) *exec.Cmd { return s.command("umount", dir) }},
		{"imgfs umount --lazy", func(s *sandbox, dir string) *exec.Cmd { return s.command("umount", "--lazy", dir) }},
		{"fusermount3", func(s *sandbox, dir string) *exec.Cmd { return s.program("fusermount3", "-u", dir) }},
		{"umount", func(s *sandbox, dir string) *exec.Cmd { return s.program("umount", dir) }},
		{"SIGTERM", func(s *sandbox, dir string) *exec.Cmd {
			return s.program("kill", "-TERM", fmt.Sprint(s.daemon(dir)))
		}},
	}
	forEachMounter(t, func(t *testing.T, who account) {
		s := sandboxOf(t, who)
		for _, way := range ways {
			dir := s.mount(l.host + "/" + zoo)
			if r := s.finish(way.end(s, dir)); r.code != 0 || r.stderr != "" {
				t.Errorf("%s: exit code %d\n%s", way.name, r.code, r.stderr)
			}
			// A signal is answered a little later.
			if !eventually(10*time.Second, func() bool { return !mounted(dir) }) {
				t.Errorf("%s: still mounted", way.name)
			}
			s.gone(dir)
		}
		if log := readFile(t, filepath.Join(s.cache, "imgfs.log")); log != "" {
			t.Errorf("imgfs.log is %q, want it empty", log)
		}
	})
}

func readFile(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestDaemonIsDetached looks at the process in the background: it keeps
// nothing of where it was started.
func TestDaemonIsDetached(t *testing.T) {
	needFUSE(t)
	l := newLab(t)
	s := newSandbox(t)
	dir := s.mountpoint()
	// A relative path, the output into a pipe: cat ends when nobody has its
	// other end any more.
	sh := s.program("sh", "-c", `"$0" mount "$1" "$2" | cat`, imgfsBinary(t), l.host+"/"+zoo, filepath.Base(dir))
	if r := s.finish(sh); r.code != 0 || !strings.HasPrefix(r.stdout, "mounted "+l.host+"/"+zoo) || strings.Count(r.stdout, "\n") != 1 {
		t.Fatalf("exit code %d, stdout %q, stderr %q", r.code, r.stdout, r.stderr)
	}
	pid := s.daemon(dir)
	for link, want := range map[string]string{"cwd": "/", "fd/0": os.DevNull, "fd/1": os.DevNull, "fd/2": os.DevNull} {
		if got, err := os.Readlink(fmt.Sprintf("/proc/%d/%s", pid, link)); got != want || err != nil {
			t.Errorf("%s of the daemon is %q, %v, want %q", link, got, err, want)
		}
	}
	if sid, err := unix.Getsid(pid); sid != pid || err != nil {
		t.Errorf("the daemon %d is in the session %d, %v, want its own", pid, sid, err)
	}
	s.umount(dir)
}

// TestKilledDaemon leaves a mount that nobody serves, as --no-recover has it, and which can be
// unmounted.
func TestKilledDaemon(t *testing.T) {
	testenv.Slow(t)
	l := newLab(t)
	forEachMounter(t, func(t *testing.T, who account) {
		s := sandboxOf(t, who)
		image := l.host + "/" + zoo
		dir := s.mount(image, "--no-recover")
		if err := syscall.Kill(s.daemon(dir), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		s.waitGone(dir)
		if !mounted(dir) {
			t.Fatal("the kernel has unmounted it: this test proves nothing")
		}
		s.umount(dir)
	})
}

// TestForeground has Ctrl-C end a mount in the foreground.
func TestForeground(t *testing.T) {
	l := newLab(t)
	forEachMounter(t, func(t *testing.T, who account) {
		s := sandboxOf(t, who)
		for _, sig := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
			dir := s.mountpoint()
			cmd := s.command("mount", "-f", l.host+"/"+zoo, dir)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			line, err := bufio.NewReader(out).ReadString('\n')
			if !strings.HasPrefix(line, "mounted ") || err != nil || !mounted(dir) {
				t.Errorf("first line %q, %v, mounted: %v", line, err, mounted(dir))
			}
			if err := cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			if err := cmd.Wait(); err != nil {
				t.Errorf("after %v: %v, want a good end", sig, err)
			}
			s.gone(dir)
		}
	})
}

// TestUnmountBusy: a refusal to unmount names the processes that use the mount.
func TestUnmountBusy(t *testing.T) {
	testenv.Slow(t)
	l := newLab(t)
	forEachMounter(t, func(t *testing.T, who account) {
		s := sandboxOf(t, who)
		dir := s.mount(l.host + "/" + zoo)
		// The shell goes there: the test process may not.
		holder := s.program("sh", "-c", `cd "$0" && echo there && exec sleep 60`, filepath.Join(dir, "content"))
		out, err := holder.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := holder.Start(); err != nil {
			t.Fatal(err)
		}
		defer holder.Wait()
		defer holder.Process.Kill()
		if line, err := bufio.NewReader(out).ReadString('\n'); line != "there\n" {
			t.Fatalf("%q, %v", line, err)
		}
		eventually(10*time.Second, func() bool {
			comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", holder.Process.Pid))
			return string(comm) == "sleep\n"
		})
		s.fails(1, []string{"imgfs: unmount " + dir, fmt.Sprintf("in use by sleep (pid %d)", holder.Process.Pid)}, "umount", dir)
		if !mounted(dir) {
			t.Fatal("unmounted all the same")
		}
		s.ok("umount", "-l", dir)
		if mounted(dir) {
			t.Error("still mounted after umount -l")
		}
		s.daemon(dir) // serves on
		if err := holder.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		s.gone(dir)
	})
}

// TestMountpointTaken mounts where something is mounted already.
func TestMountpointTaken(t *testing.T) {
	l := newLab(t)
	forEachMounter(t, func(t *testing.T, who account) {
		s := sandboxOf(t, who)
		dir := s.mount(l.host + "/" + zoo)
		daemon := s.daemon(dir)
		r := s.fails(1, []string{"imgfs: mount " + dir, "already a mount point", l.host + "/" + zoo, "imgfs: hint: imgfs umount " + dir},
			"mount", l.host+"/"+goTree, dir)
		if r.stdout != "" || strings.Count(r.stderr, "\n") != 2 {
			t.Errorf("stdout %q, stderr %q: want two lines on stderr", r.stdout, r.stderr)
		}
		if n := len(mountsBelow(dir)); n != 1 || s.daemon(dir) != daemon {
			t.Errorf("%d mounts, want the first one alone", n)
		}
		s.umount(dir)
		s.fails(1, []string{"not an imgfs mount"}, "umount", dir)
	})
}
