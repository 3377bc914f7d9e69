//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/serve"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/testenv"
	"golang.org/x/sys/unix"
)

// hangingHelper puts a fusermount3 before that of the system which does not end
// while there is a file, whose path is returned.
func (s *sandbox) hangingHelper() (hang string) {
	s.t.Helper()
	need(s.t, "fusermount3")
	real, err := exec.LookPath("fusermount3")
	if err != nil {
		s.t.Fatal(err)
	}
	bin := filepath.Join(s.dir, "bin")
	hang = filepath.Join(s.dir, "hang")
	script := fmt.Sprintf("#!/bin/sh\nPATH=/bin:/usr/bin\nif test -e '%s'; then exec sleep 1000; fi\nexec '%s' \"$@\"\n", hang, real)
	if err := errors.Join(os.Mkdir(bin, 0o755), os.WriteFile(filepath.Join(bin, "fusermount3"), []byte(script), 0o755)); err != nil {
		s.t.Fatal(err)
	}
	s.env = append(s.env, "PATH="+bin+":"+os.Getenv("PATH"))
	return hang
}

// ordinary is a sandbox of an ordinary user.
func ordinary(t *testing.T) *sandbox {
	t.Helper()
	if os.Geteuid() == 0 {
		return sandboxOf(t, otherUser(t))
	}
	return newSandbox(t)
}

// TestHelperHangs: no command waits for a fusermount3 that hangs, and none ends
// so that the directory is dead unless the user insists.
func TestHelperHangs(t *testing.T) {
	testenv.Slow(t)
	t.Parallel()
	needFUSE(t)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, threeLayers()...)
	s := ordinary(t)
	hang := s.hangingHelper()
	dir := s.mountpoint()
	f := s.foreground(dir, image, dir)
	other := s.mount(image)
	writeFile(t, hang, "")

	r := s.fails(cli.ExitFailure, []string{"fusermount3: it does not answer"}, "mount", image, s.mountpoint())
	r2 := s.fails(cli.ExitFailure, []string{"fusermount3: it does not answer"}, "umount", other)
	if r.took > soon || r2.took > soon {
		t.Errorf("mount took %v, umount %v", r.took, r2.took)
	}
	// Ctrl-C at mount ends it before it gives up by itself.
	empty := s.mountpoint()
	cmd := s.command("mount", image, empty)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(300 * time.Millisecond)
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("imgfs mount succeeds")
	}
	s.gone(empty)

	// The server in the background stays, and tries again.
	if err := syscall.Kill(s.daemon(other), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	// That in the foreground says that it cannot.
	if err := f.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(s.cache, "imgfs.log")
	const served = "it is served on; another Ctrl-C or signal ends it and leaves "
	if !eventually(soon, func() bool { return strings.Contains(readFile(t, log), served+other+" dead") }) {
		t.Errorf("the log is %q", readFile(t, log))
	}
	if got := s.finish(s.program("cat", filepath.Join(other, "last"))); got.stdout != "last\n" {
		t.Errorf("%+v while the server cannot unmount", got)
	}
	if !eventually(soon, func() bool { return strings.Contains(f.stderr.String(), served+dir+" dead") }) {
		t.Errorf("it says %q", f.stderr)
	}
	if err := f.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := f.wait(t, "a second Ctrl-C"); err == nil || !strings.Contains(f.stderr.String(), served+dir+" dead") || !strings.Contains(f.stderr.String(), dir+" is left dead") {
		t.Errorf("%v, stderr %q", err, f.stderr)
	}
	if err := os.Remove(hang); err != nil {
		t.Fatal(err)
	}
	s.umount(dir)
	if !eventually(3*serve.RetryAfter, func() bool { return !mounted(other) }) {
		t.Errorf("%s is still mounted: %s", other, readFile(t, log))
	}
	s.gone(other)
}

// TestServerHangs: no command waits for a server that hangs longer than it
// takes to say so, or until Ctrl-C.
func TestServerHangs(t *testing.T) {
	testenv.Slow(t)
	needFUSE(t)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, small)
	s := newSandbox(t)
	dir := s.mount(image, "--io-uring=off")
	pid := s.daemon(dir)
	testenv.Stop(t, pid)
	defer syscall.Kill(pid, syscall.SIGCONT)
	t.Run("asked", func(t *testing.T) { // returns when all have
		for _, args := range [][]string{
			{"mount", image, dir},
			{"mount", image, filepath.Join(dir, "etc")},
			{"ls", filepath.Join(dir, "etc")},
			{"mount", filepath.Join(dir, "etc"), s.dir},
			{"stats", dir},
			{"stats", filepath.Join(dir, "etc/os-release")},
			{"umount", filepath.Join(dir, "etc")},
		} {
			t.Run(strings.Join(args, " "), func(t *testing.T) {
				t.Parallel()
				s.in(t).noAnswer(dir, args...)
			})
		}
	})
	s.ok("umount", "-l", dir)
	if mounted(dir) {
		t.Error("still mounted")
	}
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	s.gone(dir)
}

