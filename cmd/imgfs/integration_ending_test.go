package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"golang.org/x/sys/unix"
)

// soon is how long what takes a second may take on a busy machine, and still is
// told from what takes for ever.
const soon = 8 * time.Second

// A holder is a process of a sandbox's user that stands in a mounted tree and
// has a file of it open.
type holder struct {
	t     testing.TB
	cmd   *exec.Cmd
	stdin io.WriteCloser
	out   *bufio.Reader
}

// hold starts a holder.
func (s *sandbox) hold(dir string) *holder {
	s.t.Helper()
	cmd := s.program("sh", "-c", `exec 7<"$0/noise"; cd "$0/etc"; echo there; read _; cat <&7 | wc -c; cat os-release; ls ..`, dir)
	h := &holder{t: s.t, cmd: cmd}
	var err error
	if h.stdin, err = cmd.StdinPipe(); err != nil {
		s.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(h.end)
	h.out = bufio.NewReader(out)
	if line, err := h.out.ReadString('\n'); line != "there\n" {
		s.t.Fatalf("the holder says %q, %v", line, err)
	}
	return h
}

// read has the holder read on, and returns what came of it.
func (h *holder) read() string {
	h.t.Helper()
	if _, err := io.WriteString(h.stdin, "\n"); err != nil {
		h.t.Fatal(err)
	}
	text, err := io.ReadAll(h.out)
	if err != nil {
		h.t.Fatal(err)
	}
	return string(text)
}

func (h *holder) end() {
	_ = h.cmd.Process.Kill()
	_ = h.cmd.Wait()
}

const heldText = "3145728\nNAME=small\n"

// clean checks that a directory is soon as it was before something was mounted
// on it.
func (s *sandbox) clean(dir string) {
	s.t.Helper()
	if !eventually(soon, func() bool { return !mounted(dir) }) {
		s.t.Errorf("%s is still mounted", dir)
	}
	if names, err := os.ReadDir(dir); err != nil || len(names) > 0 {
		s.t.Errorf("%s has %v, %v; want it empty", dir, names, err)
	}
}

// TestSignalWhileInUse sends what ends a server while somebody uses the tree:
// the directory is as it was before, and who uses it is served to the last.
func TestSignalWhileInUse(t *testing.T) {
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, threeLayers()...)
	forEachMounter(t, func(t *testing.T, who account) {
		s := sandboxOf(t, who)
		for _, c := range []struct {
			sig  syscall.Signal
			flag string
		}{
			{syscall.SIGTERM, "passthrough=off"}, {syscall.SIGINT, "io-uring=off"}, {syscall.SIGHUP, "quiet"}, {syscall.SIGQUIT, "quiet"},
			{syscall.SIGTERM, "passthrough=on"}, {syscall.SIGTERM, "io-uring=on"},
		} {
			t.Run(unix.SignalName(c.sig)+" "+c.flag, func(t *testing.T) {
				s := s.in(t)
				if c.sig == syscall.SIGHUP && signal.Ignored(c.sig) {
					t.Skip("these tests run under nohup")
				}
				if c.flag == "io-uring=on" {
					enableURing(t)
				}
				s.ok("index", "-q", image)
				s.dropBlobs() // what the holder reads comes from the registry, after the signal
				dir := s.mountpoint()
				r := s.run("mount", "-q", "--grace=5m", "--"+c.flag, image, dir)
				if r.code != 0 && strings.HasSuffix(c.flag, "=on") {
					t.Skip(r.stderr)
				}
				h := s.hold(dir)
				pid := s.daemon(dir)
				if err := syscall.Kill(pid, c.sig); err != nil {
					t.Fatal(err)
				}
				s.clean(dir)
				s.daemon(dir)
				if got := h.read(); !strings.HasPrefix(got, heldText) || !strings.Contains(got, "\nnoise\n") {
					t.Errorf("the holder reads %q, want %q and a list", got, heldText)
				}
				h.end()
				s.gone(dir)
				log := readFile(t, filepath.Join(s.cache, "imgfs.log"))
				if want := fmt.Sprintf("in use by sh (pid %d); detached: it ends when unused, in 5m0s at the latest", h.cmd.Process.Pid); !strings.Contains(log, want) {
					t.Errorf("the log has no %q:\n%s", want, log)
				}
			})
		}
	})
}

