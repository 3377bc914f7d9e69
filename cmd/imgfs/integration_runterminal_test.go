//go:build linux

package main

import (
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/testdata/testenv"
)

// tiocvhangup is TIOCVHANGUP of <asm/ioctls.h>.
const tiocvhangup = 0x5437

// A ranProgram is a run of a container on a terminal, by imgfs or by podman.
type ranProgram struct {
	*terminal
	cmd    *exec.Cmd
	podman bool
	modes  unix.Termios // of the terminal, before
	ended  chan struct{}
	code   int // when it has ended
}

// startOn starts a program that has the terminal as its own, as a shell would.
func (w *terminal) startOn(cmd *exec.Cmd) *ranProgram {
	w.t.Helper()
	modes, err := unix.IoctlGetTermios(int(w.master.Fd()), unix.TCGETS)
	if err != nil {
		w.t.Fatal(err)
	}
	r := &ranProgram{terminal: w, cmd: cmd, modes: *modes, ended: make(chan struct{})}
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setsid, cmd.SysProcAttr.Setctty = true, true
	cmd.Stdin, cmd.Stdout, cmd.Stderr = w.tty, w.tty, w.tty
	cmd.Env = append(slices.Clone(cmd.Env), "TERM=xterm")
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	go func() {
		_ = cmd.Wait() // the code says what there is to say
		r.code = cmd.ProcessState.ExitCode()
		close(r.ended)
	}()
	w.t.Cleanup(r.kill)
	return r
}

// kill ends the program, if it has not ended.
func (r *ranProgram) kill() {
	_ = r.cmd.Process.Kill() // it may have ended
	<-r.ended
}

// sized resizes the terminal, and waits for the container to show that. podman is told
// again if it does not: its conmon takes sizes that it reads together for the first of them
// (containers/conmon#566).
func (r *ranProgram) sized(cols, rows int) {
	r.t.Helper()
	r.resize(cols, rows)
	want := fmt.Sprintf("size: %dx%d", cols, rows)
	for try := 0; r.podman && try < 10; try++ {
		if eventually(time.Second, func() bool { return slices.Contains(r.lines(), want) }) {
			break
		}
		_ = r.cmd.Process.Signal(unix.SIGWINCH) // if it has ended it shows nothing either
	}
	r.shows(want)
}

// end waits for the program's end, and checks that the terminal is as it was.
func (r *ranProgram) end() (code int) {
	r.t.Helper()
	select {
	case <-r.ended:
	case <-time.After(20 * time.Second):
		r.t.Fatalf("it does not end; the terminal shows:\n%s", strings.Join(r.lines(), "\n"))
	}
	r.restored()
	return r.code
}

func (r *ranProgram) restored() {
	r.t.Helper()
	var now *unix.Termios
	same := eventually(5*time.Second, func() (same bool) {
		var err error
		now, err = unix.IoctlGetTermios(int(r.master.Fd()), unix.TCGETS)
		return err == nil && *now == r.modes
	})
	if !same {
		r.t.Errorf("the terminal's modes are %+v, want %+v", now, r.modes)
	}
}

// A terminalCase is what somebody types at a container's terminal. What is shown in the
// end has to be what podman shows.
type terminalCase struct {
	name  string
	image string
	args  []string
	play  func(r *ranProgram)
}

var terminalCases = []terminalCase{
	{"sizes", "static", []string{"sizes", "exit", "3"}, func(r *ranProgram) {
		r.shows(`size: 80x24`)
		r.sized(101, 33)
		r.sized(40, 10)
		r.typed("\r")
	}},
	{"Ctrl-C", "busybox", []string{"sh", "-c", `trap 'echo interrupted; exit 5' INT; echo ready; while :; do sleep 0.1; done`}, func(r *ranProgram) {
		r.shows(`ready`)
		r.typed("\x03")
	}},
	{"Ctrl-D", "busybox", []string{"sh", "-c", `cat; echo "cat: $?"; tty; test -t 0 && test -t 1 && test -t 2 && exit 6`}, func(r *ranProgram) {
		r.typed("abc\r")
		r.shows(`(?s)abc.*abc`)
		r.typed("\x04")
	}},
	{"Ctrl-Z and Ctrl-\\", "static", []string{"signals", "exit", "7"}, func(r *ranProgram) {
		r.shows(`ready`)
		for key, name := range map[string]string{"\x1a": "SIGTSTP", "\x1c": "SIGQUIT", "\x03": "SIGINT"} {
			r.typed(key)
			r.shows(`signal: ` + name)
		}
		_ = r.cmd.Process.Signal(unix.SIGUSR1)
		r.shows(`signal: SIGUSR1`)
		_ = r.cmd.Process.Signal(unix.SIGUSR2)
	}},
	{"shell", "debian", []string{"bash", "--norc", "--noediting", "-i"}, func(r *ranProgram) {
		r.shows(`bash-.*[#$] $|bash-.*[#$]$`)
		r.typed("sleep 100\r")
		time.Sleep(300 * time.Millisecond) // it has the terminal
		r.typed("\x1a")
		r.shows(`(?s)Stopped.*bash-.*[#$]$`) // what is typed before that stands before the prompt
		r.typed("kill %1; stty -echo; exit 8\r")
	}},
}

