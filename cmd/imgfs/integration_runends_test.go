//go:build linux

package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/serve"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// A liveRun is a container that has been started and whose output is read by lines.
type liveRun struct {
	t      testing.TB
	cmd    *exec.Cmd
	lines  chan string
	stderr bytes.Buffer
	once   sync.Once
	code   int // of wait
}

// startRun starts a run of a container, by imgfs or podman.
func startRun(t testing.TB, cmd *exec.Cmd) *liveRun {
	t.Helper()
	r := &liveRun{t: t, cmd: cmd, lines: make(chan string, 1000)}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = &r.stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(r.lines)
		for l := bufio.NewScanner(out); l.Scan(); {
			r.lines <- l.Text()
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		r.wait()
	})
	return r
}

// line returns the next line of output.
func (r *liveRun) line() string {
	r.t.Helper()
	select {
	case l, ok := <-r.lines:
		if !ok {
			r.wait()
			r.t.Fatalf("the output of %q has ended: exit code %d\n%s", r.cmd.Args, r.code, &r.stderr)
		}
		return l
	case <-time.After(20 * time.Second):
		r.t.Fatalf("%q prints nothing", r.cmd.Args)
	}
	return ""
}

// says waits for a line.
func (r *liveRun) says(want string) {
	r.t.Helper()
	for {
		if l := r.line(); l == want {
			return
		}
	}
}

// wait waits for the end, and returns the exit code; 128 and more is a signal.
func (r *liveRun) wait() int {
	r.once.Do(func() {
		for range r.lines { // or what is still there is lost
		}
		_ = r.cmd.Wait()
		status := r.cmd.ProcessState.Sys().(syscall.WaitStatus)
		if r.code = status.ExitStatus(); status.Signaled() {
			r.code = 128 + int(status.Signal())
		}
	})
	return r.code
}

func (r *liveRun) signal(s syscall.Signal) {
	r.t.Helper()
	if err := r.cmd.Process.Signal(s); err != nil {
		r.t.Fatal(err)
	}
}

// runThinned calls test for the runtimes that a case with a number is run with: all of
// them in make nightly, one else.
func runThinned(t *testing.T, i int, test func(t *testing.T, runtime string)) {
	for j, runtime := range runtimes {
		if fullRun() || i%len(runtimes) == j {
			t.Run(runtime, func(t *testing.T) { test(t, runtime) })
		}
	}
}

// TestRunSignals: the container gets the signals that imgfs run gets, as with podman run,
// and goes on after imgfs run was stopped.
func TestRunSignals(t *testing.T) {
	testenv.Slow(t)
	needRun(t)
	layout := runnables(t)["static"]
	sent := []syscall.Signal{unix.SIGTERM, unix.SIGUSR1, unix.SIGHUP, unix.SIGINT, unix.SIGQUIT}
	play := func(t *testing.T, cmd *exec.Cmd) (heard []string, code int) {
		r := startRun(t, cmd)
		r.says("ready")
		for _, s := range sent {
			r.signal(s)
			heard = append(heard, r.line())
		}
		r.signal(unix.SIGUSR2)
		return heard, r.wait()
	}
	// A plain user's podman is two processes, of which the first may miss signals.
	p := podmanOf(t, thisUser())
	var want []string
	var wantCode int
	func() {
		p.mu.Lock()
		defer p.mu.Unlock() // also if it fails: others wait for podman
		want, wantCode = play(t, p.runCommand(t, nil, layout, "signals", "exit", "9"))
	}()
	for _, who := range whoRun(t) {
		t.Run(who.name, func(t *testing.T) {
			s := runSandbox(t, who)
			s.ok("index", "oci:"+layout)
			before := machineOf(t, s)
			for _, runtime := range runtimes {
				command := func(args ...string) *exec.Cmd {
					return s.in(t).command(append([]string{"run", "--runtime", runtime, "oci:" + layout}, args...)...)
				}
				if heard, code := play(t, command("signals", "exit", "9")); code != wantCode || !slices.Equal(heard, want) {
					t.Errorf("%s: exit code %d, heard %q; podman's: %d, %q", runtime, code, heard, wantCode, want)
				}
				r := startRun(t, command("signals", "exit", "9"))
				r.says("ready")
				r.signal(unix.SIGSTOP)
				time.Sleep(50 * time.Millisecond)
				r.signal(unix.SIGUSR1)
				r.signal(unix.SIGCONT)
				r.says("signal: SIGUSR1")
				r.signal(unix.SIGUSR2)
				if code := r.wait(); code != 9 {
					t.Errorf("%s: exit code %d after SIGSTOP and SIGCONT, want 9\n%s", runtime, code, &r.stderr)
				}
			}
			before.asBefore(t, s)
		})
	}
}