// enableURing lets mounts use io_uring during a test. The tests of fs/fusefs do
// the same: each holds a shared lock, and the last to go restores the parameter.
func enableURing(t *testing.T) {
	t.Helper()
	needRoot(t)
	const parameter = "/sys/module/fuse/parameters/enable_uring"
	f, err := os.Open(parameter)
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { f.Close() })
	was := readFile(t, parameter)
	if err := unix.Flock(int(f.Fd()), unix.LOCK_SH); err != nil {
		t.Fatal(err)
	}
	if was[0] == 'Y' {
		return
	}
	if err := os.WriteFile(parameter, []byte("Y"), 0); err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() {
		if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			_ = os.WriteFile(parameter, []byte("N"), 0)
		}
	})
}

// TestSignalTwice: a second signal ends what the first one did not, and so does
// the end of the grace. The directory is clean all the same.
func TestSignalTwice(t *testing.T) {
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, threeLayers()...)
	forEachMounter(t, func(t *testing.T, who account) {
		s := sandboxOf(t, who)
		for _, c := range []struct {
			name, grace string
			signals     int
			log         string
		}{
			{"second signal", "5m", 2, "ended though in use\n"},
			{"grace", "100ms", 1, "ended though in use: 100ms are over\n"},
			{"no grace", "0s", 1, "ended though in use: 0s are over\n"},
		} {
			t.Run(c.name, func(t *testing.T) {
				s := s.in(t)
				dir := s.mount(image, "--grace="+c.grace)
				h := s.hold(dir)
				pid := s.daemon(dir)
				for range c.signals {
					if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
						t.Fatal(err)
					}
					s.clean(dir)
				}
				s.gone(dir)
				if got := h.read(); strings.Contains(got, "os-release") && strings.HasPrefix(got, heldText) {
					t.Errorf("the holder reads %q, though nobody serves", got)
				}
				if log := readFile(t, filepath.Join(s.cache, "imgfs.log")); !strings.HasSuffix(log, c.log) {
					t.Errorf("the log does not end with %q:\n%s", c.log, log)
				}
			})
		}
		if r := s.run("mount", "--grace=-1s", image, s.mountpoint()); r.code != cli.ExitUsage {
			t.Errorf("--grace=-1s: exit code %d\n%s", r.code, r.stderr)
		}
	})
}

// TestSignalAfterLazyUnmount: a server that was unmounted lazily hears signals.
func TestSignalAfterLazyUnmount(t *testing.T) {
	needFUSE(t)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, threeLayers()...)
	s := newSandbox(t)
	dir := s.mount(image, "--grace=0s")
	h := s.hold(dir)
	s.ok("umount", "-l", dir)
	pid := s.daemon(dir)
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	s.gone(dir)
	if got := h.read(); strings.HasPrefix(got, heldText) {
		t.Errorf("the holder reads %q, though nobody serves", got)
	}
}

// TestSignalWithBindMount: what bind mounts have made of a mount is served on for
// the grace, and is gone with it, not dead.
func TestSignalWithBindMount(t *testing.T) {
	needFUSE(t)
	needRoot(t)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, threeLayers()...)
	for _, signals := range []int{1, 2} {
		s := newSandbox(t)
		dir, whole, part := s.mount(image, "--grace=2s"), s.mountpoint(), s.mountpoint()
		tool(t, "mount", "--bind", dir, whole)
		tool(t, "mount", "--bind", dir+"/etc", part)
		t.Cleanup(func() {
			for _, dir := range []string{whole, part} {
				_ = syscall.Unmount(dir, syscall.MNT_DETACH)
			}
		})
		pid := s.daemon(dir)
		for n := range signals {
			if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			s.clean(dir)
			if n == 0 {
				if _, err := os.ReadFile(part + "/os-release"); err != nil {
					t.Error(err)
				}
			}
		}
		s.waitGone(dir)
		for _, dir := range []string{whole, part} {
			if !eventually(soon, func() bool { return !mounted(dir) }) {
				t.Errorf("%d signals: %s is left dead", signals, dir)
			}
		}
	}
}

// A shared buffer is read while it is written.
type shared struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (s *shared) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.Write(p)
}

func (s *shared) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.String()
}

// A front is a mount in the foreground.
type front struct {
	cmd    *exec.Cmd
	stderr *shared
	ended  chan error
}

// foreground mounts in the foreground and waits until it is mounted.
func (s *sandbox) foreground(dir string, args ...string) *front {
	s.t.Helper()
	f := &front{cmd: s.command(append([]string{"mount", "-f"}, args...)...), stderr: &shared{}, ended: make(chan error, 1)}
	f.cmd.Stderr = f.stderr
	if err := f.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	go func() { f.ended <- f.cmd.Wait() }()
	s.t.Cleanup(func() { _ = f.cmd.Process.Kill() })
	if !eventuallyMounted(dir) {
		s.t.Fatalf("nothing is mounted: %s", f.stderr)
	}
	return f
}