// TestRunTerminal plays at the terminals of containers of imgfs run -it and of podman run -it.
func TestRunTerminal(t *testing.T) {
	testenv.Slow(t)
	needRun(t)
	images := runnables(t)
	for _, who := range whoRun(t) {
		t.Run(who.name, func(t *testing.T) {
			p := podmanOf(t, who)
			s := runSandbox(t, who)
			for _, layout := range images {
				s.ok("index", "oci:"+layout)
			}
			before := machineOf(t, s)
			t.Run("cases", func(t *testing.T) {
				for i, c := range terminalCases {
					t.Run(c.name, func(t *testing.T) {
						t.Parallel()
						play := func(t *testing.T, podman bool, cmd *exec.Cmd) (shown string, code int) {
							r := newTerminal(t, 80, 24).startOn(cmd)
							defer r.kill() // before the next podman
							r.podman = podman
							c.play(r)
							code = r.end()
							return strings.Join(r.lines(), "\n"), code
						}
						want, wantCode := func() (string, int) {
							p.mu.Lock()
							defer p.mu.Unlock()
							return play(t, true, p.runCommand(t, []string{"-it"}, images[c.image], c.args...))
						}()
						for j, runtime := range runtimes {
							if !fullRun() && (i+who.uid)%len(runtimes) != j {
								continue
							}
							args := append([]string{"run", "-it", "--runtime", runtime, "oci:" + images[c.image]}, c.args...)
							shown, code := play(t, false, s.in(t).command(args...))
							if code != wantCode || sameOnTerminal(shown) != sameOnTerminal(want) {
								t.Errorf("%s: exit code %d, podman has %d; shown:\n%s\npodman:\n%s", runtime, code, wantCode, shown, want)
							}
						}
					})
				}
			})
			before.asBefore(t, s)
		})
	}
}

var (
	ofChance = regexp.MustCompile(`\^[CZ\\]|signal: \w+`)
	ofPodman = regexp.MustCompile(`(?s)signal: SIGWINCH|\x1b?\[1;31m20.*No such process`) // it may be told of the first size; crun warns of process numbers
)

// sameOnTerminal returns what is shown but for what is left to chance: the order of keys
// and signals, and whether a size is seen twice.
func sameOnTerminal(shown string) string {
	shown = ofPodman.ReplaceAllString(shown, "")
	shown = strings.Replace(shown, "/dev/console", "/dev/pts/0", 1) // so bwrap calls it
	var sizes string
	lines := strings.Split(shown, "\n")
	lines = slices.DeleteFunc(lines, func(l string) bool {
		again := l == sizes || l == "size: 0x0" // of podman, before it has one
		if strings.HasPrefix(l, "size: ") {
			sizes = l
		}
		return again
	})
	// Which job is the current one may change before it is shown.
	shown = strings.ReplaceAll(strings.Join(lines, "\n"), "[1]-", "[1]+")
	words := ofChance.FindAllString(shown, -1)
	slices.Sort(words)
	return strings.Join(strings.Fields(ofChance.ReplaceAllString(shown, "")), " ") + strings.Join(words, " ")
}

// TestRunTerminalGoes: without its terminal, or killed, imgfs run leaves no container, and
// a terminal that is still there has its modes again.
func TestRunTerminalGoes(t *testing.T) {
	testenv.Slow(t)
	needRun(t)
	image := "oci:" + runnables(t)["static"]
	for i, who := range whoRun(t) {
		t.Run(who.name, func(t *testing.T) {
			s := runSandbox(t, who)
			s.ok("index", image)
			before := machineOf(t, s)
			for _, how := range []string{"hangup", "killed"} {
				t.Run(how, func(t *testing.T) {
					t.Parallel()
					w := newTerminal(t, 80, 24)
					r := w.startOn(s.in(t).command("run", "-it", "--runtime", runtimes[i%2], image, "say", "ready", "sleep", "1000"))
					r.shows(`ready`)
					if how == "hangup" {
						// As of a terminal that is closed; only root may have it by this call.
						if unix.IoctlSetInt(int(w.tty.Fd()), tiocvhangup, 0) != nil {
							_ = r.cmd.Process.Signal(unix.SIGHUP)
						}
						select {
						case <-r.ended:
						case <-time.After(20 * time.Second):
							t.Error("it goes on without its terminal")
						}
						return
					}
					_ = r.cmd.Process.Kill()
					<-r.ended
					r.restored()
				})
			}
			t.Run("after", func(t *testing.T) { before.asBefore(t, s) })
		})
	}
}
