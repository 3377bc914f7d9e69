//go:build linux

package main

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// anotherImgfs returns the path of a copy of the command that passes for another build of
// it, as its build ID is another one. change may replace words of it by others of the same
// length, each of which must be there once.
func anotherImgfs(t *testing.T, change ...string) string {
	t.Helper()
	name := imgfsBinary(t)
	f, err := elf.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	id := f.Section(".note.go.buildid")
	if id == nil {
		t.Fatal("the command has no build ID")
	}
	text := []byte(readFile(t, name))
	text[id.Offset+id.Size/2] ^= 1
	for i := 0; i < len(change); i += 2 {
		if n := bytes.Count(text, []byte(change[i])); n != 1 || len(change[i]) != len(change[i+1]) {
			t.Fatalf("the command has %q %d times", change[i], n)
		}
		text = bytes.Replace(text, []byte(change[i]), []byte(change[i+1]), 1)
	}
	path := filepath.Join(publicDir(t), "imgfs")
	if err := errors.Join(os.WriteFile(path, text, 0o700), os.Chmod(path, 0o755)); err != nil { // the umask
		t.Fatal(err)
	}
	return path
}

// showsAnother changes what the identity of a tree is made of.
var showsAnother = []string{"tree %d\n", "eert %d\n"}

// upgrade runs imgfs upgrade of a program, which must succeed.
func (s *sandbox) upgrade(program string, args ...string) result {
	s.t.Helper()
	r := s.finish(s.program(program, append([]string{"upgrade"}, args...)...))
	if r.code != 0 {
		s.t.Fatalf("upgrade %q: exit code %d, want 0\n%s%s\n%s", args, r.code, r.stdout, r.stderr, s.logOf())
	}
	return r
}

// isOf checks which program serves a mount, and would restart its server.
func (s *sandbox) isOf(dir, program string) {
	s.t.Helper()
	for _, pid := range []int{s.daemon(dir), s.holder(dir)} {
		exe := ""
		ok := eventually(soon, func() bool { // the holder executes it when it has answered
			exe, _ = os.Readlink("/proc/" + strconv.Itoa(pid) + "/exe")
			return strings.TrimSuffix(exe, " (deleted)") == program
		})
		if !ok {
			s.t.Errorf("process %d of %s is of %s, want %s", pid, dir, exe, program)
		}
	}
}

// TestUpgrade has other programs serve a mount whose readers go on: back and forth, the
// same one, and one that is removed from the disk, after which the server is killed.
func TestUpgrade(t *testing.T) {
	testenv.Slow(t)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, threeLayers()...)
	want := writeFile(t, filepath.Join(publicDir(t), "want"), noiseText(3<<20))
	old, other := imgfsBinary(t), anotherImgfs(t)
	forEachMounter(t, func(t *testing.T, who account) {
		s := sandboxOf(t, who)
		dir, stop := s.mount(image), filepath.Join(s.dir, "stop")
		script := `exec 3<"$0/noise"; while [ ! -e "$2" ]; do dd if="$0/noise" iflag=direct bs=64k status=none | cmp - "$1" || exit 1; ls -lR "$0" >"$2.ls" || exit 1; done; cmp - "$1" <&3`
		_, out, done := s.waiter("sh", "-c", script, dir, want, stop)
		for _, program := range []string{other, old, other} {
			before := s.stats(dir)
			if r := s.upgrade(program, dir); !strings.HasPrefix(r.stdout, dir+": imgfs ") || !strings.HasSuffix(r.stdout, " serves it now\n") {
				t.Errorf("upgrade says %q", r.stdout)
			}
			if now := s.served(dir, before); now.Recovery.LastWhy != "upgrade" {
				t.Errorf("recovery: %+v", now.Recovery)
			}
			s.isOf(dir, program)
		}
		pid := s.daemon(dir)
		if r := s.upgrade(other, dir); r.stdout != dir+": this program serves it already\n" || s.daemon(dir) != pid {
			t.Errorf("upgrade says %q", r.stdout)
		}
		before := s.stats(dir)
		s.upgrade(other, "-q", "-f", dir)
		s.served(dir, before)
		writeFile(t, stop, "")
		if err := ends(t, "the reader", done); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		gone := filepath.Join(publicDir(t), "imgfs")
		if err := exec.Command("cp", old, gone).Run(); err != nil {
			t.Fatal(err)
		}
		s.upgrade(gone, dir)
		s.isOf(dir, gone)
		if err := os.Remove(gone); err != nil {
			t.Fatal(err)
		}
		s.killed(dir)
		s.isOf(dir, gone)
		s.upgrade(other, dir)
		s.isOf(dir, other)
		s.holds(filepath.Join(dir, "noise"), noiseText(3<<20))
		s.ok("umount", dir)
		s.endSoon(dir)
	})
}

