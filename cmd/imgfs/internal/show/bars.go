package show

import (
	"errors"
	"fmt"
	"math"
	"os"
	"os/signal"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A Board shows progress in the last lines of a terminal, and draws them again as it
// goes on. It never has more lines than the terminal has but two, nor lines that are
// as long as the terminal is wide. Messages go above them.
//
// Nothing is drawn while another process has the terminal, as after Ctrl-Z, and
// nothing any more once the terminal is gone. The cursor stays visible, and in
// the first column of the last line.
//
// Of several processes that have one terminal in the foreground one draws, and stops for
// a moment when another has a message.
//
// A process has at most one Board, for as long as it lives: Go cannot give Ctrl-Z
// its default back.
type Board struct {
	tty       *os.File
	claim     *claim
	setOutput func(sink func(line string))

	mu    sync.Mutex
	shown *Progress // nil: nothing
	drawn []int     // the columns of the lines that are on the terminal
	text  string    // what they are
	open  bool
	gone  bool // the terminal is
	// cleared says that SIGCONT is to come after suspend, which has left nothing on
	// the terminal.
	cleared bool
}

var _ Display = (*Board)(nil)

// NewBoard returns a board on a terminal. While it is open it takes the messages of
// a command: setOutput sends them to a function, or elsewhere again if that is nil.
func NewBoard(tty *os.File, setOutput func(sink func(line string))) *Board {
	b := &Board{tty: tty, claim: newClaim(tty), setOutput: setOutput}
	stops, signals := make(chan os.Signal, 1), make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGCONT, unix.SIGWINCH)
	if !signal.Ignored(unix.SIGTSTP) {
		signal.Notify(stops, unix.SIGTSTP)
	}
	go b.watch(stops, signals)
	return b
}

// Open takes the messages, until Close.
func (b *Board) Open() {
	b.mu.Lock()
	b.open = !b.gone
	b.mu.Unlock()
	b.setOutput(b.message)
}

// Show implements Display.
func (b *Board) Show(p Progress) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.open {
		b.shown = &p
		b.draw()
	}
}

// Close implements Display. It may be called more than once, and by any goroutine.
func (b *Board) Close() {
	b.mu.Lock()
	was := b.open
	b.open, b.shown = false, nil
	b.draw()
	if _, _, ok := b.mine(); was && ok { // for what the command prints now
		b.claim.ask()
		time.AfterFunc(lastWords, b.dropUnused)
	}
	b.mu.Unlock()
	if was { // not with mu held, which a message may wait for
		b.setOutput(nil)
	}
}

// dropUnused gives the terminal back if nothing is drawn.
func (b *Board) dropUnused() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.drawn) == 0 {
		b.claim.drop()
	}
}

// lastWords is how long no other process draws after the end, unless this one ends.
const lastWords = 200 * time.Millisecond

// message prints a message above what is drawn.
func (b *Board) message(line string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	text := "imgfs: " + line + "\n"
	cols, rows, ok := b.mine()
	if !ok {
		fmt.Fprint(b.tty, text) // if the terminal is gone there is nobody to tell
		return
	}
	b.claim.ask()
	b.write(b.erase(cols, rows) + text)
	b.draw()
	if len(b.drawn) == 0 {
		b.claim.drop()
	}
}

// draw has the terminal show what is to be shown. The caller holds mu.
func (b *Board) draw() {
	cols, rows, ok := b.mine()
	if !ok {
		return
	}
	var lines []string
	if b.claim.wanted() {
		if len(b.drawn) > 0 {
			b.write(b.erase(cols, rows))
		}
		b.claim.drop()
		return
	}
	if b.shown != nil && b.claim.take() {
		lines = layOut(b.shown, cols-1, max(1, rows-2))
	}
	text := strings.Join(lines, "\x1b[K\n")
	if len(lines) == 0 {
		if len(b.drawn) > 0 {
			b.write(b.erase(cols, rows))
		}
		return
	}
	if text == b.text && len(b.drawn) > 0 {
		return
	}
	start := b.start(cols, rows)
	b.drawn, b.text = nil, text
	for _, l := range lines {
		b.drawn = append(b.drawn, len(l)) // all of it is ASCII
	}
	b.write(start + text + "\x1b[K\x1b[J\r")
}