// family returns the processes below a process, itself first.
func family(pid int) (pids []int) {
	pids = []int{pid}
	for i := 0; i < len(pids); i++ {
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pids[i]))
		for _, task := range tasks {
			text, _ := os.ReadFile(task)
			for _, word := range strings.Fields(string(text)) {
				if child, err := strconv.Atoi(word); err == nil {
					pids = append(pids, child)
				}
			}
		}
	}
	return pids
}

// TestRunKilled: whichever of the processes is killed, nothing is left of any.
func TestRunKilled(t *testing.T) {
	testenv.Slow(t)
	needRun(t)
	image := "oci:" + runnables(t)["busybox"]
	victims := []struct {
		name string
		code int // of imgfs run
		pick func(pids []int) []int
	}{
		{"imgfs run", 137, func(pids []int) []int { return pids[:1] }},
		{"what imgfs run started", 125, func(pids []int) []int { return pids[1:2] }},
		{"the container's first process", 137, func(pids []int) []int {
			return slices.DeleteFunc(pids, func(pid int) bool {
				words := cmdline(pid) // none of one that has ended meanwhile
				return len(words) == 0 || words[0] != "probe"
			})[:1]
		}},
		{"both ends", 137, func(pids []int) []int { return pids[:2] }},
	}
	for _, who := range whoRun(t) {
		t.Run(who.name, func(t *testing.T) {
			s := runSandbox(t, who)
			s.ok("index", image)
			before := machineOf(t, s)
			t.Run("killed", func(t *testing.T) {
				for i, v := range victims {
					t.Run(v.name, func(t *testing.T) {
						t.Parallel()
						runThinned(t, i, func(t *testing.T, runtime string) {
							r := startRun(t, s.in(t).command("run", "--runtime", runtime, image, "probe", "write", "/tmp/x", "say", "ready", "sleep", "1000"))
							r.says("ready")
							pids := family(r.cmd.Process.Pid)
							for _, pid := range v.pick(slices.Clone(pids)) {
								if err := unix.Kill(pid, unix.SIGKILL); err != nil {
									t.Error(err)
								}
							}
							if code := r.wait(); code != v.code || strings.Count(r.stderr.String(), "\n") > 2 {
								t.Errorf("exit code %d, want %d\n%s", code, v.code, &r.stderr)
							}
							for _, pid := range pids {
								if !eventually(10*time.Second, func() bool { return unix.Kill(pid, 0) != nil || len(cmdline(pid)) == 0 }) {
									t.Errorf("process %d still runs: %q", pid, cmdline(pid))
								}
							}
						})
					})
				}
			})
			// What two that were killed have left the next one removes.
			s.ok("run", image, "true")
			before.asBefore(t, s)
		})
	}
}

