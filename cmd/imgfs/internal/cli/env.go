package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/imgfs/imgfs/remote/printable"
	"golang.org/x/term"
)

// An Env is where a command prints, and how much. Its methods may be called by
// several goroutines at a time.
type Env struct {
	// Stdout takes text. It escapes everything that could act on a terminal, in case
	// the caller has not.
	Stdout io.Writer
	// Raw is the same place for bytes that must come out unchanged.
	Raw io.Writer
	// Stderr takes messages. The methods of Env escape them.
	Stderr io.Writer

	Quiet   bool // only errors are printed
	Verbose bool // Debugf prints, unless Quiet is set

	// Hint returns the hint for an error that has none of its own (see WithHint), or
	// "". It may be nil.
	Hint func(error) string

	failure atomic.Int32 // the exit code of the command that runs, if it fails; 0: ExitFailure

	mu          sync.Mutex
	sink        func(line string) // where messages go
	interrupted bool              // and that has been said
	about       string            // see About
}

// NewEnv returns an Env that prints to stdout and stderr.
func NewEnv(stdout, stderr io.Writer) *Env {
	e := &Env{Stdout: printable.NewWriter(stdout), Raw: stdout, Stderr: stderr}
	e.SetOutput(nil)
	return e
}

// Print prints text to Stdout.
func (e *Env) Print(text string) error {
	_, err := fmt.Fprint(e.Stdout, text)
	return err
}

// Warnf prints a message about something that is not as it should be.
func (e *Env) Warnf(format string, args ...any) {
	if !e.Quiet {
		e.Message(fmt.Sprintf(format, args...))
	}
}

// Debugf prints a message if the user wants all of them.
func (e *Env) Debugf(format string, args ...any) {
	if e.Verbose && !e.Quiet {
		e.Message(fmt.Sprintf(format, args...))
	}
}

// FailureCode returns the exit code of a failure of the command that runs.
func (e *Env) FailureCode() int { return cmp.Or(int(e.failure.Load()), ExitFailure) }

const hintPrefix = "hint: "

// Error prints an error, and its hint if it has one. That the command was interrupted it
// says once: each file that was being read fails of that.
func (e *Env) Error(err error) {
	if errors.Is(err, context.Canceled) {
		e.mu.Lock()
		said := e.interrupted
		e.interrupted = true
		e.mu.Unlock()
		if said {
			return
		}
	}
	e.Message(Describe(err))
	if hint := e.hintFor(err); hint != "" {
		e.Message(hintPrefix + hint)
	}
}

// Message prints text as one line, however much the user wants to know.
func (e *Env) Message(text string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.about != "" && !strings.HasPrefix(text, hintPrefix) && !strings.Contains(text, e.about) {
		text = e.about + ": " + text
	}
	e.sink(printable.Line(text))
}

// About has messages name what they are about, from now on, unless they do so: of several
// commands whose messages appear together. "" ends it.
func (e *Env) About(name string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.about = name; name != "" {
		e.about = printable.Name(name)
	}
}

// SetOutput sends messages to sink from now on, one line at a time, or to Stderr
// again if sink is nil.
func (e *Env) SetOutput(sink func(line string)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.sink = sink; sink == nil {
		// If stderr is gone there is nobody to tell.
		e.sink = func(line string) { fmt.Fprintf(e.Stderr, "imgfs: %s\n", line) }
	}
}

// Each calls do with every argument, prints the errors, and returns an error if
// there was one.
func (e *Env) Each(args []string, do func(string) error) error {
	var failed error
	for _, arg := range args {
		if err := do(arg); err != nil {
			e.Error(err)
			failed = &ExitError{}
		}
	}
	return failed
}

// Terminal returns Stderr if that is a terminal that something may be drawn on: the
// user wants that, and it knows more than lines of text. Nothing is drawn in colour,
// so NO_COLOR has no say.
func (e *Env) Terminal() (*os.File, bool) {
	if term := os.Getenv("TERM"); e.Quiet || term == "" || term == "dumb" {
		return nil, false
	}
	return Terminal(e.Stderr)
}

// Terminal returns the file that w is if that is a terminal.
func Terminal(w io.Writer) (*os.File, bool) {
	f, ok := w.(*os.File)
	return f, ok && term.IsTerminal(int(f.Fd()))
}