// TestUpgradeRefused: a program that shows another tree, one that is no imgfs, and mounts
// of one process change nothing.
func TestUpgradeRefused(t *testing.T) {
	testenv.Slow(t)
	needFUSE(t)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, small)
	s := newSandbox(t)
	dir, alone := s.mount(image), s.mount(image, "--no-recover")
	refused := func(program string, want int, words ...string) {
		t.Helper()
		pids := [2]int{s.daemon(dir), s.daemon(alone)}
		r := s.finish(s.program(program, append([]string{"upgrade"}, words[0])...))
		if r.code != want {
			t.Errorf("upgrade: exit code %d, want %d\n%s", r.code, want, r.stderr)
		}
		for _, w := range words {
			if !strings.Contains(r.stderr, w) {
				t.Errorf("upgrade says %q, without %q", r.stderr, w)
			}
		}
		if now := [2]int{s.daemon(dir), s.daemon(alone)}; now != pids {
			t.Errorf("the servers were %v, and are %v", pids, now)
		}
	}
	bad := anotherImgfs(t, showsAnother...)
	refused(bad, 1, dir, "it would not be the same mount: the tree is ", "; the mount is as it was\n")
	refused(bad, 1, alone, "its server cannot be changed", "hint: unmount it, and mount it again")
	refused(bad, 1, s.mountpoint(), "not an imgfs mount")
	s.killed(dir) // by the program that it was mounted with
	s.isOf(dir, imgfsBinary(t))

	// Of all, those that can be: the error of each is said.
	other, good := anotherImgfs(t), s.mount(image)
	r := s.finish(s.program(other, "upgrade", dir, alone, good))
	if r.code != 1 || !strings.Contains(r.stderr, "upgrade "+alone+": its server cannot be changed") || strings.Contains(r.stderr, good) || strings.Contains(r.stderr, dir) {
		t.Errorf("exit code %d, %s", r.code, r.stderr)
	}
	s.isOf(dir, other)
	s.isOf(good, other)
	for _, args := range [][]string{{"upgrade"}, {"upgrade", "--all", dir}} {
		s.fails(2, []string{"upgrade: "}, args...)
	}
	kill9(good)
	s.waitGone(good)
	if r := s.fails(1, []string{"upgrade " + good + ": no process serves it", "imgfs umount "}, "upgrade", good); r.stdout != "" {
		t.Errorf("upgrade says %q", r.stdout)
	}
	for _, d := range []string{dir, alone, good} {
		s.umount(d)
	}
}

// TestUpgradeStopped rescues those who wait for a server that is stopped.
func TestUpgradeStopped(t *testing.T) {
	testenv.Slow(t)
	needFUSE(t)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, threeLayers()...)
	s := newSandbox(t)
	dir, other := s.mount(image), anotherImgfs(t)
	before := s.stats(dir)
	testenv.Stop(t, before.PID)
	_, out, done := s.waiter("cat", filepath.Join(dir, "noise"))
	s.upgrade(other, dir)
	if err := ends(t, "the reader", done); err != nil || out.String() != noiseText(3<<20) {
		t.Errorf("it has read %d bytes: %v", out.Len(), err)
	}
	s.served(dir, before)
	s.umount(dir)
}

// TestUpgradeInterrupted ends imgfs upgrade while the other program gets ready, and has two
// of them at once. The mount is served, by either program.
func TestUpgradeInterrupted(t *testing.T) {
	testenv.Slow(t)
	needFUSE(t)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, threeLayers()...)
	s := newSandbox(t)
	dir, other := s.mount(image), anotherImgfs(t)
	for i, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGKILL} {
		pid := s.daemon(dir)
		cmd := s.program(other, "upgrade", "-f", dir) // -f: the one before may have been faster
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		next := 0
		if !eventually(soon, func() bool {
			for _, p := range serving(dir) {
				if p != pid && p != cmd.Process.Pid {
					next = p
				}
			}
			return next != 0
		}) {
			t.Fatal("nothing gets ready")
		}
		s.signal(next, syscall.SIGSTOP) // or it would be ready before
		s.signal(cmd.Process.Pid, sig)
		_ = cmd.Wait()
		_ = syscall.Kill(next, syscall.SIGCONT) // it has been killed
		if !eventually(backSoon, func() bool { return len(serving(dir)) == 1 }) {
			t.Fatalf("%d: %v serve it", i, serving(dir))
		}
		s.holds(filepath.Join(dir, "noise"), noiseText(3<<20))
	}
	all := make(chan result, 2)
	for range cap(all) {
		cmd := s.program(other, "upgrade", "-f", dir)
		go func() { all <- s.finish(cmd) }()
	}
	for range cap(all) {
		if r := <-all; r.code != 0 && !strings.Contains(r.stderr, "another upgrade is under way; the mount is as it was") {
			t.Errorf("exit code %d, %s", r.code, r.stderr)
		}
	}
	s.isOf(dir, other)
	s.holds(filepath.Join(dir, "noise"), noiseText(3<<20))
	s.umount(dir)
}

