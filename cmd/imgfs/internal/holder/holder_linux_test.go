package holder

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/testdata/testenv"
)

// A server that dies is followed by another, which has what the first one had.
func TestServerDies(t *testing.T) {
	s := newScene(t, fake{Held: 300})
	for i := range 5 {
		s.kill(s.Server)
		e := s.await("starts")
		if e.Extra != "of the first" || len(e.Held) != 300 || e.Held[299] != "299" {
			t.Fatalf("the successor has environment %q and %d files", e.Extra, len(e.Held))
		}
		if i > 0 && e.Died != int(syscall.SIGKILL) {
			t.Fatalf("the successor was told that the last one was ended by %d", e.Died)
		}
		s.Server = s.await("serves").PID
		if got := s.status(); got.Server != s.Server || got.State != StateWatch || got.Restarts != i+1 || got.Holder != s.Holder {
			t.Fatalf("after %d deaths: %+v", i+1, got)
		}
	}
	syscall.Kill(s.Server, syscall.SIGUSR1)
	s.await("unmounted")
	s.awaitNone()
	if isThere(s.client().path) {
		t.Error("the socket is left")
	}
}

// A holder that dies is followed by another, which has all that the first one had.
func TestHolderDies(t *testing.T) {
	s := newScene(t, fake{Held: 3})
	for range 5 {
		s.kill(s.Holder)
		s.awaitHolder()
		s.kill(s.Server)
		if e := s.await("starts"); len(e.Held) != 3 || e.Held[2] != "2" || e.Holder != s.Holder {
			t.Fatalf("%+v; the holder is %d", e, s.Holder)
		}
		s.Server = s.await("serves").PID
	}
	syscall.Kill(s.Server, syscall.SIGUSR1)
	s.await("unmounted")
	s.awaitNone()
}

// Both die, one soon after the other.
func TestBothDie(t *testing.T) {
	s := newScene(t, fake{})
	for range 3 {
		s.kill(s.Holder) // the server notices, and starts another
		s.awaitHolder()
		s.kill(s.Server)
		s.Server = s.await("serves").PID
		s.kill(s.Server) // the holder notices, and starts another
		e := s.await("starts")
		s.kill(s.Holder)
		s.Server = s.await("serves").PID
		if s.Server != e.PID {
			t.Fatalf("%d serves, and not %d that was started", s.Server, e.PID)
		}
		s.awaitHolder()
	}
	if got := s.status(); got.State != StateWatch || got.Server != s.Server {
		t.Fatalf("%+v", got)
	}
}

// None comes up: a holder gives up, says why, and nothing is left.
func TestGivingUp(t *testing.T) {
	for name, c := range map[string]struct {
		fake
		says string
	}{
		"hangs":        {fake{Hang: true, Patience: time.Second}, "no server has come up within 1s"},
		"ends":         {fake{Exit: 7, Times: [4]time.Duration{0, 4}}, "4 servers have ended within 1m0s; the last one: it ended with exit code 7"},
		"ends serving": {fake{Exit: 7, ExitSoon: true, Times: [4]time.Duration{0, 3, time.Minute}}, "3 servers have ended within 1m0s; the last one: it ended with exit code 7"},
	} {
		t.Run(name, func(t *testing.T) {
			c.Log = filepath.Join(t.TempDir(), "log")
			s := newScene(t, c.fake)
			s.kill(s.Server)
			s.awaitNone()
			text, _ := os.ReadFile(c.Log)
			if want := " imgfs: /mnt/x: the mount is dead: " + c.says + "\n"; !strings.HasSuffix(string(text), want) || strings.Count(string(text), "\n") != 1 {
				t.Errorf("the log has %q, want one line with %q", text, want)
			}
			gone, ok := ReadGone(s.Sockets, "0:99", os.Geteuid())
			if !ok || gone.Reason != c.says || gone.Dir != "/mnt/x" || time.Since(gone.Time) > time.Minute {
				t.Errorf("left: %+v, %v", gone, ok)
			}
			if isThere(s.client().path) {
				t.Error("the socket is left")
			}
		})
	}
}

// A mount that is gone needs no server.
func TestMountGone(t *testing.T) {
	s := newScene(t, fake{})
	s.device.Close()
	if got := s.status(); got.State != StateGone || got.Server != s.Server {
		t.Errorf("%+v", got)
	}
	s.kill(s.Server)
	s.awaitNone()
	if _, ok := ReadGone(s.Sockets, "0:99", os.Geteuid()); ok {
		t.Error("it says that it gave up")
	}
}

// While none serves, who unmounts ends the holder; else nobody does.
func TestEnd(t *testing.T) {
	flag := filepath.Join(t.TempDir(), "flag")
	s := newScene(t, fake{Hang: true, Flag: flag})
	if err := s.client().End(t.Context()); err == nil || err.Error() != "a server serves the mount" {
		t.Fatalf("ended: %v", err)
	}
	os.WriteFile(flag, nil, 0o600)
	s.kill(s.Server)
	s.await("starts")
	if got := s.status(); got.State != StateStart {
		t.Errorf("%+v", got)
	}
	if err := s.client().End(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.awaitNone()
}

// SIGTERM to the holder unmounts, and it ends; other signals do nothing.
func TestSignals(t *testing.T) {
	s := newScene(t, fake{Ignore: true})
	s.status() // it listens to signals
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGQUIT, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGPIPE} {
		syscall.Kill(s.Holder, sig)
	}
	s.kill(s.Server)
	s.Server = s.await("serves").PID
	if got := s.status(); got.Holder != s.Holder {
		t.Fatalf("%+v", got)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.Server))
	if _, ignored, _ := strings.Cut(string(status), "SigIgn:\t"); err != nil || len(ignored) < 16 || ignored[15] != '1' {
		t.Errorf("the successor does not ignore SIGHUP as the first server did:\n%s", status)
	}
	syscall.Kill(s.Holder, syscall.SIGTERM)
	if e := s.await("unmounted"); e.Extra != "terminated" {
		t.Errorf("%+v", e)
	}
	s.awaitNone()
}

