//go:build linux

package main

import (
	"archive/tar"
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/imgfs/imgfs/testdata/labimage"
	"github.com/imgfs/imgfs/testdata/testenv"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

// leavesNothing fails if a container of a sandbox has left something, soon.
func (s *sandbox) leavesNothing() {
	s.t.Helper()
	var left []string
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		left, _ = filepath.Glob(filepath.Join(s.dir, "imgfs-run-*"))
		left = append(left, mountsBelow(s.dir)...)
		if len(left) == 0 {
			return
		}
	}
	s.t.Errorf("a container has left %q", left)
}

// runners are the users that run containers in tests.
func runners(t *testing.T) map[string]*sandbox {
	t.Helper()
	all := map[string]*sandbox{"user": ordinary(t)}
	if os.Geteuid() == 0 {
		all["root"] = newSandbox(t)
	}
	return all
}

// TestRun: each runtime runs commands, and what they end with comes out.
func TestRun(t *testing.T) {
	t.Parallel()
	testenv.Slow(t)
	needFUSE(t)
	image, static := "oci:"+runnables(t)["busybox"], "oci:"+runnables(t)["static"]
	const script = `id -u; pwd; echo "$A $0"; cat; echo > /srv/app/new; test -s /written; echo $?; echo error >&2; exit 7`
	for who, s := range runners(t) {
		for _, runtime := range []string{"crun", "runc", "bwrap"} {
			t.Run(who+" "+runtime, func(t *testing.T) {
				need(t, runtime)
				s := s.in(t)
				cmd := s.command("run", "-q", "--rm", "-i", "--runtime", runtime, "--entrypoint=", "-e", "A=b c", image, "sh", "-c", script, "-i")
				cmd.Stdin = strings.NewReader("input\n")
				r := s.finish(cmd)
				if want := "0\n/srv/app\nb c -i\ninput\n1\n"; r.code != 7 || r.stdout != want || r.stderr != "error\n" {
					t.Errorf("got exit code %d, stdout\n%sstderr\n%swant 7, error and\n%s", r.code, r.stdout, r.stderr, want)
				}
				for command, code := range map[string]int{"sh -c 'kill -9 $$'; exit $?": 137, "echo > /x": 1} {
					r := s.run("run", "-q", "--read-only", "--runtime", runtime, "--entrypoint=", image, "sh", "-c", command)
					if r.code != code {
						t.Errorf("%s: got exit code %d, stderr\n%swant %d", command, r.code, r.stderr, code)
					}
				}
				// An image without any directory to mount on.
				r = s.run("run", "-q", "--read-only", "-v", s.cache+":/made/cache", "-v", "/etc/passwd:/made/file:ro", "--runtime", runtime, static, "write", "/tmp/new", "say", "ran", "write", "/new")
				if r.code != 99 || r.stdout != "ran\n" || !strings.Contains(r.stderr, "read-only file system") {
					t.Errorf("read-only: got exit code %d, stdout\n%sstderr\n%s", r.code, r.stdout, r.stderr)
				}
				if r := s.run("run", "-q", "--runtime", runtime, static, "keyrings"); r.stdout != "operation not permitted\n" {
					t.Errorf("keyrings: got exit code %d, stdout\n%sstderr\n%s", r.code, r.stdout, r.stderr)
				}
				if r := s.run("run", "-q", "-u", ":5", "--runtime", runtime, "--entrypoint=", image, "id", "-g"); who == "root" && r.stdout != "5\n" {
					t.Errorf("-u :5: got exit code %d, stdout\n%sstderr\n%s", r.code, r.stdout, r.stderr)
				}
				s.leavesNothing()
			})
		}
	}
}

