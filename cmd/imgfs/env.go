package main

import (
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/imgfs/imgfs/remote/printable"
	"github.com/spf13/pflag"
	"golang.org/x/term"
)

// An env is what every command has: its global flags and where to print.
type env struct {
	// stdout takes text. What could act on a terminal is escaped in it, whatever
	// whoever printed it has done about it.
	stdout io.Writer
	// raw is the same place for what is to come out byte for byte.
	raw    io.Writer
	stderr io.Writer

	cacheDir  string
	cacheSize boundFlag
	limits    limits
	offline   bool
	platform  string
	tlsVerify tristate
	authfile  string
	quiet     bool
	verbose   bool
	network   network
	life      *lifetime

	closing []io.Closer // sources of images, for the end of the command

	mu   sync.Mutex
	sink func(line string) // where lines for the user go
}

func newEnv(stdout, stderr io.Writer) *env {
	e := &env{stdout: printable.NewWriter(stdout), raw: stdout, stderr: stderr, life: newLifetime()}
	e.sayTo(nil)
	return e
}

// close ends what sources of images still do: it was only read from them.
func (e *env) close() {
	for _, c := range e.closing {
		c.Close()
	}
	e.closing = nil
}

func (e *env) globalFlags() *pflag.FlagSet {
	f := pflag.NewFlagSet("imgfs", pflag.ContinueOnError)
	f.Usage = func() {}
	f.StringVar(&e.cacheDir, "cache-dir", os.Getenv("IMGFS_CACHE_DIR"), "")
	f.Var(&e.cacheSize, "cache-size", "")
	e.limits.flags(f)
	f.BoolVar(&e.offline, "offline", false, "")
	f.StringVar(&e.platform, "platform", "", "")
	f.Var(&e.tlsVerify, "tls-verify", "")
	f.Lookup("tls-verify").NoOptDefVal = "true"
	f.StringVar(&e.authfile, "authfile", "", "")
	f.BoolVar(&e.network.allowPrivate, "allow-private", false, "")
	f.BoolVarP(&e.quiet, "quiet", "q", false, "")
	f.BoolVarP(&e.verbose, "verbose", "v", false, "")
	return f
}

// warnf prints a line about something that is not as it should be.
func (e *env) warnf(format string, args ...any) {
	if !e.quiet {
		e.say(fmt.Sprintf(format, args...))
	}
}

// debugf prints a line with --verbose.
func (e *env) debugf(format string, args ...any) {
	if e.verbose && !e.quiet {
		e.say(fmt.Sprintf(format, args...))
	}
}

// errorf prints an error and what there is to do about it.
func (e *env) errorf(err error) {
	e.say(describe(err))
	if hint := hintFor(err); hint != "" {
		e.say("hint: " + hint)
	}
}

// say tells the user a line. It may be called by any goroutine.
func (e *env) say(line string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.sink(printable.Line(line))
}

// sayTo sends what is said from now on to another place than stderr, or to
// stderr again if sink is nil.
func (e *env) sayTo(sink func(line string)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.sink = sink; sink == nil {
		// That it cannot be said nobody can be told.
		e.sink = func(line string) { fmt.Fprintf(e.stderr, "imgfs: %s\n", line) }
	}
}

// terminal returns the file that w is if that is a terminal.
func terminal(w io.Writer) (*os.File, bool) {
	f, ok := w.(*os.File)
	return f, ok && term.IsTerminal(int(f.Fd()))
}

// A tristate is a boolean flag that knows whether it was given.
type tristate struct{ value, set bool }

// String, Set and Type implement pflag.Value.
func (t *tristate) String() string {
	if !t.set {
		return ""
	}
	return fmt.Sprint(t.value)
}

func (t *tristate) Set(s string) error {
	switch s {
	case "true", "1", "t":
		*t = tristate{true, true}
	case "false", "0", "f":
		*t = tristate{false, true}
	default:
		return fmt.Errorf("%q is neither true nor false", s)
	}
	return nil
}

func (t *tristate) Type() string { return "bool" }
