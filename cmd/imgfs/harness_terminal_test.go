//go:build linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// A terminal is the far end of a pseudo terminal, with a screen that shows what is
// written to it.
type terminal struct {
	t      testing.TB
	master *os.File
	tty    *os.File // the near end, until it is closed
	over   chan struct{}

	mu     sync.Mutex
	screen *screen
	raw    strings.Builder
}

// newTerminal makes a terminal, until the end of the test.
func newTerminal(t testing.TB, cols, rows int) *terminal {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		missing(t, "there are no terminals: %v", err)
	}
	fd := int(master.Fd())
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	tty, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		missing(t, "%v", err)
	}
	w := &terminal{t: t, master: master, tty: tty, over: make(chan struct{}), screen: newScreen(cols, rows)}
	w.resize(cols, rows)
	go w.show()
	t.Cleanup(func() {
		tty.Close() // it may be closed by now
		select {
		case <-w.over:
		case <-time.After(5 * time.Second):
			t.Error("somebody still has the terminal")
		}
		master.Close()
	})
	return w
}

// show shows what is written to the terminal, until all have closed it.
func (w *terminal) show() {
	defer close(w.over)
	buf := make([]byte, 64<<10)
	for {
		n, err := w.master.Read(buf)
		w.mu.Lock()
		w.screen.write(buf[:n])
		w.raw.Write(buf[:n])
		w.mu.Unlock()
		if err != nil {
			return // EIO
		}
	}
}

func (w *terminal) resize(cols, rows int) {
	w.t.Helper()
	if err := unix.IoctlSetWinsize(int(w.master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: uint16(rows), Col: uint16(cols)}); err != nil {
		w.t.Fatal(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.screen.resize(cols, rows)
}

// typed types on the terminal.
func (w *terminal) typed(text string) {
	w.t.Helper()
	if _, err := w.master.WriteString(text); err != nil {
		w.t.Fatal(err)
	}
}

// lines returns all lines that there have been, those that have left the screen first.
func (w *terminal) lines() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.screen.all()
}

// written returns all that was written.
func (w *terminal) written() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.raw.String()
}

// shows waits until what is there matches.
func (w *terminal) shows(pattern string) {
	w.t.Helper()
	re := regexp.MustCompile(pattern)
	if !eventually(20*time.Second, func() bool { return re.MatchString(strings.Join(w.lines(), "\n")) }) {
		w.t.Fatalf("the terminal does not show %s:\n%s", pattern, strings.Join(w.lines(), "\n"))
	}
}

// shell starts an interactive shell on the terminal, without line editing.
func (w *terminal) shell(s *sandbox) *exec.Cmd {
	w.t.Helper()
	need(w.t, "bash")
	cmd := s.program("bash", "--norc", "--noprofile", "--noediting", "-i")
	cmd.Env = append(cmd.Env, "TERM=xterm", "PS1=shell>", "IMGFS="+imgfsBinary(w.t))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = w.tty, w.tty, w.tty
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.tty.Close()
	w.t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
	})
	w.shows(`shell>$`)
	return cmd
}

// onTerminal calls do with a terminal of 24 lines of 80 columns, and returns what
// was written to it. do must return 0.
func onTerminal(t *testing.T, do func(tty *os.File) int) string {
	t.Helper()
	w := newTerminal(t, 80, 24)
	if code := w.run(do); code != 0 {
		t.Fatalf("got exit code %d, want 0:\n%s", code, w.written())
	}
	return w.written()
}

// run calls do with the terminal, and returns when all of what it wrote is shown.
func (w *terminal) run(do func(tty *os.File) int) (code int) {
	w.t.Helper()
	code = do(w.tty)
	w.tty.Close()
	select {
	case <-w.over:
	case <-time.After(5 * time.Second):
		w.t.Fatal("somebody still has the terminal")
	}
	return code
}

// strange returns what was written and is not to be.
func (w *terminal) strange() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.screen.strange
}