// TestRunRefuses: what cannot be run is told in a line, and what to type in another, by run
// with the exit codes of podman, and by bundle; and nothing is left.
func TestRunRefuses(t *testing.T) {
	t.Parallel()
	testenv.Slow(t)
	needFUSE(t)
	need(t, "crun")
	s, busybox := newSandbox(t), "oci:"+runnables(t)["busybox"]
	foreign := filepath.Join(publicDir(t), "layout")
	img := labimage.Runnable{Config: ocispec.ImageConfig{Cmd: []string{"/bin/sh"}}, Architecture: "s390x", Layers: []labimage.Layer{func(a *labimage.Archive) error {
		return errors.Join(a.Dir("bin"), a.File("bin/sh", "\x7fELF\x02\x02\x01"+strings.Repeat("\x00", 11)+"\x16"+strings.Repeat("\x00", 45), labimage.Mode(0o755)))
	}}}
	if _, err := img.Write(foreign); err != nil {
		t.Fatal(err)
	}
	s.ok("index", busybox)
	s.ok("index", "--platform", "linux/s390x", "oci:"+foreign)
	before := machineOf(t, s)
	for _, c := range []struct {
		flags, image, command string
		code                  int
		says                  []string
	}{
		{"--entrypoint=", busybox, "nosuch", 127, []string{"command nosuch", "hint: imgfs find IMAGE -name NAME"}},
		{"--entrypoint=/no/such", busybox, "", 127, []string{"command /no/such: it is not in the image", "hint: "}},
		{"--entrypoint=", busybox, "/etc/passwd", 126, []string{"command /etc/passwd", "hint: "}},
		{"--entrypoint=", busybox, "", 125, []string{"no command: the image names none", "hint: name one"}},
		{"-u nosuch", busybox, "", 126, []string{"user nosuch: it is not in the image's /etc/passwd", "hint: -u UID"}},
		{"-u 0:nosuch", busybox, "", 126, []string{"group nosuch: it is not in the image's /etc/group", "hint: "}},
		{"--platform linux/s390x", busybox, "", 125, []string{"no such platform: linux/s390x; there is linux/amd64", "hint: choose one with --platform"}},
		{"--platform linux/s390x", "oci:" + foreign, "", 125, []string{"the image is for linux/s390x, which this machine does not execute", "hint: "}},
		{"", "oci:" + foreign, "", 125, []string{"the image is for linux/s390x", "hint: --platform OS/ARCH"}},
	} {
		for _, args := range [][]string{{"run"}, {"bundle"}} {
			args = append(append(args, strings.Fields(c.flags)...), c.image)
			code := c.code
			if args[0] == "bundle" {
				args, code = append(args, "new"), 1
			}
			r := s.run(append(args, strings.Fields(c.command)...)...)
			inLines(t, r, code, c.says...)
			if t.Failed() {
				t.Fatalf("imgfs %q", args)
			}
		}
	}
	for says, args := range map[string][]string{
		"the input device is not a TTY": {"-it", busybox},
		"--runtime kata":                {"--runtime", "kata", busybox},
		"run: no image named":           nil,
		"unknown flag":                  {"--detach", busybox},
	} {
		inLines(t, s.run(append([]string{"run"}, args...)...), 125, says)
	}
	before.asBefore(t, s)
}

// A lasting container is one that has begun, and does not end.
type lasting struct {
	sandbox    *sandbox
	run        *os.Process
	supervisor int
	ended      chan int // its exit code
}

// lasts runs a container that prints a line and goes on.
func (s *sandbox) lasts(runtime, image, script string) *lasting {
	s.t.Helper()
	cmd := s.command("run", "-q", "--runtime", runtime, "--entrypoint=", image, "sh", "-c", script+"; echo begun; while :; do sleep 0.1; done")
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		s.t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if line != "begun\n" {
		_ = cmd.Process.Kill()
		s.t.Fatalf("got %q, error %v", line, err)
	}
	l := &lasting{s, cmd.Process, 0, make(chan int, 1)}
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", cmd.Process.Pid))
	for _, name := range lists {
		if text, err := os.ReadFile(name); err == nil && len(text) > 0 {
			_, _ = fmt.Sscan(string(text), &l.supervisor)
		}
	}
	if l.supervisor == 0 {
		s.t.Fatal("the supervisor of the container is not known")
	}
	go func() {
		_, _ = io.Copy(io.Discard, out)
		_ = cmd.Wait()
		l.ended <- cmd.ProcessState.ExitCode()
	}()
	s.t.Cleanup(func() { _ = l.run.Kill() })
	return l
}