// noAnswer runs imgfs on a mount whose server hangs: it says so, in time, and Ctrl-C ends it
// before.
func (s *sandbox) noAnswer(dir string, args ...string) {
	s.t.Helper()
	r := s.run(args...)
	hint := "imgfs umount -l " + dir + "\n"
	if args[0] == "stats" && args[1] == dir {
		hint = "kill -CONT "
	}
	checkRefusal(s.t.(*testing.T), r, cli.ExitFailure, []string{"does not answer"}, hint)
	if r.took > 2*soon {
		s.t.Errorf("%q took %v", args, r.took)
	}
	cmd := s.command(args...)
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	time.Sleep(200 * time.Millisecond)
	begun := time.Now()
	if err := cmd.Process.Signal(os.Interrupt); err != nil && !errors.Is(err, os.ErrProcessDone) {
		s.t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil || time.Since(begun) > soon {
		s.t.Errorf("%q, Ctrl-C: %v after %v", args, err, time.Since(begun))
	}
}

// TestEndsThoughItHangs: a command that hangs in the kernel ends after a signal
// all the same. What hangs is an open of a FIFO that nobody writes to.
func TestEndsThoughItHangs(t *testing.T) {
	testenv.Slow(t)
	s := newSandbox(t)
	fifo := filepath.Join(s.dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(fifo, s.uid, s.gid); err != nil {
		t.Fatal(err)
	}
	for _, sig := range []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGQUIT} {
		cmd := s.command("ls", "oci-archive:"+fifo)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(300 * time.Millisecond)
		begun := time.Now()
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		err := cmd.Wait()
		if took := time.Since(begun); cmd.ProcessState.ExitCode() != cli.ExitFailure || stderr.String() != "imgfs: interrupted\n" || took > soon {
			t.Errorf("%v: %v after %v, stderr %q", sig, err, took, stderr.String())
		}
	}
}

// TestCredentialHelperHangs: Ctrl-C ends a command, and a mount that is under
// way, though a credential helper hangs, and the helper with it.
func TestCredentialHelperHangs(t *testing.T) {
	reg := registrytest.New(t, &registrytest.Options{Login: registrytest.Basic, User: "u", Password: "p"})
	image, _ := publish(t, reg, small)
	s := newSandbox(t)
	bin, asked := filepath.Join(s.dir, "bin"), filepath.Join(s.dir, "asked")
	path := writeFile(t, filepath.Join(bin, "docker-credential-test"), fmt.Sprintf("#!/bin/sh\necho $$ >'%s'\nsleep 1000\n", asked))
	if err := errors.Join(os.Chmod(bin, 0o755), os.Chmod(path, 0o755)); err != nil {
		t.Fatal(err)
	}
	auth := writeFile(t, filepath.Join(s.dir, "auth.json"), fmt.Sprintf(`{"credHelpers": {%q: "test"}}`, reg.Host()))
	s.env = append(s.env, "PATH="+bin+":"+os.Getenv("PATH"))
	for _, args := range [][]string{{"ls", image}, {"mount", image, s.mountpoint()}, {"mount", "-f", image, s.mountpoint()}} {
		cmd := s.command(append([]string{"--tls-verify=false", "--authfile=" + auth}, args...)...)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var helper int
		if !eventually(soon, func() bool {
			text, _ := os.ReadFile(asked)
			n, _ := fmt.Sscan(string(text), &helper)
			return n == 1
		}) {
			t.Fatal("the helper is not asked")
		}
		begun := time.Now()
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		err := cmd.Wait()
		if took := time.Since(begun); cmd.ProcessState.ExitCode() != cli.ExitFailure || !strings.Contains(stderr.String(), "imgfs: interrupted\n") || took > soon {
			t.Errorf("%q: %v after %v, stderr %q", args, err, took, &stderr)
		}
		if !eventually(soon, func() bool { return errors.Is(syscall.Kill(helper, 0), syscall.ESRCH) }) {
			t.Errorf("%q: the helper, process %d, goes on", args, helper)
		}
		if err := os.Remove(asked); err != nil {
			t.Fatal(err)
		}
	}
	s.waitGone(s.dir)
}