// erase returns what removes the lines that are drawn. The caller writes it.
func (b *Board) erase(cols, rows int) string {
	if len(b.drawn) == 0 {
		return ""
	}
	start, last := b.start(cols, rows), b.drawn[len(b.drawn)-1]
	alone := len(b.drawn) == 1 && last <= cols
	b.forget()
	if alone {
		return start + "\x1b[K"
	}
	// All at once from the first line of the terminal would be taken for clearing it:
	// tmux then keeps what was there as if it had gone up.
	return start + "\x1b[K\n\x1b[J\x1b[A"
}

// start returns what moves the cursor to where the lines begin that are drawn. Where
// the terminal has become narrower, it has made several lines of each that is too
// long, as nearly all do now.
func (b *Board) start(cols, rows int) string {
	up := 0
	for i := range max(0, len(b.drawn)-1) {
		up += max(1, (b.drawn[i]+cols-1)/cols)
	}
	if up = min(up, rows-1); up <= 0 {
		return "\r"
	}
	return fmt.Sprintf("\r\x1b[%dA", up)
}

// forget takes what is drawn for somebody else's.
func (b *Board) forget() { b.drawn, b.text = nil, "" }

// write writes to the terminal. If that is gone nothing is drawn any more.
func (b *Board) write(text string) {
	if _, err := b.tty.WriteString(text); err != nil {
		b.gone, b.open, b.shown = true, false, nil
		b.forget()
	}
}

// mine returns the size of the terminal, and whether this process may draw on it:
// not if another has it in the foreground. A terminal that is not this process's own
// has no foreground.
func (b *Board) mine() (cols, rows int, ok bool) {
	fd := int(b.tty.Fd())
	group, err := unix.IoctlGetInt(fd, unix.TIOCGPGRP)
	if err != nil && !errors.Is(err, unix.ENOTTY) || err == nil && group != unix.Getpgrp() {
		b.forget()
		b.claim.drop()
		return 0, 0, false
	}
	cols, rows = terminalSize(fd)
	return cols, rows, true
}

// terminalSize returns the columns and lines of a terminal.
func terminalSize(fd int) (cols, rows int) {
	cols, rows = 80, 24
	if size, err := unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ); err == nil {
		if size.Col > 0 {
			cols = int(size.Col)
		}
		if size.Row > 0 {
			rows = int(size.Row)
		}
	}
	return cols, rows
}

// watch looks after the terminal, for as long as the process lives.
func (b *Board) watch(stops, signals <-chan os.Signal) {
	for {
		select {
		case <-stops:
			b.suspend()
		case sig := <-signals:
			b.mu.Lock()
			if sig == unix.SIGCONT {
				if !b.cleared {
					b.forget() // it was stopped in another way, and the shell has written since
				}
				b.cleared = false
			}
			b.text = "" // the size may be another
			b.draw()
			b.mu.Unlock()
		}
	}
}

// suspend stops this process, as Ctrl-Z does, with nothing left on the terminal.
func (b *Board) suspend() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if cols, rows, ok := b.mine(); ok && len(b.drawn) > 0 {
		b.write(b.erase(cols, rows))
	}
	b.claim.drop()
	b.cleared = true
	// Go does not give SIGTSTP back its default. That of SIGTTIN is the same: to
	// stop, unless there is no shell that could have the process go on.
	_ = unix.Kill(unix.Getpid(), unix.SIGTTIN)
	time.Sleep(20 * time.Millisecond) // it takes a moment to arrive
}

