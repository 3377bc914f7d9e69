package holder

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// nobody is a user who is not this one.
const nobody = 65534

// What lies where a holder leaves word may be a stranger's: it is read and removed only if
// it is a file of who has mounted, in a directory of theirs.
func TestGoneOfStrangers(t *testing.T) {
	const line = "2026-01-02T03:04:05Z \"/mnt/x\" \"why\"\n"
	me := os.Geteuid()
	for name, c := range map[string]struct {
		make func(dir, file string) error
		want bool
	}{
		"right": {func(dir, file string) error { return os.WriteFile(file, []byte(line), 0o600) }, true},
		"long": {func(dir, file string) error {
			return os.WriteFile(file, []byte(line+strings.Repeat("x", 1<<20)), 0o600)
		}, true},
		"one line": {func(dir, file string) error { return os.WriteFile(file, []byte(strings.Repeat("x", 1<<20)), 0o600) }, false},
		"FIFO":     {func(dir, file string) error { return unix.Mkfifo(file, 0o666) }, false},
		"endless":  {func(dir, file string) error { return os.Symlink("/dev/zero", file) }, false},
		"link": {func(dir, file string) error {
			return errors.Join(os.WriteFile(dir+"/x", []byte(line), 0o600), os.Symlink("x", file))
		}, false},
		"directory": {func(dir, file string) error { return os.Mkdir(file, 0o700) }, false},
		"open to others": {func(dir, file string) error {
			return errors.Join(os.WriteFile(file, []byte(line), 0o600), os.Chmod(dir, 0o777))
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := errors.Join(os.Chmod(dir, 0o700), c.make(dir, dir+"/0-99.gone")); err != nil {
				t.Fatal(err)
			}
			done := make(chan bool, 1)
			go func() {
				_, ok := ReadGone(dir, "0:99", me)
				done <- ok
			}()
			select {
			case ok := <-done:
				if ok != c.want {
					t.Errorf("it was read: %v, want %v", ok, c.want)
				}
			case <-time.After(10 * time.Second):
				t.Fatal("reading does not end")
			}
		})
	}

	dir := t.TempDir()
	file, link := dir+"/0-99.gone", filepath.Join(t.TempDir(), "link")
	if err := errors.Join(os.Chmod(dir, 0o700), os.WriteFile(file, []byte(line), 0o600), os.Symlink(dir, link)); err != nil {
		t.Fatal(err)
	}
	if _, ok := ReadGone(link, "0:99", me); ok {
		t.Error("it is read through a link")
	}
	Forget(link, "0:99", me)
	if !isThere(file) {
		t.Error("it is removed through a link")
	}
	if me == 0 {
		chown := func(dirs, files int) {
			t.Helper()
			if err := errors.Join(os.Chown(dir, dirs, -1), os.Chown(file, files, -1)); err != nil {
				t.Fatal(err)
			}
		}
		chown(nobody, nobody)
		if _, ok := ReadGone(dir, "0:99", 0); ok {
			t.Error("a stranger's word of root's mount is read")
		}
		if _, ok := ReadGone(dir, "0:99", nobody); !ok {
			t.Error("somebody's word of their own mount is not read")
		}
		Forget(dir, "0:99", 0)
		if !isThere(file) {
			t.Error("a stranger's file is removed")
		}
		chown(0, nobody)
		if _, ok := ReadGone(dir, "0:99", 0); ok {
			t.Error("a stranger's file in a directory of root's is read")
		}
		chown(0, 0)
	}
	Forget(dir, "0:99", me)
	if isThere(file) {
		t.Error("it is not removed")
	}
}