// TestRunInterrupted: Ctrl-C ends imgfs run at whichever stage it is, soon and without a trace.
func TestRunInterrupted(t *testing.T) {
	testenv.Slow(t)
	needRun(t)
	who := thisUser()
	image := "oci:" + runnables(t)["busybox"]
	s := runSandbox(t, who)
	s.ok("index", image)
	_, slow := slowImage(t, 60)
	hanging := fakeRuntime(t, "crun", "sleep 1000 & wait")
	before := machineOf(t, s)
	for name, args := range map[string][]string{
		"reading the image": {slow, "true"},
		"in the runtime":    {"--runtime", hanging, image, "true"},
		"in the container":  {image, "sleep", "1000"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, sig := range []syscall.Signal{unix.SIGINT, unix.SIGTERM} {
				r := startRun(t, s.in(t).command(append([]string{"run"}, args...)...))
				time.Sleep(400 * time.Millisecond)
				begun := time.Now()
				r.signal(sig)
				code := r.wait()
				if took := time.Since(begun); took > 5*time.Second {
					t.Errorf("%v: it takes %v to end", sig, took)
				}
				said := progressLine.ReplaceAllString(r.stderr.String(), "")
				if code != 128+int(sig) || strings.Count(said, "\n") > 2 {
					t.Errorf("%v: exit code %d, want %d\n%s", sig, code, 128+int(sig), &r.stderr)
				}
			}
			before.asBefore(t, s)
		})
	}
	// At any time there is, also between the stages.
	for delay := time.Duration(0); delay < 300*time.Millisecond; delay += 23 * time.Millisecond {
		r := startRun(t, s.command("run", image, "true"))
		time.Sleep(delay)
		_ = r.cmd.Process.Signal(unix.SIGINT) // it may have ended
		if code := r.wait(); code != 0 && code != 130 {
			t.Errorf("interrupted after %v: exit code %d\n%s", delay, code, &r.stderr)
		}
	}
	before.asBefore(t, s)
}

// TestRunInterruptedFirst: a signal that came before imgfs run began has the exit code of
// one that comes later, also if what it does then hangs; other commands fail of it.
func TestRunInterruptedFirst(t *testing.T) {
	ctx, stop := serve.UntilSignal(t.Context())
	defer stop()
	if err := unix.Kill(os.Getpid(), unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-ctx.Done()
	image := "oci:" + runnables(t)["static"]
	for name, want := range map[string]int{"run": 128 + int(unix.SIGTERM), "ls": cli.ExitFailure} {
		e := newEnv(io.Discard, io.Discard)
		code := e.run(ctx, []string{name, image})
		if hangs := e.interruptedCode(ctx); code != want || hangs != want {
			t.Errorf("%s: exit code %d, %d if it hangs, want %d", name, code, hangs, want)
		}
	}
}

// fakeRuntime makes a program that is called as a runtime is.
func fakeRuntime(t testing.TB, name, script string) (path string) {
	t.Helper()
	path = filepath.Join(publicDir(t), name)
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestRunPipes: a reader that goes away ends the container as it would end the program,
// and a background process in the container does not hold imgfs run.
func TestRunPipes(t *testing.T) {
	testenv.Slow(t)
	needRun(t)
	image := "oci:" + runnables(t)["busybox"]
	for i, who := range whoRun(t) {
		t.Run(who.name, func(t *testing.T) {
			s := runSandbox(t, who)
			s.ok("index", image)
			before := machineOf(t, s)
			cmd := s.command("run", "--runtime", runtimes[i], image, "sh", "-c", "while echo y; do :; done")
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(out, make([]byte, 100)); err != nil {
				t.Error(err)
			}
			out.Close()
			_ = cmd.Wait() // podman too has the shell's code here
			r := s.run("run", "--runtime", runtimes[i], image, "sh", "-c", "sleep 1000 & echo done")
			if r.code != 0 || r.stdout != "done\n" || r.took > 10*time.Second {
				t.Errorf("with a process in the background: exit code %d after %v, stdout %q\n%s", r.code, r.took, r.stdout, r.stderr)
			}
			before.asBefore(t, s)
		})
	}
}