// A screen is what a terminal shows: the little of ECMA-48 that imgfs uses.
// Characters are as wide as one column.
type screen struct {
	cols, rows int
	left       []string // lines that have gone up
	cells      [][]rune
	row, col   int
	high       int    // most lines that have ever been in use at once
	rest       []byte // of a sequence
	strange    string // what it does not know
}

func newScreen(cols, rows int) *screen {
	s := &screen{}
	s.resize(cols, rows)
	return s
}

// resize is that of a terminal that cuts lines off: xterm.
func (s *screen) resize(cols, rows int) {
	s.cols, s.rows = cols, rows
	for i := range s.cells {
		s.cells[i] = s.cells[i][:min(len(s.cells[i]), cols)]
	}
	for len(s.cells) < rows {
		s.cells = append(s.cells, nil)
	}
	for len(s.cells) > rows {
		if s.row < rows {
			s.cells = s.cells[:rows]
			break
		}
		s.scroll()
		s.cells = s.cells[:len(s.cells)-1]
		s.row--
	}
	s.col = min(s.col, cols-1)
}

func (s *screen) scroll() {
	s.left = append(s.left, text(s.cells[0]))
	s.cells = append(s.cells[1:], nil)
}

func text(cells []rune) string {
	return strings.TrimRight(strings.ReplaceAll(string(cells), "\x00", " "), " ")
}

var sequence = regexp.MustCompile(`^\x1b\[(\??[0-9]*)([A-Za-z])`)

func (s *screen) write(p []byte) {
	p = append(s.rest, p...)
	s.rest = nil
	for len(p) > 0 {
		if p[0] != 0x1b {
			if !utf8.FullRune(p) {
				s.rest = append([]byte(nil), p...)
				return
			}
			r, n := utf8.DecodeRune(p)
			s.put(r)
			p = p[n:]
			continue
		}
		m := sequence.FindSubmatch(p)
		if m == nil {
			if len(p) > 16 {
				s.strange += fmt.Sprintf(" %q", p[:16])
				p = p[1:]
				continue
			}
			s.rest = append([]byte(nil), p...)
			return
		}
		n, _ := strconv.Atoi(string(m[1]))
		switch string(m[2]) {
		case "A":
			s.row = max(0, s.row-max(1, n))
		case "K":
			s.cells[s.row] = s.cells[s.row][:min(len(s.cells[s.row]), s.col)]
		case "J":
			s.cells[s.row] = s.cells[s.row][:min(len(s.cells[s.row]), s.col)]
			for i := s.row + 1; i < s.rows; i++ {
				s.cells[i] = nil
			}
		default:
			s.strange += fmt.Sprintf(" %q", m[0])
		}
		p = p[len(m[0]):]
	}
	used := 0
	for i, line := range s.cells {
		if text(line) != "" {
			used = i + 1
		}
	}
	s.high = max(s.high, used)
}

func (s *screen) put(r rune) {
	switch r {
	case '\r':
		s.col = 0
	case '\n':
		s.down()
	case '\b':
		s.col = max(0, s.col-1)
	case '\a':
	default:
		if r < ' ' {
			s.strange += fmt.Sprintf(" %q", r)
			return
		}
		if s.col == s.cols {
			s.col = 0
			s.down()
		}
		for len(s.cells[s.row]) <= s.col {
			s.cells[s.row] = append(s.cells[s.row], 0)
		}
		s.cells[s.row][s.col] = r
		s.col++
	}
}

func (s *screen) down() {
	if s.row++; s.row == s.rows {
		s.scroll()
		s.row--
	}
}

// all returns the lines up to the last that is not empty.
func (s *screen) all() []string {
	lines := append([]string(nil), s.left...)
	for _, c := range s.cells {
		lines = append(lines, text(c))
	}
	for len(lines) > 0 && lines[len(lines)-1] == "" && len(lines) > len(s.left)+s.row {
		lines = lines[:len(lines)-1]
	}
	return lines
}