// The socket goes at the end of a session, with its directory.
func TestSocketGone(t *testing.T) {
	s := newScene(t, fake{Sockets: filepath.Join(t.TempDir(), strings.Repeat("long", 20), strings.Repeat("path", 20), "run")})
	os.MkdirAll(filepath.Dir(s.Sockets), 0o700)
	s.status() // its place was missing
	if err := os.RemoveAll(s.Sockets); err != nil {
		t.Fatal(err)
	}
	if got := s.status(); got.Server != s.Server {
		t.Fatalf("%+v", got)
	}
}

// A holder that is killed leaves its socket, which whoever ends after it removes.
func TestSocketRemoved(t *testing.T) {
	for name, do := range map[string]func(s *scene){
		"told to end": func(s *scene) { // and killed before it does
			testenv.Stop(s.T, s.Holder)
			syscall.Kill(s.Server, syscall.SIGUSR1)
			s.await("unmounted")
			s.kill(s.Holder)
		},
		"before": func(s *scene) { // and the server may have noticed or not
			testenv.Stop(s.T, s.Server)
			s.kill(s.Holder)
			syscall.Kill(s.Server, syscall.SIGUSR1)
			syscall.Kill(s.Server, syscall.SIGCONT)
			s.await("unmounted")
		},
		"with the server": func(s *scene) {
			testenv.Stop(s.T, s.Server)
			s.kill(s.Holder)
			s.kill(s.Server)
			s.awaitNone()
			if !isThere(s.client().path) {
				t.Error("something has removed the socket, which proves nothing")
			}
			next := newScene(t, fake{Sockets: s.Sockets})
			next.status()
			Forget(s.Sockets, "0:99", os.Geteuid()) // too early
			if !isThere(s.client().path) {
				t.Error("a socket is removed that somebody listens on")
			}
			next.kill(next.Holder)
			next.awaitHolder()
			next.kill(next.Server)
			next.Server = next.await("serves").PID
			testenv.Stop(next.T, next.Server)
			next.kill(next.Holder)
			next.kill(next.Server)
			next.awaitNone()
			// A process that ends has no command line any more before its files are closed.
			for end := time.Now().Add(5 * time.Second); isThere(s.client().path) && time.Now().Before(end); time.Sleep(time.Millisecond) {
				Forget(s.Sockets, "0:99", os.Geteuid())
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t, fake{})
			s.status() // it listens
			do(s)
			s.awaitNone()
			if isThere(s.client().path) {
				t.Error("the socket is left")
			}
		})
	}
}

// The program is removed from the disk.
func TestProgramGone(t *testing.T) {
	program := copyOfMe(t)
	s := newSceneOf(t, fake{}, program)
	if err := os.Remove(program); err != nil {
		t.Fatal(err)
	}
	s.kill(s.Server)
	s.Server = s.await("serves").PID
	s.kill(s.Holder)
	s.awaitHolder()
	s.kill(s.Server)
	s.await("serves")
}

// copyOfMe returns a copy of this program.
func copyOfMe(t *testing.T) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "copy")
	text, err := os.ReadFile("/proc/self/exe")
	if err == nil {
		err = os.WriteFile(name, text, 0o700)
	}
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// Clients that say nothing, or what is not known, hold nobody up.
func TestStrangeClients(t *testing.T) {
	s := newScene(t, fake{})
	s.status()
	for i := range maxClients - 1 {
		fd, err := s.client().connectOnce()
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		if i%2 == 0 {
			null, _ := os.Open(os.DevNull)
			send(fd, "upgrade "+strings.Repeat("x", 5000), int(null.Fd()), int(null.Fd()))
			null.Close()
		}
	}
	for range 20 {
		if got := s.status(); got.Server != s.Server {
			t.Fatalf("%+v", got)
		}
	}
	s.kill(s.Server)
	s.Server = s.await("serves").PID
}

// Others have no say, even if the directory lets them in.
func TestOtherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to be somebody else")
	}
	dir, err := os.MkdirTemp("", "holder")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	s := newScene(t, fake{Sockets: dir})
	s.status()
	for path, mode := range map[string]os.FileMode{dir: 0o755, s.client().path: 0o777} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	runtime.LockOSThread() // and it ends with this goroutine
	if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, ^uintptr(0), 65534, ^uintptr(0)); errno != 0 {
		t.Fatal(errno)
	}
	fd, err := s.client().connectOnce()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	unix.Poll(fds, 10000)
	if _, _, _, err := receive(fd); err != errEnd && err != unix.ECONNRESET {
		t.Errorf("the answer is %v", err)
	}
	if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, ^uintptr(0), 0, ^uintptr(0)); errno != 0 {
		t.Fatal(errno)
	}
}
