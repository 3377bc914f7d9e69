//go:build linux

package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/testenv"
	"golang.org/x/sys/unix"
)

// soon is how long something that takes a second may take on a busy machine. It is
// less than for ever.
const soon = 8 * time.Second

// An occupant is a process of a sandbox's user that stands in a mounted tree and
// has a file of it open.
type occupant struct {
	t     testing.TB
	cmd   *exec.Cmd
	stdin io.WriteCloser
	out   *bufio.Reader
}

// hold starts an occupant.
func (s *sandbox) hold(dir string) *occupant {
	s.t.Helper()
	cmd := s.program("sh", "-c", `exec 7<"$0/noise"; cd "$0/etc"; echo there; read _; cat <&7 | wc -c; cat os-release; ls ..`, dir)
	h := &occupant{t: s.t, cmd: cmd}
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
		s.t.Fatalf("the occupant says %q, %v", line, err)
	}
	return h
}

// read has the occupant read on, and returns what came of it.
func (h *occupant) read() string {
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

func (h *occupant) end() {
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

// TestSignalWhileInUse sends a signal to a server while somebody uses the tree: the
// directory is as it was before, and the tree is served until nobody uses it.
func TestSignalWhileInUse(t *testing.T) {
	testenv.Slow(t)
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
				s.dropBlobs() // what the occupant reads comes from the registry, after the signal
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
					t.Errorf("the occupant reads %q, want %q and a list", got, heldText)
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

// TestSignalTwice: a second signal ends a server that the first one did not, and so does
// the end of the grace. The directory is clean all the same.
func TestSignalTwice(t *testing.T) {
	testenv.Slow(t)
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
					t.Errorf("the occupant reads %q, though nobody serves", got)
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
		t.Errorf("the occupant reads %q, though nobody serves", got)
	}
}

// TestSignalWithBindMount: bind mounts of a mount are served for the grace, and are
// gone with it, not dead.
func TestSignalWithBindMount(t *testing.T) {
	testenv.Slow(t)
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
