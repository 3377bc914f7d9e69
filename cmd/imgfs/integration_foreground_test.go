//go:build linux

package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/testenv"
)

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
	testenv.Slow(t)
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
				t.Errorf("the occupant reads %q", got)
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
	testenv.Slow(t)
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
		t.Errorf("the occupant reads %q", got)
	}
}

// TestForegroundUnread: a server whose output nobody reads, as on a terminal that
// is stopped, hears signals and sees its unmount.
func TestForegroundUnread(t *testing.T) {
	testenv.Slow(t)
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
