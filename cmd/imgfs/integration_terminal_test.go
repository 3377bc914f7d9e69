//go:build linux

package main

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// isBar reports whether a line of a terminal has something of a bar, or is the line
// about all.
func isBar(line string) bool {
	return strings.Contains(line, "[=") || strings.Contains(line, "[>") || regexp.MustCompile(`\d of \d+ layers|^fetching `).MatchString(line)
}

// bars returns the lines that have something of a bar.
func (w *terminal) bars() []string {
	return slices.DeleteFunc(w.lines(), func(line string) bool { return !isBar(line) })
}

// hasBars waits until there are bars, or none.
func (w *terminal) hasBars(want bool) {
	w.t.Helper()
	if !eventually(10*time.Second, func() bool { return (len(w.bars()) > 0) == want }) {
		w.t.Fatalf("bars: want %v, there is\n%s", want, strings.Join(w.lines(), "\n"))
	}
}

// slowImage is an image in a registry that takes so many seconds, or more, to send it.
func slowImage(t *testing.T, seconds int) (reg *registrytest.Server, image string) {
	t.Helper()
	reg = registrytest.New(t, nil)
	image, _ = publish(t, reg, threeLayers()...)
	slowly(reg, 16_000/seconds)
	return reg, image
}

// TestBarsStopped stops a command by Ctrl-Z, sends it to the background and to the
// foreground again, and ends it by Ctrl-C. Only while it has the terminal are there
// bars, and nothing of them stays.
func TestBarsStopped(t *testing.T) {
	testenv.Slow(t)
	t.Parallel()
	for _, command := range []string{"index", "mount", "mount --foreground"} {
		t.Run(command, func(t *testing.T) {
			if strings.HasPrefix(command, "mount") {
				needFUSE(t)
			}
			t.Parallel()
			s := newSandbox(t)
			_, image := slowImage(t, 12)
			w := newTerminal(t, 80, 24)
			w.shell(s)
			line := `"$IMGFS" --cache-dir "$IMGFS_CACHE_DIR" ` + command + " " + image
			if strings.HasPrefix(command, "mount") {
				line += " " + s.mountpoint()
			}
			w.typed(line + "\r")
			w.hasBars(true)
			w.typed("\x1a")
			w.shows(`Stopped`)
			w.hasBars(false)
			w.typed("echo one\r")
			w.shows(`(?m)^one$`)
			time.Sleep(300 * time.Millisecond)
			if bars := w.bars(); len(bars) > 0 {
				t.Errorf("while it is stopped there is %q", bars)
			}
			w.typed("fg\r")
			w.hasBars(true)
			w.typed("\x1a")
			w.hasBars(false)
			w.typed("bg\recho two\r")
			w.shows(`shell>two`)
			time.Sleep(300 * time.Millisecond)
			if bars := w.bars(); len(bars) > 0 {
				t.Errorf("in the background there is %q", bars)
			}
			w.typed("fg\r")
			w.hasBars(true)
			w.typed("\x03")
			w.shows(`imgfs: interrupted\nshell>$`)
			if bars := w.bars(); len(bars) > 0 || w.strange() != "" {
				t.Errorf("after Ctrl-C there is %q, and %s was written", bars, w.strange())
			}
			w.typed("exit\r")
			s.waitGone(s.dir)
		})
	}
}

// TestBarsOfSeveral has a script run several commands at once on one terminal: one draws
// at a time, the messages of all are there, and nothing else is left.
func TestBarsOfSeveral(t *testing.T) {
	testenv.Slow(t)
	t.Parallel()
	s := newSandbox(t)
	_, image := slowImage(t, 3)
	w := newTerminal(t, 80, 24)
	w.shell(s)
	w.typed(`sh -c 'for i in 1 2 3; do "$IMGFS" --cache-dir "$IMGFS_CACHE_DIR.$i" index ` + image + ` >/dev/null & done; wait; echo o""ver'` + "\r")
	w.hasBars(true)
	whole := regexp.MustCompile(`\d of \d+ layers`)
	most := 0
	if !eventually(30*time.Second, func() bool {
		text := strings.Join(w.lines(), "\n")
		most = max(most, len(whole.FindAllString(text, -1)))
		return strings.Contains(text, "\nover\n")
	}) {
		t.Fatalf("it does not end:\n%s", strings.Join(w.lines(), "\n"))
	}
	if most != 1 {
		t.Errorf("there were up to %d lines about all at once, want one", most)
	}
	if bars := w.bars(); len(bars) > 0 {
		t.Errorf("there is left %q", bars)
	}
	if n := strings.Count(strings.Join(w.lines(), "\n"), "imgfs: indexed 3 layers"); n != 3 {
		t.Errorf("%d of 3 last messages are there:\n%s", n, strings.Join(w.lines(), "\n"))
	}
}