// layOut returns the lines that show progress, of at most cols ASCII characters, and
// no more of them than rows. The last one is about all.
func layOut(p *Progress, cols, rows int) []string {
	var lines []string
	for _, part := range p.Parts {
		if len(lines) == rows-1 {
			break
		}
		lines = append(lines, partLine(part, cols))
	}
	return append(lines, wholeLine(p, cols))
}

// partLine returns the line of something that is under way.
func partLine(p Part, cols int) string {
	const counts = len("999.9 MB / 999.9 MB")
	count := Bytes(p.Have) + " / " + Bytes(p.All)
	if p.All <= 0 { // nobody knows
		count = Bytes(p.Have)
		return fit(cols, p.Label+" "+count, count)
	}
	if width := min(maxBar, cols-len(p.Label)-counts-2); width >= minBar {
		return cut(p.Label+" "+bar(width, p.Have, p.All)+" "+count, cols)
	}
	short, _, _ := strings.Cut(p.Label, " ")
	if words := strings.Fields(p.Label); len(words) > 2 {
		short = words[0] + " " + words[1]
	}
	return fit(cols, p.Label+" "+count, short+" "+count, short+" "+Share(p.Have, p.All), short)
}

// wholeLine returns the line about all.
func wholeLine(p *Progress, cols int) string {
	have, rate, left := Bytes(p.Have)+" of "+Bytes(p.All), "", ""
	if p.Rate > 0 {
		rate = ", " + Bytes(int64(min(p.Rate, math.MaxInt64/2))) + "/s"
	}
	if p.Left > 0 {
		left = ", " + leftText(p.Left)
	}
	if p.Of > 0 {
		count := fmt.Sprintf("%d of %s", p.Done, Count(p.Of, "layer"))
		few := fmt.Sprintf("%d/%d", p.Done, p.Of)
		return fit(cols, count+", "+have+rate+left, count+", "+have+left, count+", "+have, few+" "+have+left, few+left, few+" "+have, few)
	}
	if p.All <= 0 { // nobody knows
		have, left = Bytes(p.Have), ""
		return fit(cols, p.Label+" "+have+rate, p.Label+" "+have, have)
	}
	text := have + rate + left
	if width := min(maxBar, cols-len(p.Label)-2-len("999.9 MB of 999.9 MB, 999.9 MB/s, 60 min left")); width >= minBar {
		return cut(p.Label+" "+bar(width, p.Have, p.All)+" "+text, cols)
	}
	share := Share(p.Have, p.All)
	return fit(cols, p.Label+" "+text, p.Label+" "+have+left, p.Label+" "+have, p.Label+" "+share, share)
}

// fit returns the first of some texts that is short enough, or what there is room for
// of the last one.
func fit(cols int, texts ...string) string {
	for _, t := range texts {
		if len(t) <= cols {
			return t
		}
	}
	return cut(texts[len(texts)-1], cols)
}

// cut returns the beginning of an ASCII text.
func cut(text string, cols int) string { return text[:min(len(text), max(cols, 0))] }

// The width of a bar, its ends included.
const minBar, maxBar = 10, 40

// bar draws how much is done.
func bar(width int, have, all int64) string {
	inner := width - len("[]")
	n := inner
	if have < all {
		n = min(inner-1, int(float64(max(have, 0))/float64(all)*float64(inner)))
	}
	text := strings.Repeat("=", n)
	if n < inner {
		text += ">" + strings.Repeat("-", inner-n-1)
	}
	return "[" + text + "]"
}

// leftText writes how long the rest takes.
func leftText(seconds float64) string {
	switch s := int64(math.Ceil(seconds)); {
	case s < 100:
		return fmt.Sprintf("%d s left", s)
	case s < 100*60:
		return fmt.Sprintf("%d min left", (s+59)/60)
	default:
		return fmt.Sprintf("%d h left", (s+3599)/3600)
	}
}
