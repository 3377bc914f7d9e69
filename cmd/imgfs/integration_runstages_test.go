//go:build linux

package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/testdata/testenv"
)

// inLines checks that a run ended with a code and said something of imgfs's own, in
// a line, and another for a warning or a hint.
func inLines(t *testing.T, r result, code int, words ...string) {
	t.Helper()
	said := progressLine.ReplaceAllString(r.stderr, "")
	lines := strings.Split(strings.TrimSuffix(said, "\n"), "\n")
	foreign := slices.ContainsFunc(lines, func(l string) bool { return !strings.HasPrefix(l, "imgfs: ") })
	if r.code != code || len(lines) > 2 || foreign || strings.ContainsAny(said, "\x1b\x07\x00") {
		t.Errorf("exit code %d after %v, want %d; stderr:\n%q", r.code, r.took, code, said)
	}
	for _, w := range words {
		if !strings.Contains(said, w) {
			t.Errorf("stderr has no %q:\n%s", w, said)
		}
	}
}

// runs waits until a program runs below a run.
func (r *liveRun) runs(args ...string) (pid int) {
	r.t.Helper()
	found := eventually(20*time.Second, func() bool {
		for _, p := range family(r.cmd.Process.Pid) {
			if words := cmdline(p); len(words) >= len(args) && slices.Equal(words[:len(args)], args) {
				pid = p
				return true
			}
		}
		return false
	})
	if !found {
		r.t.Fatalf("%q does not run below %q\n%s", args, r.cmd.Args, &r.stderr)
	}
	return pid
}

// result waits for the end of a run.
func (r *liveRun) result() (got result) {
	begun := time.Now()
	for l := range r.lines {
		got.stdout += l + "\n"
	}
	got.code, got.took = r.wait(), time.Since(begun)
	got.stderr = r.stderr.String()
	return got
}

// brokenRuntimes are programs in place of runtimes. $pid is where the process is to be said.
var brokenRuntimes = []struct {
	name, kind, script string
	terminal           bool
	signal             syscall.Signal // that imgfs run gets
	code               int
	says               string
}{
	{"fails", "crun", "exit 1", false, 0, 125, "crun: exit status 1"},
	{"fails", "bwrap", "exit 1", false, 0, 125, "bwrap has not executed the command"},
	{"garbage", "runc", `printf '\033[31mred\007\n\n%s\n' "$*" >&2; printf '\000\033garbage'; exit 3`, false, 0, 125, "runc: exit status 3"},
	{"garbage on a terminal", "runc", `printf '\033[31mred\007\n\nmore\n' >&2; exit 3`, true, 0, 125, `\x1b[31mred`},
	{"garbage for a log", "crun", `printf '{"msg":"a\\u001b[31m\\nb"}\n{garbage' >"${log#file:}"; exit 3`, false, 0, 125, `crun: a\x1b[31m b`},
	{"much", "crun", "head -c 60000 /dev/zero >&2; exit 1", false, 0, 125, "crun: exit status 1"},
	{"much on a terminal", "crun", "head -c 10000000 /dev/zero | tr '\\0' x >&2; exit 1", true, 0, 125, "crun: xxxx"},
	{"killed", "runc", "kill -9 $$", false, 0, 125, "runc: signal: killed"},
	{"killed", "bwrap", "kill -9 $$", false, 0, 125, "bwrap has not executed the command"},
	{"does nothing", "crun", "exit 0", false, 0, 125, "crun says no process"},
	{"does nothing", "bwrap", "exit 0", false, 0, 125, "bwrap has not executed the command"},
	{"no number", "crun", "echo banana >$pid", false, 0, 125, "crun says the process is"},
	{"process 1", "runc", "echo 1 >$pid", false, 0, 125, "runc says the process is"},
	{"does nothing on a terminal", "crun", "exit 0", true, 0, 125, "terminal"},
	{"leaves a process", "crun", "sleep 1000 & exit 1", false, 0, 125, "crun: exit status 1"},
	{"leaves a process on a terminal", "crun", "sleep 1000 & exit 1", true, 0, 125, "crun: exit status 1"},
	{"hangs", "runc", "sleep 1000 & wait", false, unix.SIGTERM, 143, "interrupted"},
	{"hangs on a terminal", "runc", "sleep 1000 & wait", true, unix.SIGTERM, 143, "interrupted"},
	{"hangs", "bwrap", "sleep 1000 & wait", false, unix.SIGTERM, 143, "interrupted"},
}