// pretend starts a process of a user whose command line is that of a holder.
func pretend(t *testing.T, uid int, name, sockets string) int {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mkfifo(dir+"/"+Command, 0o600); err != nil { // nobody writes: it waits
		t.Fatal(err)
	}
	for at := dir; at != "/" && at != os.TempDir(); at = filepath.Dir(at) {
		if err := os.Chmod(at, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(dir+"/"+Command, 0o666); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("cat", Command, name, "sockets="+sockets, "--")
	cmd.Dir = dir
	if uid != os.Geteuid() {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return cmd.Process.Pid
}

// Whoever has the command line of a mount's holder is taken for it if it is a process of who
// has mounted, and answers; and a server is believed if it is theirs.
func TestPretendedHolder(t *testing.T) {
	me, name := os.Geteuid(), fmt.Sprintf("9-%d", os.Getpid())
	device := strings.Replace(name, "-", ":", 1)
	dials := func(when string, want int) {
		t.Helper()
		c, status, err := Dial(t.Context(), device, me)
		if want == 0 {
			if !errors.Is(err, ErrNone) {
				t.Errorf("%s: %v, want %v", when, err, ErrNone)
			}
			return
		}
		if err != nil || c.Pid() != want || status.Holder != want {
			t.Errorf("%s: %v, %+v, %v, want %d", when, c, status, err, want)
		}
	}
	dials("at first", 0)
	if me == 0 {
		stranger := pretend(t, nobody, name, t.TempDir())
		dials("with a stranger's", 0)
		c := &Client{pid: 1, owner: 0}
		if s, err := c.parseStatus(fmt.Sprintf("status holder=7 server=%d state=watch reason=x", stranger)); err != nil || s.Server != 0 || s.Holder != 1 {
			t.Errorf("%+v, %v: a stranger's process is believed to serve", s, err)
		}
		if signalOwn(stranger, 0, 0, func(process) bool { return true }) {
			t.Error("a stranger's process is sent signals")
		}
	}
	s := newScene(t, fake{Name: name})
	dials("with the right one", s.Holder)
	silent := pretend(t, me, name, t.TempDir())
	dials("with one that does not answer", s.Holder)
	syscall.Kill(s.Server, syscall.SIGUSR1)
	s.await("unmounted")
	s.awaitNone()
	var err *SilentError
	if _, _, got := Dial(t.Context(), device, me); !errors.As(got, &err) || err.PID != silent || err.Stopped {
		t.Errorf("with none but that: %v", got)
	}
}

// A socket is believed that a process of who has mounted listens on.
func TestPeerOfStrangers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to be somebody else")
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	if err := (&Client{pid: os.Getpid(), owner: 0}).isPeer(pair[0]); err != nil {
		t.Error(err)
	}
	if err := (&Client{pid: 1, owner: 0}).isPeer(pair[0]); err != unix.ECONNREFUSED {
		t.Errorf("another process: %v", err)
	}
	runtime.LockOSThread() // and it ends with this goroutine
	if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, ^uintptr(0), nobody, ^uintptr(0)); errno != 0 {
		t.Fatal(errno)
	}
	other, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, ^uintptr(0), 0, ^uintptr(0)); errno != 0 {
		t.Fatal(errno)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(other[0])
	defer unix.Close(other[1])
	for owner, want := range map[int]error{0: unix.EPERM, nobody: nil} {
		if err := (&Client{pid: os.Getpid(), owner: owner}).isPeer(other[0]); err != want {
			t.Errorf("a mount of user %d: %v, want %v", owner, err, want)
		}
	}
}

// A holder that is stopped is named, and Continue continues it and its server.
func TestContinue(t *testing.T) {
	me, name := os.Geteuid(), fmt.Sprintf("8-%d", os.Getpid())
	device := strings.Replace(name, "-", ":", 1)
	s := newScene(t, fake{Name: name})
	if _, _, err := Dial(t.Context(), device, me); err != nil {
		t.Fatal(err)
	}
	stopped := func(want bool) {
		t.Helper()
		for _, pid := range []int{s.Server, s.Holder} {
			for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
				if p, ok := lookAt(pid); ok && p.stopped == want {
					break
				}
				if time.Now().After(end) {
					t.Fatalf("process %d: stopped is not %v", pid, want)
				}
			}
		}
	}
	syscall.Kill(s.Server, syscall.SIGSTOP)
	syscall.Kill(s.Holder, syscall.SIGSTOP)
	stopped(true)
	var silent *SilentError
	if _, _, err := Dial(t.Context(), device, me); !errors.As(err, &silent) || silent.PID != s.Holder || !silent.Stopped {
		t.Errorf("it is stopped, and asking it: %v", err)
	}
	Continue(t.Context(), device, me)
	stopped(false)
}

// Holders that are killed again and again are followed by others soon, so that a server
// which dies then is restarted.
func TestHolderKilledOften(t *testing.T) {
	s := newScene(t, fake{})
	for range 6 {
		s.kill(s.Holder)
		s.awaitHolder()
	}
	begun := time.Now()
	s.kill(s.Holder)
	s.awaitHolder()
	if took := time.Since(begun); took > 3*time.Second { // the pause is half a second
		t.Errorf("the next one came after %v", took)
	}
	s.kill(s.Server)
	s.Server = s.await("serves").PID
}
