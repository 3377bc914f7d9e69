//go:build linux

package fusefs

import (
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

	"github.com/imgfs/imgfs/testdata/testenv"
)

// mapRole has the kernel fetch a page of a mapped file for itself, and tells
// its thread and the result.
func mapRole(k task) error {
	runtime.LockOSThread()
	say("thread %d", unix.Gettid())
	fd, err := unix.Open(k.Dir, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	data, err := unix.Mmap(fd, 0, 4096, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	// Without readahead, whose reads are nobody's.
	if err := unix.Madvise(data, unix.MADV_RANDOM); err != nil {
		return err
	}
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return err
	}
	n, err := unix.Write(pipe[1], data)
	if err != nil {
		return err
	}
	say("%d bytes", n)
	return nil
}

// startReader starts a process that waits for a file of the tree "faulty".
func startReader(t *testing.T, c *child, w who, role, dir string) (reader *child, thread int) {
	t.Helper()
	reader = start(t, w.uid, task{Role: role, Dir: filepath.Join(dir, "slow")})
	t.Cleanup(func() { _ = reader.cmd.Process.Kill() })
	if _, err := fmt.Sscanf(reader.next(), "thread %d", &thread); err != nil {
		t.Fatal(err)
	}
	c.expect("blocked")
	return reader, thread
}

// sendSignals sends a reader signals that do not mean the read: its thread some
// of its own, and its process others, which it is stopped by in the end.
func sendSignals(t *testing.T, reader *child, thread int) {
	t.Helper()
	pid := reader.cmd.Process.Pid
	for _, sig := range []syscall.Signal{unix.SIGURG, unix.SIGWINCH, unix.SIGCHLD, unix.SIGALRM} {
		if err := unix.Tgkill(pid, thread, sig); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(3 * askSignals / 2)
	for _, sig := range []syscall.Signal{unix.SIGWINCH, unix.SIGCHLD, unix.SIGSTOP, unix.SIGCONT} {
		if err := unix.Kill(pid, sig); err != nil {
			t.Fatal(err)
		}
		time.Sleep(askSignals / 4)
	}
	time.Sleep(askSignals)
}

func TestSignalsWait(t *testing.T) {
	testenv.Slow(t)
	forEachMode(t, testSignalsWait)
}

// testSignalsWait: a read goes on though its caller gets signals, and once.
func testSignalsWait(t *testing.T, w who) {
	for _, role := range []string{"read", "map"} {
		t.Run(role, func(t *testing.T) {
			c, dir := serve(t, w, task{Tree: "faulty"})
			reader, thread := startReader(t, c, w, role, dir)
			sendSignals(t, reader, thread)
			c.send("release")
			reader.expect("4096 bytes")
			if err := reader.cmd.Wait(); err != nil {
				t.Errorf("the reader ended with %v", err)
			}
			if logs := c.logged(); len(logs) != 0 { // nor another word
				t.Errorf("the log is %q, want nothing", logs)
			}
		})
	}
}

func TestKilledAfterSignals(t *testing.T) {
	testenv.Slow(t)
	forEachMode(t, testKilledAfterSignals)
}

// testKilledAfterSignals: of what ends a process, or a read, the kernel does
// not tell after it told of another signal.
func testKilledAfterSignals(t *testing.T, w who) {
	for sig, want := range map[syscall.Signal]string{unix.SIGKILL: "", unix.SIGINT: "error: interrupted system call"} {
		t.Run(unix.SignalName(sig), func(t *testing.T) {
			c, dir := serve(t, w, task{Tree: "faulty"})
			reader, thread := startReader(t, c, w, "read", dir)
			sendSignals(t, reader, thread)
			if err := unix.Tgkill(reader.cmd.Process.Pid, thread, sig); err != nil {
				t.Fatal(err)
			}
			c.expect("interrupted")
			reader.expect(want)
			_ = reader.cmd.Wait()
			if logs := c.logged(); len(logs) != 0 {
				t.Errorf("the log is %q, want nothing", logs)
			}
		})
	}
}

func TestAbortAfterSignals(t *testing.T) {
	testenv.Slow(t)
	forEachMode(t, testAbortAfterSignals)
}

// testAbortAfterSignals: the end of the mount ends a read whose caller has
// signals, too.
func testAbortAfterSignals(t *testing.T, w who) {
	needRoot(t)
	c, dir := serve(t, w, task{Tree: "faulty"})
	abort := aborter(t, dir)
	reader, thread := startReader(t, c, w, "read", dir)
	sendSignals(t, reader, thread)
	abort()
	c.expect("interrupted")
	if got := reader.next(); !strings.HasPrefix(got, "error: ") {
		t.Errorf("the reader says %q, want an error", got)
	}
	c.ended()
}

func TestSignals(t *testing.T) {
	urg, kill, intr, abrt := signalSet(unix.SIGURG), signalSet(unix.SIGKILL), signalSet(unix.SIGINT), signalSet(unix.SIGABRT)
	for _, c := range []struct {
		name string
		s    signals
		want bool
	}{
		{"none", signals{true, 0, urg | intr}, true},
		{"not seen", signals{}, false},
		{"handled", signals{true, urg, urg}, true},
		{"stop", signals{true, signalSet(unix.SIGTSTP), 0}, true},
		{"real time", signals{true, 1 << 33, 1 << 33}, true},
		{"killed", signals{true, kill, 0}, false},
		{"killed beside another", signals{true, kill | urg, urg}, false},
		{"interrupted", signals{true, intr, intr}, false},
		{"interrupted beside another", signals{true, intr | urg, intr | urg}, false},
		{"interrupted, and traced", signals{true, intr, 0}, false},
		{"aborted", signals{true, abrt, 0}, false},
		{"abort handled", signals{true, abrt, abrt}, true},
	} {
		if got := c.s.wait(); got != c.want {
			t.Errorf("%s: wait is %v, want %v", c.name, got, c.want)
		}
	}
}

// TestSignalsOf looks at a thread of its own.
func TestSignalsOf(t *testing.T) {
	runtime.LockOSThread() // it is not given back: its signals stay blocked
	set := unix.Sigset_t{Val: [16]uint64{signalSet(unix.SIGUSR1)}}
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &set, nil); err != nil {
		t.Fatal(err)
	}
	if err := unix.Tgkill(unix.Getpid(), unix.Gettid(), unix.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	got := ownThreads().signalsOf(uint32(unix.Gettid()))
	if !got.seen || got.pending&signalSet(unix.SIGUSR1) != 0 {
		t.Errorf("seen is %v, and %x are pending, want none that is blocked", got.seen, got.pending)
	}
	if want := signalSet(unix.SIGURG, unix.SIGSEGV); got.caught&want != want || got.caught&signalSet(unix.SIGKILL) != 0 {
		t.Errorf("%x are caught, want those of the runtime", got.caught)
	}
	for _, thread := range []uint32{0, 1 << 30} {
		if got := ownThreads().signalsOf(thread); got != (signals{}) {
			t.Errorf("thread %d has %+v", thread, got)
		}
	}
}

// TestHasEnded looks at processes in all states.
func TestHasEnded(t *testing.T) {
	own := ownThreads()
	if own.hasEnded(0) {
		t.Error("a process that is not known has ended")
	}
	if got := own.processOf(1 << 30); !own.hasEnded(got) { // no thread has that number
		t.Errorf("process %d of a thread that is no more has not ended", got)
	}
	if got := own.processOf(uint32(unix.Gettid())); got != unix.Getpid() || own.hasEnded(got) {
		t.Errorf("process %d, ended %v, want %d that has not", got, own.hasEnded(got), unix.Getpid())
	}
	sleep := exec.Command("sleep", "100")
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	pid := sleep.Process.Pid
	if own.hasEnded(pid) {
		t.Error("a process that sleeps has ended")
	}
	if err := sleep.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for begun := time.Now(); !own.hasEnded(pid); time.Sleep(time.Millisecond) {
		if time.Since(begun) > 20*time.Second {
			t.Fatal("a process that is only waited for has not ended")
		}
	}
	_ = sleep.Wait()
	if !own.hasEnded(pid) {
		t.Error("a process that is no more has not ended")
	}
}

// TestThreadsFarAway looks at a process by its number in a PID namespace of its own.
func TestThreadsFarAway(t *testing.T) {
	cmd := exec.Command("sh", "-c", "mount -t proc proc /proc && echo && exec sleep 100")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Skipf("no namespaces here: %v", err)
	}
	defer func() { _, _ = cmd.Process.Kill(), cmd.Wait() }()
	if n, _ := out.Read(make([]byte, 1)); n == 0 {
		t.Skip("no /proc for a namespace here")
	}
	proc, err := os.OpenFile(fmt.Sprintf("/proc/%d/root/proc", cmd.Process.Pid), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer proc.Close()
	far := threadsIn(proc)
	if got := far.processOf(1); got != 1 || far.hasEnded(got) || !far.signalsOf(1).seen {
		t.Errorf("process 1 is %d, ended: %v, its signals: %+v", got, far.hasEnded(got), far.signalsOf(1))
	}
	if own := os.Getpid(); !far.hasEnded(far.processOf(uint32(own))) || far.signalsOf(uint32(own)).seen {
		t.Errorf("there is a process %d, which only this namespace has", own)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if !far.hasEnded(1) {
		t.Error("process 1 has not ended with its namespace")
	}
	if none := threadsIn(nil); none.processOf(1) != 0 || none.signalsOf(1).seen {
		t.Error("something is known without a /proc")
	}
}
