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
)

// No process can be started for a while, and no thread: the holder stays, and goes on when
// there are some again. That does not count.
func TestShortage(t *testing.T) {
	for name, c := range map[string]struct {
		resource int
		says     string
		user     int
	}{
		"processes":   {unix.RLIMIT_NPROC, "resource temporarily unavailable", 65533},
		"descriptors": {unix.RLIMIT_NOFILE, "too many open files", 0},
	} {
		t.Run(name, func(t *testing.T) {
			if c.user != 0 && os.Geteuid() != 0 {
				t.Skip("needs root, to be somebody who may have no more processes")
			}
			t.Setenv("GOMAXPROCS", "1") // the runtime begins with few threads
			s := newScene(t, fake{User: c.user, Times: [4]time.Duration{0, 2}})
			s.status() // it listens
			before := threads(t, s.Holder)
			if before < spareThreads+4 { // that of main, that of signals, and two of the runtime's own
				t.Errorf("the holder has only %d threads", before)
			}
			descriptors, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.Holder))
			if err != nil {
				t.Fatal(err)
			}
			limit := uint64(1)
			if c.resource == unix.RLIMIT_NOFILE { // clients are still heard
				limit = uint64(len(descriptors)) - 1 // and the dead server had two
			}
			old := setLimit(t, c.user, s.Holder, c.resource, limit)
			s.kill(s.Server)
			for end := time.Now().Add(2 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
				syscall.Kill(s.Holder, syscall.SIGHUP) // which wakes threads
			}
			if got := s.status(); got.State != StateStart || got.Server != 0 || !strings.Contains(got.Reason, c.says) {
				t.Fatalf("%+v", got)
			}
			if now := threads(t, s.Holder); now != before {
				t.Errorf("the holder has %d threads, and had %d before", now, before)
			}
			setLimit(t, c.user, s.Holder, c.resource, old)
			s.Server = s.await("serves").PID
			if got := s.status(); got.Server != s.Server || got.Restarts != 1 {
				t.Fatalf("%+v", got)
			}
		})
	}
}

// A holder that cannot have another descriptor does not take a processor to let clients in,
// and answers when it can.
func TestNoRoomForClients(t *testing.T) {
	s := newScene(t, fake{})
	s.status()
	descriptors, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.Holder))
	if err != nil {
		t.Fatal(err)
	}
	old := setLimit(t, 0, s.Holder, unix.RLIMIT_NOFILE, uint64(len(descriptors)))
	knock, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(knock)
	if err := unix.Connect(knock, &unix.SockaddrUnix{Name: filepath.Join(s.Sockets, socketFile("0-99"))}); err != nil {
		t.Fatal(err)
	}
	before := processorTime(t, s.Holder)
	time.Sleep(1500 * time.Millisecond)
	if took := processorTime(t, s.Holder) - before; took > 200*time.Millisecond {
		t.Errorf("the holder took %s of processor time within 1.5 s", took)
	}
	setLimit(t, 0, s.Holder, unix.RLIMIT_NOFILE, old)
	if got := s.status(); got.Server != s.Server {
		t.Errorf("%+v", got)
	}
}

// processorTime is what a process has taken of processors.
func processorTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	var all time.Duration
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil || len(tasks) == 0 {
		t.Fatalf("no threads: %v", err)
	}
	for _, task := range tasks {
		text, err := os.ReadFile(task)
		if err != nil {
			continue // it has ended
		}
		var ran int64
		if _, err := fmt.Sscan(string(text), &ran); err != nil {
			t.Fatal(err)
		}
		all += time.Duration(ran)
	}
	return all
}

// setLimit sets a limit of a user's process, which another one's may not do without a
// capability that root may not have.
func setLimit(t *testing.T, user, pid, resource int, n uint64) (before uint64) {
	t.Helper()
	failed := make(chan error)
	go func() {
		runtime.LockOSThread() // and it ends with this goroutine
		if user != 0 {
			if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, uintptr(user), ^uintptr(0), ^uintptr(0)); errno != 0 {
				failed <- errno
				return
			}
		}
		var limit unix.Rlimit
		err := unix.Prlimit(pid, resource, nil, &limit)
		if before, limit.Cur = limit.Cur, n; err == nil {
			err = unix.Prlimit(pid, resource, &limit, nil)
		}
		failed <- err
	}()
	if err := <-failed; err != nil {
		t.Fatal(err)
	}
	return before
}

// threads is how many threads a process has.
func threads(t *testing.T, pid int) int {
	t.Helper()
	all, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// Servers may be killed as often as one likes, even before they serve: patience is what ends
// it. The pauses grow.
func TestKilledStarting(t *testing.T) {
	flag, log := filepath.Join(t.TempDir(), "flag"), filepath.Join(t.TempDir(), "log")
	s := newScene(t, fake{Hang: true, Flag: flag, Log: log, Patience: 5 * time.Second, Times: [4]time.Duration{0, 2}})
	s.status()
	os.WriteFile(flag, nil, 0o600)
	begun := time.Now()
	s.kill(s.Server)
	for range 5 { // 0, 0.1, 0.2, 0.4 and 0.8 s after the one before
		s.kill(s.await("starts").PID)
	}
	if took := time.Since(begun); took < 1500*time.Millisecond {
		t.Errorf("5 were started within %s", took)
	}
	os.Remove(flag)
	s.Server = s.await("serves").PID
	os.WriteFile(flag, nil, 0o600)
	s.kill(s.Server)
	ended := make(chan bool)
	go func() {
		defer close(ended)
		s.awaitNone()
	}()
	for alive := true; alive; { // until it gives up
		select {
		case <-ended:
			alive = false
		default:
			for _, pid := range s.ours() {
				if pid != s.Holder {
					syscall.Kill(pid, syscall.SIGKILL)
				}
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	if gone, ok := ReadGone(s.Sockets, "0:99", os.Geteuid()); !ok || !strings.HasPrefix(gone.Reason, "no server has come up within 5s; the last one: it was ended by signal 9 (") {
		t.Errorf("left: %+v, %v", gone, ok)
	}
}