// code waits for the exit code of the run.
func (l *lasting) code() int {
	l.sandbox.t.Helper()
	select {
	case code := <-l.ended:
		return code
	case <-time.After(20 * time.Second):
		l.sandbox.t.Fatal("the run goes on")
		return 0
	}
}

// TestRunEnds: signals end a container, or are its own; and nothing is left, whoever is
// killed.
func TestRunEnds(t *testing.T) {
	t.Parallel()
	testenv.Slow(t)
	needFUSE(t)
	image := "oci:" + runnables(t)["busybox"]
	for who, s := range runners(t) {
		for _, runtime := range []string{"crun", "runc", "bwrap"} {
			t.Run(who+" "+runtime, func(t *testing.T) {
				need(t, runtime)
				s := s.in(t)
				for _, test := range []struct {
					script  string
					signal  syscall.Signal
					whoElse bool // the supervisor gets it
					want    int
				}{
					{":", unix.SIGTERM, false, 128 + int(unix.SIGTERM)},
					{"trap 'exit 9' TERM", unix.SIGTERM, false, 9},
					{"trap 'exit 5' INT", unix.SIGINT, false, 5},
					{":", unix.SIGKILL, false, -1},
					{":", unix.SIGKILL, true, 125},
				} {
					l := s.lasts(runtime, image, test.script)
					if test.whoElse {
						_ = unix.Kill(l.supervisor, test.signal)
					} else {
						_ = l.run.Signal(test.signal)
					}
					if got := l.code(); got != test.want {
						t.Errorf("%+v: got exit code %d", test, got)
					}
					for end := time.Now().Add(10 * time.Second); unix.Kill(l.supervisor, 0) == nil && !isZombie(l.supervisor); time.Sleep(10 * time.Millisecond) {
						if time.Now().After(end) {
							t.Fatalf("%+v: the supervisor goes on", test)
						}
					}
					s.leavesNothing()
				}
			})
		}
	}
}

func isZombie(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && strings.Contains(string(text), ") Z ")
}

// TestRunDevices: device nodes of an image are nobody's way to the machine.
func TestRunDevices(t *testing.T) {
	t.Parallel()
	testenv.Slow(t)
	needFUSE(t)
	layout := runnableWith(t, "busybox", func(a *labimage.Archive) error {
		return errors.Join(a.Dir("d"), a.Device("d/null", tar.TypeChar, 1, 3, labimage.Mode(0o666)), a.Device("d/kmsg", tar.TypeChar, 1, 11, labimage.Mode(0o666)),
			a.Device("d/loop", tar.TypeBlock, 7, 0, labimage.Mode(0o666)))
	})
	const script = "for d in /d/*; do (: < $d) 2> /dev/null && echo $d opens; ls $d; done; (: < /dev/null) && mv /d/null /tmp && : < /tmp/null"
	for who, s := range runners(t) {
		for _, runtime := range []string{"crun", "runc", "bwrap"} {
			for _, flags := range [][]string{nil, {"--read-only"}} {
				t.Run(who+" "+runtime+strings.Join(flags, " "), func(t *testing.T) {
					need(t, runtime)
					s := s.in(t)
					r := s.run(slices.Concat([]string{"run", "-q", "--runtime", runtime, "--entrypoint="}, flags, []string{"oci:" + layout, "sh", "-c", script})...)
					if r.code == 0 || r.stdout != "/d/kmsg\n/d/loop\n/d/null\n" {
						t.Errorf("got exit code %d, stdout\n%sstderr\n%s", r.code, r.stdout, r.stderr)
					}
				})
			}
		}
	}
}