// TestUpgradePause measures how long one who asks all the time waits.
func TestUpgradePause(t *testing.T) {
	testenv.Slow(t)
	needFUSE(t)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, threeLayers()...)
	s := newSandbox(t)
	dir, programs := s.mount(image), []string{anotherImgfs(t), imgfsBinary(t)}
	var pauses []time.Duration
	for i := range 5 {
		stop, result := make(chan struct{}), make(chan time.Duration, 1)
		var asking sync.WaitGroup
		end := sync.OnceFunc(func() { close(stop); asking.Wait() })
		defer end()
		asking.Go(func() {
			longest := time.Duration(0)
			for {
				select {
				case <-stop:
					result <- longest
					return
				default:
				}
				begun := time.Now()
				if err := syscall.Statfs(dir, new(syscall.Statfs_t)); err != nil {
					t.Error(err)
				}
				longest = max(longest, time.Since(begun))
			}
		})
		s.upgrade(programs[i%2], dir)
		end()
		pauses = append(pauses, <-result)
	}
	t.Logf("pauses: %v", pauses)
	if p := least(pauses); p > 300*time.Millisecond {
		t.Errorf("the shortest pause was %v, want at most 0.3 s", p)
	}
	s.umount(dir)
}

// TestUpgradeAll upgrades what there is, of several users for root, by what packages call
// when they are installed. Others may have mounts on this machine: so it is in a mount
// namespace of its own.
func TestUpgradeAll(t *testing.T) {
	testenv.Slow(t)
	needFUSE(t)
	needRoot(t)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, small)
	m, user := newMachine(t, thisUser()), sandboxOf(t, otherUser(t))
	first, second, alone := m.mountpoint(), user.mountpoint(), m.mountpoint()
	imgfs, other := imgfsBinary(t), anotherImgfs(t)
	as := []string{"setpriv", fmt.Sprintf("--reuid=%d", user.uid), fmt.Sprintf("--regid=%d", user.gid), "--clear-groups", "env", "TMPDIR=" + user.dir}
	for _, args := range [][]string{
		{imgfs, "mount", image, first},
		append(as, imgfs, "mount", "--cache-dir="+user.cache, image, second),
		{imgfs, "mount", "--no-recover", image, alone},
	} {
		if r := m.does(args...); r.code != 0 {
			t.Fatalf("%q: exit code %d\n%s", args, r.code, r.stderr)
		}
	}
	pid := m.daemon(alone)
	r := m.does(other, "upgrade", "--all")
	if r.code != 1 || !strings.Contains(r.stderr, "upgrade "+alone+": its server cannot be changed") {
		t.Errorf("exit code %d, %s%s", r.code, r.stdout, r.stderr)
	}
	for _, dir := range []string{first, second} {
		if !strings.Contains(r.stdout, dir+": imgfs ") {
			t.Errorf("it says %s, and nothing of %s", r.stdout, dir)
		}
		m.isOf(dir, other)
	}
	if m.daemon(alone) != pid {
		t.Error("the server of a mount without a holder is another one")
	}
	for _, dir := range []string{first, second, alone} {
		m.well("umount", dir)
		m.gone(dir)
	}
	if r := m.does(other, "upgrade", "--all"); r.code != 0 || r.stdout != "" || r.stderr != "" {
		t.Errorf("with nothing mounted: exit code %d, %s%s", r.code, r.stdout, r.stderr)
	}
}

// least returns the shortest of some times.
func least(all []time.Duration) time.Duration {
	shortest := all[0]
	for _, d := range all {
		shortest = min(shortest, d)
	}
	return shortest
}

// TestUpgradeNoHolder: while there is no holder for a moment the next one is awaited, and
// if that takes too long it is said.
func TestUpgradeNoHolder(t *testing.T) {
	testenv.Slow(t)
	t.Parallel()
	needFUSE(t)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, small)
	s := newSandbox(t)
	dir := s.mount(image)
	before := s.stats(dir)
	files := func(limit *unix.Rlimit) (old unix.Rlimit) {
		t.Helper()
		if err := unix.Prlimit(before.PID, unix.RLIMIT_NOFILE, limit, &old); err != nil {
			t.Fatal(err)
		}
		return old
	}
	usual := files(nil)
	files(&unix.Rlimit{Cur: 1, Max: usual.Max}) // so that it can start none
	s.kill(s.holder(dir))
	s.fails(1, []string{"upgrade " + dir + ": ", "the next one is being started", "hint: imgfs upgrade " + dir}, "upgrade", "-f", dir)

	cmd := s.command("upgrade", "-f", dir)
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	files(&usual)
	if err := cmd.Wait(); err != nil || !strings.HasSuffix(out.String(), " serves it now\n") {
		t.Errorf("%v: %s%s", err, &out, &errs)
	}
	s.served(dir, before)
	s.umount(dir)
}