// TestRunBrokenRuntime: a runtime that does not do what it is to do is told in a line, and
// nothing is left of it.
func TestRunBrokenRuntime(t *testing.T) {
	testenv.Slow(t)
	needRun(t)
	image := "oci:" + runnables(t)["static"]
	noProgram := filepath.Join(publicDir(t), "crun")
	if err := os.WriteFile(noProgram, []byte("\x7fELFno program"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, who := range whoRun(t) {
		t.Run(who.name, func(t *testing.T) {
			s := runSandbox(t, who)
			s.ok("index", image)
			before := machineOf(t, s)
			t.Run("runtimes", func(t *testing.T) {
				for _, b := range brokenRuntimes {
					t.Run(b.kind+" "+b.name, func(t *testing.T) {
						t.Parallel()
						s := s.in(t)
						path := fakeRuntime(t, b.kind, `for a; do case $a in --pid-file=*) pid=${a#*=};; --log=*) log=${a#*=};; esac; done; `+b.script)
						args := []string{"run", "--runtime", path, image}
						if b.terminal {
							args = slices.Insert(args, 1, "-t")
						}
						r := startRun(t, s.command(args...))
						if b.signal != 0 {
							r.runs("sleep", "1000")
							r.signal(b.signal)
						}
						got := r.result()
						inLines(t, got, b.code, b.says)
						if got.stdout != "" || got.took > 15*time.Second {
							t.Errorf("after %v stdout is %.200q", got.took, got.stdout)
						}
					})
				}
			})
			inLines(t, s.run("run", "--runtime", noProgram, image), 125, "exec format error")
			before.asBefore(t, s)
		})
	}
}

// TestRunKilledAtRandom kills two processes of a run, or its runtime, at any time. What
// they cannot remove the next run does.
func TestRunKilledAtRandom(t *testing.T) {
	testenv.Slow(t)
	needRun(t)
	image := "oci:" + runnables(t)["busybox"]
	rounds := 5
	if fullRun() {
		rounds = 50
	}
	for _, who := range whoRun(t) {
		t.Run(who.name, func(t *testing.T) {
			s := runSandbox(t, who)
			s.ok("index", image)
			before := machineOf(t, s)
			for _, runtime := range runtimes {
				for i := range rounds {
					r := startRun(t, s.command("run", "--runtime", runtime, image, "sh", "-c", "sleep 0.2; probe sleep 0.2"))
					time.Sleep(rand.N(250 * time.Millisecond))
					pids := family(r.cmd.Process.Pid)
					if i%2 == 0 { // the runtime, if it can be met
						pids = slices.DeleteFunc(pids, func(pid int) bool { w := cmdline(pid); return len(w) == 0 || filepath.Base(w[0]) != runtime })
					}
					rand.Shuffle(len(pids), func(i, j int) { pids[i], pids[j] = pids[j], pids[i] })
					var killed []string
					for _, pid := range pids[:min(2, len(pids))] {
						killed = append(killed, fmt.Sprintf("%q", cmdline(pid)))
						_ = unix.Kill(pid, unix.SIGKILL) // it may have ended
					}
					got := r.result()
					said := progressLine.ReplaceAllString(got.stderr, "")
					if !slices.Contains([]int{0, 125, 137}, got.code) || got.took > 10*time.Second || strings.Count(said, "\n") > 2 {
						t.Errorf("%s: after %s were killed: exit code %d after %v\n%s", runtime, killed, got.code, got.took, said)
					}
				}
			}
			// Not while the last of their processes end, which have the directory's lock.
			for range 5 {
				s.ok("run", image, "true")
				if left, _ := filepath.Glob(filepath.Join(s.dir, "imgfs-run-*")); len(left) == 0 {
					break
				}
			}
			before.asBefore(t, s)
		})
	}
}