// TestBarsInBackground begins a command in the background, where it draws nothing, and
// has it end there.
func TestBarsInBackground(t *testing.T) {
	testenv.Slow(t)
	t.Parallel()
	s := newSandbox(t)
	_, image := slowImage(t, 4)
	w := newTerminal(t, 80, 24)
	w.shell(s)
	w.typed(`"$IMGFS" --cache-dir "$IMGFS_CACHE_DIR" index ` + image + ` >/dev/null &` + "\r")
	w.shows(`imgfs: indexed 3 layers`)
	if strings.Contains(w.written(), "\x1b[") {
		t.Errorf("something was drawn: %q", w.written())
	}
	w.typed("exit\r")
	s.waitGone(s.dir)
}

// TestBarsInterrupted has messages come while bars are drawn, and ends commands by
// signals, also one whose terminal is held by Ctrl-S.
func TestBarsInterrupted(t *testing.T) {
	testenv.Slow(t)
	t.Parallel()
	s := newSandbox(t)
	reg, image := slowImage(t, 12)
	w := newTerminal(t, 80, 24)
	w.shell(s)
	interrupted := func(times int, what string) {
		t.Helper()
		w.shows(fmt.Sprintf(`(?s)(imgfs: interrupted\nshell>.*){%d}$`, times))
		if bars := w.bars(); len(bars) > 0 {
			t.Errorf("%s: there is %q", what, bars)
		}
	}
	w.typed(`"$IMGFS" --cache-dir "$IMGFS_CACHE_DIR" ls --verbose ` + image + "\r")
	w.hasBars(true)
	w.shows(`imgfs: HEAD http://` + regexp.QuoteMeta(reg.Host()))
	w.typed("\x03")
	interrupted(1, "Ctrl-C")
	w.typed(`"$IMGFS" --cache-dir "$IMGFS_CACHE_DIR" cat ` + image + " /last\r")
	w.hasBars(true)
	w.typed("\x13")
	time.Sleep(500 * time.Millisecond)
	w.typed("\x03")
	interrupted(2, "Ctrl-C after Ctrl-S")
	w.typed(`"$IMGFS" --cache-dir "$IMGFS_CACHE_DIR" index ` + image + "\r")
	w.hasBars(true)
	for _, pid := range processes(s.dir) {
		if slices.Contains(cmdline(pid), "index") {
			if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
				t.Error(err)
			}
		}
	}
	interrupted(3, "SIGTERM")
	w.typed("exit\r")
	s.waitGone(s.dir)
}

// TestTerminalGone closes the terminal under a command. One that is to end with it
// ends, and one that is not, as with nohup, goes on without it.
func TestTerminalGone(t *testing.T) {
	testenv.Slow(t)
	t.Parallel()
	for _, stays := range []bool{false, true} {
		t.Run(fmt.Sprint("stays ", stays), func(t *testing.T) {
			t.Parallel()
			s := newSandbox(t)
			_, image := slowImage(t, 4)
			w := newTerminal(t, 80, 24)
			shell := w.shell(s)
			out := filepath.Join(s.dir, "out")
			line := `"$IMGFS" --cache-dir "$IMGFS_CACHE_DIR" index --json ` + image + " >" + out
			if stays {
				line = "trap '' HUP; " + line
			}
			w.typed(line + "\r")
			w.hasBars(true)
			before := processes(s.dir)
			w.master.Close()
			_ = shell.Wait() // by SIGHUP
			s.waitGone(s.dir)
			text, err := os.ReadFile(out)
			if done := strings.Contains(string(text), `"obtained": "built"`); err != nil || done != stays {
				t.Errorf("processes %v: error %v, and they printed %q", before, err, text)
			}
		})
	}
}