// wait waits for the end, which must come soon.
func (f *front) wait(t *testing.T, what string) error {
	t.Helper()
	select {
	case err := <-f.ended:
		return err
	case <-time.After(soon):
		t.Fatalf("%s: it goes on", what)
		return nil
	}
}

// TestCtrlCWhileInUse: in the foreground Ctrl-C says what is going on.
func TestCtrlCWhileInUse(t *testing.T) {
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, threeLayers()...)
	forEachMounter(t, func(t *testing.T, who account) {
		for _, twice := range []bool{false, true} {
			s := sandboxOf(t, who)
			dir := s.mountpoint()
			f := s.foreground(dir, image, dir)
			h := s.hold(dir)
			if err := f.cmd.Process.Signal(os.Interrupt); err != nil {
				t.Fatal(err)
			}
			s.clean(dir)
			want := fmt.Sprintf("in use by sh (pid %d); detached: it ends when unused, in 30s at the latest; another Ctrl-C or signal ends it now", h.cmd.Process.Pid)
			if !eventually(soon, func() bool { return strings.Contains(f.stderr.String(), want) }) {
				t.Errorf("stderr %q, want %q in it", f.stderr, want)
			}
			if twice {
				if err := f.cmd.Process.Signal(os.Interrupt); err != nil {
					t.Fatal(err)
				}
			} else if got := h.read(); !strings.HasPrefix(got, heldText) {
				t.Errorf("the holder reads %q", got)
			} else {
				h.end()
			}
			if err := f.wait(t, "Ctrl-C"); err != nil || !strings.Contains(f.stderr.String(), want) {
				t.Errorf("twice %v: %v, stderr %q, want %q in it", twice, err, f.stderr, want)
			}
		}
	})
}

// TestForegroundWithoutReader: a server whose output nobody reads any more does
// not die of what it has to say at its end.
func TestForegroundWithoutReader(t *testing.T) {
	needFUSE(t)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, threeLayers()...)
	s := newSandbox(t)
	dir := s.mountpoint()
	cmd := s.command("mount", "-f", "--grace=5m", image, dir)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = w, w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	w.Close()
	if !eventuallyMounted(dir) {
		t.Fatal("nothing is mounted")
	}
	for lines := bufio.NewReader(r); ; {
		line, err := lines.ReadString('\n')
		if err != nil {
			t.Fatal(line, err)
		}
		if strings.HasPrefix(line, "mounted ") {
			break
		}
	}
	h := s.hold(dir)
	r.Close()
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	s.clean(dir)
	if got := h.read(); !strings.HasPrefix(got, heldText) {
		t.Errorf("the holder reads %q", got)
	}
}

// TestForegroundUnread: a server whose output nobody reads, as on a terminal that
// is stopped, hears signals and sees its unmount.
func TestForegroundUnread(t *testing.T) {
	needFUSE(t)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, threeLayers()...)
	s := newSandbox(t)
	for _, flag := range []string{"--quiet=false", "--verbose"} {
		for _, end := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, 0} {
			dir := s.mountpoint()
			s.ok("index", image)
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			fillPipe(t, w)
			cmd := s.command("mount", "-f", flag, image, dir)
			cmd.Stdout = w
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			w.Close()
			ended := make(chan error, 1)
			go func() { ended <- cmd.Wait() }()
			if !eventuallyMounted(dir) {
				t.Fatal("nothing is mounted")
			}
			time.Sleep(200 * time.Millisecond) // it writes
			if end == 0 {
				s.ok("umount", dir)
			} else if err := cmd.Process.Signal(end); err != nil {
				t.Fatal(err)
			}
			select {
			case err := <-ended:
				if err != nil {
					t.Error(err)
				}
			case <-time.After(soon):
				t.Errorf("%s, signal %d: it goes on", flag, end)
				_ = cmd.Process.Kill()
				<-ended
				tool(t, "umount", "-l", dir)
			}
			s.clean(dir)
		}
	}
}

// fillPipe writes to a pipe until it takes no more.
func fillPipe(t *testing.T, w *os.File) {
	t.Helper()
	if err := w.SetWriteDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	for _, p := range [][]byte{make([]byte, 4096), {0}} {
		for {
			if _, err := w.Write(p); err != nil {
				break
			}
		}
	}
}