// TestBarsInTmux has all lines of tmux: it keeps what programs clear.
func TestBarsInTmux(t *testing.T) {
	testenv.Slow(t)
	need(t, "tmux")
	t.Parallel()
	s := newSandbox(t)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, manyLayers(60)...)
	reg.Inject(registrytest.Blob, registrytest.Always(func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		time.Sleep(200 * time.Millisecond)
		serve(w, r)
	}))
	x := newTmux(s, 80, 24, fmt.Sprintf("%s index %s >/dev/null; echo over; exec sleep 60", imgfsBinary(t), image))
	if !eventually(10*time.Second, func() bool { return x.count("layer") > 5 }) {
		t.Fatalf("there are no bars: %q", x.lines())
	}
	if n := x.count("layer"); n > 22 {
		t.Errorf("%d lines are drawn on a terminal of 24", n)
	}
	if !eventually(20*time.Second, func() bool { return x.count("over") > 0 }) {
		t.Fatalf("it does not end: %q", x.lines())
	}
	if text := strings.TrimRight(strings.Join(x.lines(), "\n"), "\n"); !regexp.MustCompile(`^imgfs: indexed 60 layers, 2.1 MB in [0-9.]+ s\nover$`).MatchString(text) {
		t.Errorf("this is left: %q", text)
	}
}

// A tmux is a terminal in a server of its own.
type tmux struct {
	s      *sandbox
	socket string
}

// newTmux starts a command in a terminal, until the end of the test.
func newTmux(s *sandbox, cols, rows int, command string) *tmux {
	s.t.Helper()
	x := &tmux{s, filepath.Join(s.dir, "tmux")}
	s.t.Cleanup(func() { _ = exec.Command("tmux", "-S", x.socket, "kill-server").Run() }) // it may have ended
	x.run("new-session", "-d", "-x", fmt.Sprint(cols), "-y", fmt.Sprint(rows), command)
	return x
}

func (x *tmux) run(args ...string) string {
	x.s.t.Helper()
	out, err := x.s.program("tmux", append([]string{"-f", "/dev/null", "-S", x.socket}, args...)...).CombinedOutput()
	if err != nil {
		x.s.t.Fatalf("tmux %q: %v\n%s", args, err, out)
	}
	return string(out)
}

// lines returns all lines there are, those that have gone up first.
func (x *tmux) lines() []string { return strings.Split(x.run("capture-pane", "-p", "-S", "-"), "\n") }

// count returns how many lines have a text.
func (x *tmux) count(text string) (n int) {
	for _, line := range x.lines() {
		if strings.Contains(line, text) {
			n++
		}
	}
	return n
}

// TestBarsResized makes a terminal narrower and lower while bars are drawn. tmux does
// with lines that are too long what most terminals do.
func TestBarsResized(t *testing.T) {
	testenv.Slow(t)
	need(t, "tmux")
	t.Parallel()
	s := newSandbox(t)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, oneFile("a", seededNoise(1, 2<<20)), oneFile("b", seededNoise(2, 2<<20)), oneFile("c", seededNoise(3, 2<<20)))
	slowly(reg, 4_000)
	x := newTmux(s, 100, 30, fmt.Sprintf("%s index %s >/dev/null; echo over; exec sleep 60", imgfsBinary(t), image))
	if !eventually(10*time.Second, func() bool { return x.count("layer") == 4 }) {
		t.Fatalf("there are no bars: %q", x.lines())
	}
	for _, size := range [][2]string{{"40", "20"}, {"25", "10"}, {"90", "4"}, {"100", "30"}, {"20", "3"}, {"80", "24"}} {
		x.run("resize-window", "-x", size[0], "-y", size[1])
		time.Sleep(250 * time.Millisecond)
	}
	if !eventually(20*time.Second, func() bool { return x.count("over") > 0 }) {
		t.Fatalf("it does not end: %q", x.lines())
	}
	// What a lower terminal had no room for may have gone up.
	if n := x.count("layer"); n > 1+4 || !regexp.MustCompile(`(?m)^imgfs: indexed 3 layers, 6.3 MB in [0-9.]+ s\nover`).MatchString(strings.Join(x.lines(), "\n")) {
		t.Errorf("%d lines with bars are left: %q", n, x.lines())
	}
}
